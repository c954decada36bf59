import { createRequire } from "node:module";
import { constants } from "node:os";
import { getSystemErrorName } from "node:util";

/**
 * The whole boundary to native/binding. Functions take plain numbers, texts and typed arrays, validated on this side,
 * and answer a negative errno when a system call failed: a failure is data. Never `undefined`.
 */
interface Binding {
  close(fd: number): number;
  fileType(fd: number): number;
  signal(fd: number, socket: 0 | 1): number;
  read(fd: number, bytes: Uint8Array): number;
  write(fd: number, bytes: Uint8Array): number;
  pipe(ends: Int32Array, ours: 0 | 1): number;
  reserveMemory(bytes: number): ArrayBuffer | number;
  mapMemory(reservation: ArrayBuffer, at: number, fd: number, offset: number, bytes: number): number;
  unmapMemory(reservation: ArrayBuffer, at: number, bytes: number, done: (error: number) => void): number;
  threadCpuUs(): number;
  startLoopClock(longUs: number, onLong: (spentUs: number) => void): ArrayBuffer | number;
  startPoller(ready: (count: number) => void): ArrayBuffer | number;
  watch(fd: number, token: number, writable: number): number;
  unwatch(fd: number): number;
  spawn(
    argv: readonly string[],
    environment: readonly string[],
    descriptors: Int32Array,
    cgroups: Int32Array,
    limits: Float64Array,
    cpu: number,
    user: number,
    done: (error: number, pidOrStage: number, pidfd: number) => void,
  ): number;
  reap(pid: number, result: Int32Array): number;
  openProcess(pid: number): number;
  sendSignal(pidfd: number, signal: number): number;
  receiveViolation(listener: number, bytes: Uint8Array): number;
  setAffinity(tasks: Int32Array, cpu: number): number;
  limitFiles(tasks: Int32Array, user: number, bytes: number): number;
  prioritize(nice: number, sliceNs: number): number;
  listen(path: string): number;
  bindDatagram(path: string): number;
  accept(fd: number): number;
  socketPair(ends: Int32Array): number;
  receive(fd: number, bytes: Uint8Array, descriptors: Int32Array): number;
  sendDatagram(fd: number, directory: number, path: string, bytes: Uint8Array): number;
  openNetlink(protocol: number): number;
  askNetlink(socket: number, messages: Uint8Array, answers: number, failedAt: Int32Array): number;
  makeNetwork(
    tapName: string,
    tapIndex: number,
    rules: Uint8Array,
    rulesAnswers: number,
    links: Uint8Array,
    linksAnswers: number,
    hostLinks: Uint8Array,
    hostLinksAnswers: number,
    done: (error: number, tapOrStage: number, failedAt: number) => void,
  ): number;
  readFrames(tap: number, bytes: Uint8Array, lengths: Int32Array, count: number): number;
  writeFrames(tap: number, bytes: Uint8Array, lengths: Int32Array, count: number): number;
}

const { EAGAIN, EMEDIUMTYPE, EPERM, ERANGE } = {
  EAGAIN: constants.errno.EAGAIN,
  EMEDIUMTYPE: 124,
  EPERM: constants.errno.EPERM,
  ERANGE: constants.errno.ERANGE,
};

/** What a non-blocking call answers when it would have to wait. */
export const WOULD_BLOCK: number = -EAGAIN;
/** S_IFMT values of `fileType` that matter here. */
export const FILE_TYPE_ANONYMOUS = 0;
export const FILE_TYPE_FIFO = 0o010000;
export const FILE_TYPE_SOCKET = 0o140000;
/** Descriptors that can come with one message, and the room `receive` needs: their count first. */
export const MESSAGE_DESCRIPTORS_MAX = 8;
export const RECEIVE_DESCRIPTORS_LENGTH: number = 1 + MESSAGE_DESCRIPTORS_MAX;

/** Setting RLIMIT_*: numbers of Linux on x86-64 and arm64. */
export const ResourceLimit = {
  fileBytes: 1,
  stackBytes: 3,
  coreBytes: 4,
  processes: 6,
  openFiles: 7,
  lockedBytes: 8,
  messageQueueBytes: 12,
} as const;

