import { existsSync, readFileSync } from "node:fs";
import { homedir } from "node:os";

/** Where things are and how far they go. Everything has a default; `vmmOptions` fills in what is not given. */
export interface VmmOptions {
  /** The UML kernel. */
  readonly umlKernel: string;
  readonly bwrap: string;
  /** native/jail, compiled: what bwrap runs, and what becomes the hypervisor. */
  readonly jailEnter: string;
  /**
   * Directory of what lives as long as a microVM: sockets and links. Best on a tmpfs, and short: sockets are below it
   * (see `RunDirectory`). Created when absent. Hot-attached drives are hard-linked below it, and copied when it is on
   * another file system than they.
   */
  readonly runDir: string;
  /**
   * Directory of the drives that microVMs write to, which lie below it as sparse files until their microVM ends. On a
   * disk; another one than `runDir`, beside which it is when only that is given. Created when absent.
   */
  readonly scratchDir: string;
  /** Images below it are visible (read-only) to every microVM without a link or a copy: nothing secret belongs there. */
  readonly sharedImagesDir: string | null;
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

/** Default run directory: root's is below /run; a user's below their own runtime directory. */
const defaultRunDir = (): string => {
  const uid = process.getuid?.() ?? 0;
  if (uid === 0) return "/run/hearth/vm";
  const own = process.env["XDG_RUNTIME_DIR"];
  return own !== undefined && existsSync(own) ? `${own}/hearth` : `/tmp/hearth-${String(uid)}`;
};

/** Default scratch directory: a disk's, even where run directories are in memory. */
const defaultScratchDir = (): string => {
  const uid = process.getuid?.() ?? 0;
  if (uid === 0) return "/var/cache/hearth/scratch";
  return `${process.env["XDG_CACHE_HOME"] ?? `${homedir()}/.cache`}/hearth/scratch`;
};

export const vmmOptions = (given: Partial<VmmOptions> = {}): VmmOptions => ({
  umlKernel: `${repository}build/kernel/uml`,
  bwrap: "/usr/bin/bwrap",
  jailEnter: `${repository}build/native/jail-enter`,
  runDir: defaultRunDir(),
  scratchDir: given.runDir === undefined ? defaultScratchDir() : `${given.runDir}.scratch`,
  sharedImagesDir: null,
  cpus: ownCpus(),
  cgroups: true,
  ...given,
});
