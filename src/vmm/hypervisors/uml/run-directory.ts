import {
  chmodSync,
  chownSync,
  copyFileSync,
  existsSync,
  renameSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { basename, dirname } from "node:path";

import type { CgroupLayout } from "../../jail/cgroup.ts";
import { signalProcess } from "../../signal-process.ts";
import { SOCKET_PATH_BYTES_MAX } from "../../limits.ts";
import type { Leftovers } from "./leftovers.ts";

/** Jiffies since boot at which a process began: with its number, what tells it from a later one of the same number. */
const startTime = (pid: number): string => {
  try {
    const stat = readFileSync(`/proc/${String(pid)}/stat`, "utf8");
    // Fields after the command's name, which is in parentheses and may hold anything: the 20th is starttime.
    return stat.slice(stat.lastIndexOf(")") + 2).split(" ")[19] ?? "";
  } catch {
    return "";
  }
};

/** A process by its start and its number, as it stands in names: `START-PID`. */
const OWNER = `${startTime(process.pid)}-${String(process.pid)}`;

const isDead = (start: string | undefined, pid: string | undefined): boolean => startTime(Number(pid)) !== start;

const MARK = ".owner";

/**
 * A directory `PARENT/ID` of one microVM. Beside it, and made before it, lies `.owner.START-PID.ID`, which names the
 * process that made it for `cleanStale`: a file whose name says all is there whole or not at all.
 */
export class OwnedDirectory implements Disposable {
  readonly path: string;
  readonly #leftovers: Leftovers;
  readonly #mark: string;

  /** `user` is the jail's, who may enter; null when that is us. Throws, with nothing left behind, when `id` is in use. */
  constructor(parent: string, id: string, user: number | null, leftovers: Leftovers) {
    this.#leftovers = leftovers;
    this.path = `${parent}/${id}`;
    this.#mark = `${parent}/${MARK}.${OWNER}.${id}`;
    mkdirSync(parent, { recursive: true, mode: 0o711 });
    writeFileSync(this.#mark, "", { flag: "wx" });
    try {
      mkdirSync(this.path, { mode: 0o700 });
    } catch (error) {
      rmSync(this.#mark);
      throw error;
    }
    try {
      // The jail's user, and no other, may enter; only we may list or change.
      if (user !== null) giveToJail(this.path, user, 0o710);
    } catch (error) {
      this[Symbol.dispose]();
      throw error;
    }
  }

  [Symbol.dispose](): void {
    // Does not follow symbolic links, whatever the guest's process left behind.
    this.#leftovers.remove(this.path, () => {
      rmSync(this.path, { recursive: true, force: true });
      rmSync(this.#mark, { force: true });
      return true;
    });
  }
}

/** Ours it stays; the jail gets it as its group. */
export const giveToJail = (path: string, user: number, mode: number): void => {
  chownSync(path, process.getuid?.() ?? 0, user);
  chmodSync(path, mode);
};

/**
 * `RUNDIR/ID/`, what one microVM has on disk:
 *
 *     host/    ours, the jail may only connect: vsock.sock, net.sock, console (where the mconsole's answers arrive)
 */
export class RunDirectory implements Disposable {
  readonly path: string;
  readonly host: string;
  readonly vsockSocket: string;
  readonly netSocket: string;
  readonly consoleSocket: string;
  readonly #owned: OwnedDirectory;

  /** Makes the directories. `user` is the jail's, null when it is ours. Throws when the microVM's id is in use. */
  constructor(runDir: string, id: string, user: number | null, leftovers: Leftovers) {
    this.path = `${runDir}/${id}`;
    this.host = `${this.path}/host`;
    this.vsockSocket = `${this.host}/vsock.sock`;
    this.netSocket = `${this.host}/net.sock`;
    this.consoleSocket = `${this.host}/console`;
    const longest = Buffer.byteLength(this.vsockSocket);
    if (longest > SOCKET_PATH_BYTES_MAX)
      throw new Error(
        `The run directory ${runDir} is too long by ${String(longest - SOCKET_PATH_BYTES_MAX)} bytes for the sockets of microVM ${id}`,
      );
    this.#owned = new OwnedDirectory(runDir, id, user, leftovers);
    try {
      mkdirSync(this.host);
      chmodSync(this.host, 0o755);
    } catch (error) {
      this[Symbol.dispose]();
      throw error;
    }
  }

  [Symbol.dispose](): void {
    this.#owned[Symbol.dispose]();
  }
}

/** Whether any user can come to a path: every directory above it may be entered by others. */
export const isReachable = (path: string): boolean => {
  for (let at = dirname(path); ; at = dirname(at)) {
    // What is still to be made will be made passable.
    if (!existsSync(at)) continue;
    if ((statSync(at).mode & 0o001) === 0) return process.getuid?.() !== 0;
    if (at === "/") return true;
  }
};

/** A copy of a program in a directory of ours, made once for each version of it. */
export const copyProgram = (source: string, into: string): string => {
  const { size, mtimeMs } = statSync(source);
  const target = `${into}/.program-${basename(source)}-${String(size)}-${String(Math.floor(mtimeMs))}`;
  mkdirSync(into, { recursive: true, mode: 0o711 });
  if (!existsSync(target)) {
    const partial = `${target}.${OWNER}`;
    try {
      copyFileSync(source, partial);
      chmodSync(partial, 0o755);
      renameSync(partial, target);
    } finally {
      rmSync(partial, { force: true });
    }
  }
  return target;
};

/** Throws when the jail's user could not read the image: it is nobody's friend, so everyone must be able to. */
export const checkReadable = (image: string): void => {
  const status = statSync(image);
  if (!status.isFile()) throw new Error(`Drive ${image} is not a regular file`);
  if ((status.mode & 0o004) === 0)
    throw new Error(`Drive ${image} is not readable by others (mode 0644 or 0444 is needed)`);
};

/** Name of a microVM's cgroup: monitors with different run directories may use the same ids. */
export const cgroupName = (id: string): string => `${id}.${OWNER}`;

/** Of a name that ends in `.START-PID`: whether that process is dead. Null for any other name. */
const isOfDead = (name: string): boolean | null => {
  const [, start, pid] = /\.(\d+)-(\d+)$/.exec(name) ?? [];
  return pid === undefined ? null : isDead(start, pid);
};

/** Names of groups whose monitor is dead. */
export const staleGroups = (layout: CgroupLayout): string[] => {
  const names = new Set([...layout.parents.values()].flatMap((parent) => readdirSync(parent)));
  return [...names].filter((name) => isOfDead(name) === true);
};

/**
 * Kills jails that show dead monitors' directories. One that was started as the first process of a PID namespace has
 * ended with its monitor; without that (not as root) bwrap has, but its child only from the moment on at which it has
 * asked for that: one that was just being made may live on.
 */
const killJailsOf = (paths: readonly string[]): void => {
  if (paths.length === 0) return;
  const hosts = new Set(paths.map((path) => `${path}/host`));
  for (const pid of readdirSync("/proc").filter((name) => /^\d+$/.test(name))) {
    signalProcess(Number(pid), "SIGKILL", (number) =>
      readFileSync(`/proc/${String(number)}/cmdline`, "utf8")
        .split("\0")
        .some((argument) => hosts.has(argument)),
    );
  }
};

/**
 * Removes what dead monitors left behind below the directories given: those of microVMs, whose processes are killed, and
 * programs copied by half. Returns the ids of the microVMs whose directories were removed.
 */
export const cleanStale = (directories: readonly string[]): string[] => {
  const stale = directories.filter((path) => existsSync(path)).flatMap(staleIn);
  killJailsOf(stale.flatMap(({ path }) => (existsSync(path) ? [path] : [])));
  const cleaned = stale.flatMap(({ id, path, mark }) => {
    const existed = existsSync(path);
    rmSync(path, { recursive: true, force: true });
    rmSync(mark, { force: true });
    return existed ? [id] : [];
  });
  return [...new Set(cleaned)];
};

interface StaleDirectory {
  readonly id: string;
  readonly path: string;
  /** What says whose it is: it goes last. */
  readonly mark: string;
}

const staleIn = (directory: string): StaleDirectory[] =>
  readdirSync(directory).flatMap((name) => {
    // Another monitor may be cleaning up just now.
    if (name.startsWith(".program-") && isOfDead(name) === true) rmSync(`${directory}/${name}`, { force: true });
    const [mark, start, pid, id = ""] = /^\.owner\.(\d+)-(\d+)\.(.+)$/.exec(name) ?? [];
    if (mark === undefined || !isDead(start, pid)) return [];
    return [{ id, path: `${directory}/${id}`, mark: `${directory}/${mark}` }];
  });