let loaded: Binding | null = null;

/** The addon, loaded on first use so that what needs no native code (placement, tests of pure code) never asks for it. */
export const native = (): Binding => {
  if (loaded === null) {
    // Another build of it, such as one with sanitizers, may be named.
    const path = process.env["HEARTH_BINDING"] ?? new URL("../../build/native/binding.node", import.meta.url).pathname;
    try {
      loaded = createRequire(import.meta.url)(path) as Binding;
    } catch (cause) {
      throw new Error(`The native binding could not be loaded; run "npm run build:native" (${path})`, { cause });
    }
  }
  return loaded;
};

/** A failed system call of the binding, with its name and what it was about. */
export class NativeError extends Error {
  override readonly name: string = "NativeError";
  readonly code: string;
  /** `spawn` when a process or a thread could not be made, which is what EAGAIN says then; else empty. */
  readonly syscall: string;

  constructor(what: string, result: number, syscall = "") {
    const code = getSystemErrorName(result);
    super(`${what}: ${code}`);
    this.code = code;
    this.syscall = syscall;
  }
}

/** The result when it is a success, else throws a `NativeError`. */
export const checked = (what: string, result: number): number => {
  if (result < 0) throw new NativeError(what, result);
  return result;
};

/** Reserves address space to map guest memory into. Throws a `NativeError`. */
export const reserveMemory = (bytes: number): ArrayBuffer => {
  const reserved = native().reserveMemory(bytes);
  if (typeof reserved !== "number") return reserved;
  throw new NativeError("Reserve address space for guest memory", reserved);
};

/**
 * Maps guest memory that came as a descriptor into a reservation. Throws when it is not a memfd sealed against shrinking
 * or is too short: an access beyond its end would kill this process. Throws a `NativeError` when it cannot be mapped here.
 */
export const mapMemory = (reservation: ArrayBuffer, at: number, fd: number, offset: number, bytes: number): void => {
  const error = native().mapMemory(reservation, at, fd, offset, bytes);
  if (error === 0) return;
  const reasons: Record<number, string> = {
    [-EMEDIUMTYPE]: "is not a memfd",
    [-EPERM]: "is not sealed against shrinking (F_SEAL_SHRINK)",
    [-ERANGE]: `is shorter than the announced region (${String(offset + bytes)} bytes)`,
  };
  const reason = reasons[error];
  // Anything else is no fault of the file's: this process has as many mappings as it may, or no memory.
  if (reason === undefined) throw new NativeError("Map guest memory", error);
  throw new Error(`Guest memory refused: the file ${reason}`);
};

/**
 * Takes guest memory out of a reservation and frees its pages, on another thread. Nobody may look there any more. Rejects
 * with a `NativeError` when it is still there.
 */
export const unmapMemory = (reservation: ArrayBuffer, at: number, bytes: number): Promise<void> =>
  new Promise((resolve, reject) => {
    const settle = (error: number): void => {
      if (error < 0) reject(new NativeError("Unmap guest memory", error));
      else resolve();
    };
    const queued = native().unmapMemory(reservation, at, bytes, settle);
    if (queued < 0) settle(queued);
  });

/** What `spawnProcess` starts. */
export interface ProcessOptions {
  /** The first is the program's absolute path. */
  readonly argv: readonly string[];
  readonly environment: readonly string[];
  /** The child's descriptors 0, 1, 2, …; it gets no other. */
  readonly descriptors: readonly number[];
  /** Descriptors of `cgroup.procs` files: the child enters these cgroups first. */
  readonly cgroups: readonly number[];
  readonly limits: readonly (readonly [resource: number, value: number])[];
  readonly cpu: number | null;
  /** Host user and group; null keeps ours. */
  readonly user: number | null;
}

/** NUMBERS_MAX in native/binding/process.c. */
const SPAWN_NUMBERS_MAX = 16;
const STAGES = [
  "start",
  "enter its cgroup",
  "set its CPU",
  "set a limit",
  "pass descriptors",
  "change its user",
  "run",
];

/**
 * Starts a process that dies with this one; resolves when its program runs. Rejects with the step that failed. The
 * descriptors must stay open until then. The caller owns the pidfd and reaps the pid.
 */
