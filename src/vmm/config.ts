import { existsSync, readFileSync, statfsSync } from "node:fs";
import { homedir } from "node:os";

import { systemClock, type Clock } from "../lib/clock.ts";
import { noTurns, type Turns } from "../lib/turn-meter.ts";
import { takeOwnDirectory } from "./own-directory.ts";

/**
 * `shared`: what guests have in common is in memory once, and a program is there at once. `copied`: no page of memory is
 * mapped by two guests, whose caches could tell one what the other runs.
 */
export type DrivePages = "shared" | "copied";

/** Where things are and how far they go. Everything has a default; `vmmOptions` fills in what is not given. */
export interface VmmOptions {
  readonly clock: Clock;
  /** Measures what the loop does for each guest. */
  readonly turns: Turns;
  /** Told of what a microVM that has ended left on the host, and why: nobody else can do anything about it. */
  readonly onLeft: (error: unknown) => void;
  /** The UML kernel. */
  readonly umlKernel: string;
  readonly bwrap: string;
  /** native/jail, compiled: what bwrap runs, and what becomes the hypervisor. */
  readonly jailEnter: string;
  /**
   * Directory of what lives as long as a microVM: sockets, mostly. Best on a tmpfs (ext4 gets slower with every file that
   * was removed in the last seconds), and short: sockets are below it (see `RunDirectory`). Created when absent.
   */
  readonly runDir: string;
  /**
   * Directory of images that microVMs were given, as hard links; where it is on another file system than an image, the
   * image is copied. Another one than `runDir`, beside which it is when only that is given. Created when absent.
   */
  readonly drivesDir: string;
  /**
   * Directory of the drives that microVMs write to, which lie below it as sparse files until their microVM ends. On a
   * disk; another one than `runDir`, beside which it is when only that is given. Created when absent.
   */
  readonly scratchDir: string;
  /** Images below it are visible (read-only) to every microVM without a link or a copy: nothing secret belongs there. */
  readonly sharedImagesDir: string | null;
  /** Whether guest processes may map the host's own pages of read-only drives, or get copies in their guest's memory. */
  readonly drivePages: DrivePages;
  /** Host CPUs microVMs may live on. */
  readonly cpus: readonly number[];
  /** False leaves microVMs without cgroups (no limits on the host, no freezing by cgroup). */
  readonly cgroups: boolean;
}

const repository = new URL("../../", import.meta.url).pathname;

/** CPUs this process may run on (Cpus_allowed_list of proc(5), such as `0-3,8`): a container may have fewer than the host. */
const ownCpus = (): number[] => {
  const list = /^Cpus_allowed_list:\s*(\S+)/m.exec(readFileSync("/proc/self/status", "utf8"))?.[1] ?? "0";
  return list.split(",").flatMap((range) => {
    const [first = 0, last = first] = range.split("-").map(Number);
    return Array.from({ length: last - first + 1 }, (_, i) => first + i);
  });
};

/** `f_type` of a tmpfs, statfs(2). */
const TMPFS_MAGIC = 0x0102_1994;

const canOwn = (path: string): boolean => {
  try {
    takeOwnDirectory(path, 0o711, "safe");
    return true;
  } catch {
    return false;
  }
};

/** Default run directory: root's is below the first of /run and /dev/shm that is memory; a user's below their own. */
const defaultRunDir = (): string => {
  const uid = process.getuid?.() ?? 0;
  if (uid === 0) {
    const memory = ["/run", "/dev/shm"].filter((path) => existsSync(path) && statfsSync(path).type === TMPFS_MAGIC);
    return `${memory.map((path) => `${path}/hearth`).find(canOwn) ?? "/run/hearth"}/vm`;
  }
  const own = process.env["XDG_RUNTIME_DIR"];
  return own !== undefined && existsSync(own) ? `${own}/hearth` : `/tmp/hearth-${String(uid)}`;
};

/** Default scratch directory: a disk's, even where run directories are in memory. */
const defaultScratchDir = (): string => {
  const uid = process.getuid?.() ?? 0;
  if (uid === 0) return "/var/cache/hearth/scratch";
  return `${process.env["XDG_CACHE_HOME"] ?? `${homedir()}/.cache`}/hearth/scratch`;
};

const defaultDrivesDir = (): string => defaultScratchDir().replace(/scratch$/, "drives");

export const vmmOptions = (given: Partial<VmmOptions> = {}): VmmOptions => ({
  clock: systemClock,
  turns: noTurns,
  onLeft: () => {},
  umlKernel: `${repository}build/kernel/uml`,
  bwrap: "/usr/bin/bwrap",
  jailEnter: `${repository}build/native/jail-enter`,
  runDir: defaultRunDir(),
  drivesDir: given.runDir === undefined ? defaultDrivesDir() : `${given.runDir}.drives`,
  scratchDir: given.runDir === undefined ? defaultScratchDir() : `${given.runDir}.scratch`,
  sharedImagesDir: null,
  drivePages: "shared",
  cpus: ownCpus(),
  cgroups: true,
  ...given,
});
