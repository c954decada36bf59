import { existsSync } from "node:fs";
import { readdir } from "node:fs/promises";
import { vmmOptions } from "../vmm/config.ts";
import { unsafety } from "../vmm/own-directory.ts";
import { fail, ok, textOf, warn, type Finding } from "./finding.ts";

/** Kinds of namespaces of which every jail has its own (src/vmm/jail/bubblewrap.ts). */
const NAMESPACES = ["user", "pid", "mnt", "net", "ipc", "uts", "cgroup"];
/** Controllers that limit a microVM on the host, and what is missing without them. */
const CONTROLLERS: readonly (readonly [name: string, without: string])[] = [
  ["memory", "a microVM's process may take more memory of the host than its guest has"],
  ["pids", "a microVM may make as many processes as its user may"],
  ["cpu", "microVMs do not share the processors by weight"],
];

const users = (): Finding =>
  process.getuid?.() === 0
    ? ok("jail: user", "each microVM runs as a user that nobody else is")
    : warn(
        "jail: user",
        "all microVMs run as this user: one that breaks out can reach the others and this user's files",
        "Run Hearth as root.",
      );

/** Where the sockets of microVMs are: whoever could replace it would be connected to in their stead. */
const runDirectory = (): Finding => {
  const { runDir } = vmmOptions();
  const wrong = existsSync(runDir) ? unsafety(runDir, "safe") : null;
  return wrong === null
    ? ok("jail: run directory", runDir)
    : fail("jail: run directory", `${runDir} is not safe to use: ${wrong}`, "Remove or mend it.");
};

const namespaces = async (): Promise<Finding> => {
  const there = await readdir("/proc/self/ns").catch((): string[] => []);
  const missing = NAMESPACES.filter((name) => !there.includes(name));
  return missing.length === 0
    ? ok("jail: namespaces", NAMESPACES.join(", "))
    : warn("jail: namespaces", `this kernel has none of: ${missing.join(", ")}`, "Use a kernel with all of them.");
};

const systemCalls = async (): Promise<Finding> => {
  const actions = (await textOf("/proc/sys/kernel/seccomp/actions_avail")) ?? "";
  return actions.split(/\s+/).includes("user_notif")
    ? ok("jail: system calls", "filtered; a violation is reported with its name")
    : warn(
        "jail: system calls",
        "this kernel has no seccomp filter that reports (Linux 5.0)",
        "Use a kernel with CONFIG_SECCOMP_FILTER, 5.0 or later: without it no microVM starts.",
      );
};

/** Controllers of cgroup v2, else those of v1 that are mounted. */
const controllers = async (): Promise<Set<string>> => {
  const v2 = ((await textOf("/sys/fs/cgroup/cgroup.controllers")) ?? "").trim();
  const mounts = (await textOf("/proc/self/mounts")) ?? "";
  const v1 = [...mounts.matchAll(/^\S+ \S+ cgroup (\S+) /gm)].flatMap(([, options = ""]) => options.split(","));
  return new Set(v2 === "" ? v1 : v2.split(" "));
};

const groupLimits = async (): Promise<Finding[]> => {
  const there = await controllers();
  return CONTROLLERS.map(([name, without]) =>
    there.has(name)
      ? ok(`jail: ${name} limit`, "by a control group")
      : warn(`jail: ${name} limit`, `there is no such controller: ${without}`, `Enable the cgroup controller ${name}.`),
  );
};

/** What the kernel says of its processors: guests share them. */
const sideChannels = async (): Promise<Finding> => {
  const place = "/sys/devices/system/cpu/vulnerabilities";
  const names = await readdir(place).catch((): string[] => []);
  const texts = await Promise.all(names.map((name) => textOf(`${place}/${name}`)));
  const open = names.filter((_, i) => texts[i]?.startsWith("Vulnerable") === true);
  const siblings = (await textOf("/sys/devices/system/cpu/smt/active"))?.trim() === "1" ? ["SMT is on"] : [];
  const found = [...open, ...siblings];
  return found.length === 0
    ? ok("side channels", "the kernel knows of none that is open")
    : warn(
        "side channels",
        `between guests that share a processor: ${found.join(", ")}`,
        "Update firmware and kernel, switch SMT off, or give those who distrust each other machines of their own.",
      );
};

/** What of the jail this host can give, a line each. */
export const protections = async (): Promise<Finding[]> => [
  users(),
  runDirectory(),
  await namespaces(),
  await systemCalls(),
  ...(await groupLimits()),
  await sideChannels(),
];
