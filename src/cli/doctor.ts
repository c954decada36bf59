import { execFile } from "node:child_process";
import { access, constants, readdir, statfs } from "node:fs/promises";
import { availableParallelism, release, totalmem } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { fail, ok, textOf, warn, type Finding } from "./finding.ts";
import { reckonCapacity } from "../daemon/capacity.ts";
import { DISK_WARNING_SHARES, diskUse } from "../daemon/disk-watch.ts";
import { findMemoryGroups } from "../vmm/jail/memory-groups.ts";
import { readProcessLimits } from "../vmm/jail/process-limits.ts";
import { SLOTS_MAX_DEFAULT } from "../wire/limits.ts";
import { HostMemory } from "../worker/memory/host-memory.ts";
import { forwardDroppers } from "../worker/network/firewalls.ts";
import { hostNameServers } from "../worker/network/name-servers.ts";
import { probeNetworks } from "../worker/network/open.ts";
import { bytes } from "./output.ts";
import { protections } from "./protections.ts";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));
const GIB = 1024 ** 3;
const MEMORY_BYTES_WANTED = 1 * GIB;
const DISK_BYTES_WANTED = 2 * GIB;
/** With fewer slots a machine is of little use. */
const SLOTS_ENOUGH = 100;

const canUse = (path: string, mode: number = constants.R_OK): Promise<boolean> =>
  access(path, mode).then(
    () => true,
    () => false,
  );

const versionOf = async (program: string, ...args: string[]): Promise<string | null> =>
  promisify(execFile)(program, args, { timeout: 10_000 }).then(
    ({ stdout, stderr }) => (stdout || stderr).split("\n")[0]?.trim() ?? "",
    () => null,
  );

const machine = async (): Promise<Finding> => {
  const cpu = /^model name\s*:\s*(.*)$/m.exec((await textOf("/proc/cpuinfo")) ?? "")?.[1] ?? "unknown processor";
  const what = `Linux ${release()} on ${process.arch}, ${availableParallelism()} CPUs (${cpu})`;
  return process.platform === "linux" && process.arch === "x64"
    ? ok("machine", what)
    : fail("machine", what, "Hearth runs on Linux on x86-64.");
};

const memory = async (): Promise<Finding> => {
  const { totalBytes, availableBytes } = new HostMemory(findMemoryGroups()).read();
  const limit = totalBytes < totalmem() ? ", which is what this process's control group may have" : "";
  const what = `${bytes(availableBytes)} available of ${bytes(totalBytes)}${limit}`;
  return availableBytes >= MEMORY_BYTES_WANTED
    ? ok("memory", what)
    : warn("memory", what, "Free some: functions need at least 128 MB each.");
};

/** Guest memory is a memfd, which counts as shared memory; a tight cgroup or tmpfs limit would show here. */
const sharedMemory = async (): Promise<Finding> => {
  const found = await statfs("/dev/shm").catch(() => null);
  const own = (await textOf("/sys/fs/cgroup/memory.max"))?.trim();
  const limit = own !== undefined && /^\d+$/.test(own) ? `, this process's cgroup ends at ${bytes(Number(own))}` : "";
  return found === null
    ? warn("shared memory", `/dev/shm is not mounted${limit}`, "Mount a tmpfs at /dev/shm.")
    : ok("shared memory", `/dev/shm has ${bytes(found.bavail * found.bsize)} free${limit}`);
};

const cgroups = async (): Promise<Finding> => {
  const v2 = await textOf("/sys/fs/cgroup/cgroup.controllers");
  const names = await readdir("/sys/fs/cgroup").catch((): string[] => []);
  const v1 = names.includes("memory") && names.includes("pids");
  if (v2 !== null) return ok("cgroup", `version 2 (${v2.trim() || "no controllers"})`);
  if (v1) return ok("cgroup", "version 1 (memory, pids)");
  return warn(
    "cgroup",
    "not mounted",
    "Mount cgroup2 at /sys/fs/cgroup, else host limits of microVMs are not enforced.",
  );
};

const cgroupsWritable = async (): Promise<Finding> => {
  const v2 = (await textOf("/sys/fs/cgroup/cgroup.controllers")) !== null;
  const place = v2 ? "/sys/fs/cgroup" : "/sys/fs/cgroup/memory";
  return (await canUse(place, constants.W_OK))
    ? ok("cgroup access", `${place} may be written`)
    : warn(
        "cgroup access",
        `${place} may not be written by this user`,
        "Run Hearth as root, or have a cgroup delegated to it.",
      );
};

/** `flag` makes it print its version; null for one that has no such flag. */
const program = async (name: string, flag: string | null, why: string, packageName: string): Promise<Finding> => {
  const version = await versionOf(name, flag ?? "--help");
  return version === null
    ? fail(name, `is missing: ${why}`, `Run ./hearth setup, or: apt-get install ${packageName}`)
    : ok(name, flag === null ? "found" : version);
};