export const spawnProcess = (options: ProcessOptions): Promise<{ readonly pid: number; readonly pidfd: number }> =>
  new Promise((resolve, reject) => {
    const lists = [options.descriptors, options.cgroups, options.limits.flat()];
    if (lists.some((list) => list.length > SPAWN_NUMBERS_MAX))
      throw new Error("Too many descriptors, cgroups or limits");
    const fail = (stage: number, error: number): void => {
      reject(new NativeError(`${options.argv[0] ?? "process"}: cannot ${STAGES[stage] ?? "start"}`, error, "spawn"));
    };
    const queued = native().spawn(
      options.argv,
      options.environment,
      Int32Array.from(options.descriptors),
      Int32Array.from(options.cgroups),
      Float64Array.from(options.limits.flat()),
      options.cpu ?? -1,
      options.user ?? -1,
      (error, pidOrStage, pidfd) => {
        if (error < 0) fail(pidOrStage, error);
        else resolve({ pid: pidOrStage, pidfd });
      },
    );
    if (queued < 0) fail(0, queued);
  });

/** Linux's NETLINK_NETFILTER. */
export const NETLINK_NETFILTER = 12;

/** Netlink messages as they are sent, numbered from 0 in their headers. */
export interface NetlinkRequest {
  readonly messages: Uint8Array;
  /** How many of them ask for an acknowledgement. */
  readonly answers: number;
}

/** A refused netlink request. */
export class NetlinkError extends NativeError {
  override readonly name = "NetlinkError";
  /** Number of the message that was refused, -1 when it was none in particular. */
  readonly failedAt: number;

  constructor(what: string, result: number, failedAt: number, syscall = "") {
    super(failedAt < 0 ? what : `${what} (netlink message ${String(failedAt)})`, result, syscall);
    this.failedAt = failedAt;
  }
}

/** Asks the kernel through a netlink socket. Throws a `NetlinkError` when it does not do all. */
export const askNetlink = (socket: number, what: string, { messages, answers }: NetlinkRequest): void => {
  const failedAt = new Int32Array(1);
  const result = native().askNetlink(socket, messages, answers, failedAt);
  if (result < 0) throw new NetlinkError(what, result, failedAt[0] ?? -1);
};

/** A network namespace without a name. */
export interface NetworkRequest {
  readonly tapName: string;
  /** Must be free in there: 1 is the loopback. */
  readonly tapIndex: number;
  /** For NETLINK_NETFILTER in there. */
  readonly rules: NetlinkRequest;
  /** For NETLINK_ROUTE in there. */
  readonly links: NetlinkRequest;
  /** Then for NETLINK_ROUTE in our own namespace; null for nothing. */
  readonly hostLinks: NetlinkRequest | null;
}

const NETWORK_STAGES = [
  "Make a network namespace",
  "Make a tap (/dev/net/tun)",
  "Load rules into a namespace",
  "Make links in a namespace",
  "Raise links on the host",
];

/**
 * Makes a network namespace with a tap in it; resolves to the tap, whose descriptor keeps all of it and is the caller's.
 * Rejects with a `NetlinkError`, with nothing left.
 */
export const makeNetwork = ({ tapName, tapIndex, rules, links, hostLinks }: NetworkRequest): Promise<number> =>
  new Promise((resolve, reject) => {
    const host = hostLinks ?? { messages: new Uint8Array(), answers: 0 };
    const requests = [
      rules.messages,
      rules.answers,
      links.messages,
      links.answers,
      host.messages,
      host.answers,
    ] as const;
    const queued = native().makeNetwork(tapName, tapIndex, ...requests, (error, tapOrStage, failedAt) => {
      if (error < 0) {
        // A namespace is made by a thread of its own.
        const syscall = tapOrStage === 0 ? "spawn" : "";
        reject(new NetlinkError(NETWORK_STAGES[tapOrStage] ?? "Make a network", error, failedAt, syscall));
      } else {
        resolve(tapOrStage);
      }
    });
    if (queued < 0) reject(new NetlinkError("Make a network", queued, -1));
  });