/** The jail is all namespaces: whether this user may make them shows only by trying. */
const namespaces = async (): Promise<Finding> => {
  const args = ["--unshare-all", "--ro-bind", "/", "/", "true"];
  const made = await versionOf("bwrap", ...args);
  return made === null
    ? fail(
        "namespaces",
        "bwrap cannot make them here",
        "Run as root, or set sysctl kernel.unprivileged_userns_clone=1; a container needs its seccomp profile relaxed.",
      )
    : ok("namespaces", "all kinds can be made");
};

/** Functions work without a network too, so nothing here is a failure. */
const network = async (): Promise<Finding> => {
  const reason = await probeNetworks();
  if (reason !== null)
    return warn("network", `none: ${reason}`, "Run as root on a host with /dev/net/tun, nf_tables, veth and tun.");
  const servers = hostNameServers();
  if (servers.length === 0)
    return warn("network", "NAT, but no name server that guests could reach", "Name one: hearth up --name-server.");
  const droppers = await forwardDroppers();
  if (droppers.length > 0)
    return warn(
      "network",
      `NAT, but another firewall drops what is forwarded (${droppers.join(", ")})`,
      "Let it pass: iptables -I FORWARD -i hth+ -j ACCEPT; iptables -I FORWARD -o hth+ -j ACCEPT",
    );
  return ok(
    "network",
    `NAT; functions ask ${servers.join(", ")} for names; private, metadata and reserved addresses are closed to them`,
  );
};

const built = async (): Promise<Finding[]> => {
  const parts: [string, string, string][] = [
    ["guest kernel", "build/kernel/uml", "setup"],
    ["native binding", "build/native/binding.node", "setup"],
    ["shim", "build/native/shim", "setup"],
    ["images", "build/images/manifest.json", "setup"],
  ];
  const looked = parts.map(async ([name, path, step]) =>
    (await canUse(join(ROOT, path))) ? ok(name, path) : fail(name, `${path} is missing`, `Run ./hearth ${step}`),
  );
  return Promise.all([...looked, imageFiles()]);
};

const imageFiles = async (): Promise<Finding> => {
  const manifest = await textOf(join(ROOT, "build/images/manifest.json"));
  if (manifest === null) return fail("runtimes", "no image was built", "Run ./hearth setup");
  const entries = Object.entries(JSON.parse(manifest) as Record<string, { file?: string }>);
  const missing: string[] = [];
  for (const [name, { file }] of entries) {
    if (file !== undefined && !(await canUse(join(ROOT, "build/images", file)))) missing.push(name);
  }
  const names = entries.map(([name]) => name).filter((name) => name !== "base");
  return missing.length === 0
    ? ok("runtimes", names.join(", "))
    : fail("runtimes", `images missing: ${missing.join(", ")}`, "Run ./hearth setup");
};

/** What `hearth up` reckons with when it is started from here. */
const limits = (): Finding[] => {
  const found = readProcessLimits();
  const { slotsMax, connectionsMax, lowered } = reckonCapacity(found, SLOTS_MAX_DEFAULT);
  const what = `${found.openFilesMax} open files and ${found.processesLeft} more processes: ${slotsMax} slots and ${connectionsMax} connections`;
  const enough = slotsMax >= SLOTS_ENOUGH;
  return [enough ? ok("slots", what) : warn("slots", what, `Raise what they lack: ${lowered.join("; ")}.`)];
};

/** Looks for room where data will be: the directory itself, or the nearest one above that exists. */
const disk = async (dataDir: string): Promise<Finding> => {
  let place = dataDir;
  while (!(await canUse(place)) && dirname(place) !== place) place = dirname(place);
  const { usedShare, availableBytes } = diskUse(place);
  const what = `${bytes(availableBytes)} free for ${dataDir}, ${Math.floor(usedShare * 100)} % of the disk in use`;
  if (!(await canUse(place, constants.W_OK))) {
    return fail("data directory", `${place} may not be written by this user`, "Name another one with --data-dir.");
  }
  return availableBytes >= DISK_BYTES_WANTED && usedShare < Math.min(...DISK_WARNING_SHARES)
    ? ok("data directory", what)
    : warn("data directory", what, "Free some space, or use --data-dir.");
};

/** Looks at everything Hearth needs of this machine, without changing any of it. */
export const examine = async (dataDir: string): Promise<Finding[]> => [
  await machine(),
  await memory(),
  await sharedMemory(),
  ...limits(),
  await disk(dataDir),
  await cgroups(),
  await cgroupsWritable(),
  await program("bwrap", "--version", "it is the jail of every microVM", "bubblewrap"),
  await namespaces(),
  ...(await protections()),
  await network(),
  await program("mkfs.erofs", null, "it makes images of functions' code", "erofs-utils"),
  ...(await built()),
];
