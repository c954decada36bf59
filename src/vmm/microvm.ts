import type { Duplex } from "node:stream";

import type { Clock } from "../lib/clock.ts";
import type { FramePort } from "./devices/frames.ts";

/** A disk image as the guest sees it. */
export interface Drive {
  /** Host path of a raw image. For the guest's root this is an EROFS image. */
  readonly path: string;
  readonly readOnly: boolean;
}

/** What a microVM is made of. Everything else (jail, sockets, addresses) is the hypervisor's own business. */
export interface MicroVmConfig {
  /** Letters, digits and dashes, at most 64: names the run directory, the cgroup and the log lines. */
  readonly id: string;
  /** Guest memory in MiB: what the guest's kernel thinks it has, not what the host has set aside. */
  readonly memoryMib: number;
  /** The first drive is the root file system (read-only EROFS). */
  readonly drives: readonly [Drive, ...Drive[]];
  /** Size of a scratch drive that is there from the start, for the first `attachScratch` that asks for this size. */
  readonly scratchMib?: number;
  /** Program the guest's kernel runs as PID 1, in the root file system. */
  readonly init: string;
  readonly initArguments?: readonly string[];
  /**
   * Gives the guest a network card, for packets of so many bytes at most (576 to 1,500), which carries so many Mbit/s each way
   * (absent: all it can). It is idle until `attachNetwork`.
   */
  readonly network?: { readonly mtu: number; readonly mbitPerS?: number };
  /** Host CPU this microVM lives on; chosen by the hypervisor when absent. */
  readonly cpu?: number;
  /** Gets the guest's console: boot messages and whatever PID 1 prints there. Never the data path. */
  readonly onConsole?: (chunk: Uint8Array) => void;
  /** When given, what is written here arrives at the guest's console (`hearth vm run`). */
  readonly consoleInput?: NodeJS.ReadableStream;
}

/** A guest-side device path, such as /dev/ubdb. */
export type GuestDevice = string;

/** How a microVM ended. The first cause wins; every field is what was observed, nothing is guessed. */
export interface MicroVmExit {
  /**
   * `killed`: we ended it. `guest`: it powered off. `crashed`: the hypervisor process died. `device`: the guest broke a
   * device's protocol. `violation`: the hypervisor process made a system call that its jail forbids. `monitor`: this process
   * could not serve it any more.
   */
  readonly cause: "killed" | "guest" | "crashed" | "device" | "violation" | "monitor";
  readonly exitCode: number | null;
  readonly signal: NodeJS.Signals | null;
  /** One sentence for a log or an error. */
  readonly detail: string;
  /** What failed on the host's side, when that was it: says what the host has run out of. */
  readonly error: Error | null;
}

/** A microVM's part of a CPU. */
export interface CpuShare {
  /** 1 is a whole CPU, which is as much as a microVM can have: it lives on one at a time. */
  readonly share: number;
  /** Soft: beside others it gets its part, and all that they leave. Hard: its part and no more. */
  readonly hard: boolean;
}

/** How long the tasks of a microVM ran on the host's CPUs and how long they waited for one, since some moment before. */
export interface CpuTimes {
  readonly ranMs: number;
  /** The sum over its tasks: two that wait at once count twice. */
  readonly waitedMs: number;
}

export interface MicroVmStats {
  readonly pid: number;
  readonly cpu: number;
  /** Host memory in bytes: everything its cgroup is charged for, or the sum of PSS where there is no cgroup. */
  readonly memoryBytes: number;
  /** Host CPU time used so far, in microseconds. */
  readonly cpuTimeUs: number;
  /** Bytes of the host's disk that its scratch drives take. */
  readonly scratchBytes: number;
}

/**
 * One microVM. Owned by who spawned it: disposing it kills it and releases all it held on the host
 * (processes, cgroup, run directory, sockets, memory).
 */
export interface MicroVm extends AsyncDisposable {
  readonly id: string;
  /** The host CPU it lives on now. */
  readonly cpu: number;
  /** For work on what the guest sends: its time is the guest's, and what it throws ends this microVM alone. */
  readonly clock: Clock;
  /** Settles when the microVM is gone and everything it held is released. Never rejects. */
  readonly exited: Promise<MicroVmExit>;
  /**
   * Serves a vsock port on the host's side (CID 2): `accept` gets a stream for every connection the guest makes.
   * The stream is a byte stream with back-pressure both ways and half-close; destroying it resets the connection.
   */
  listen(port: number, accept: (stream: Duplex) => void): void;
  /** Opens a vsock stream to a port inside the guest. Rejects when nobody listens there. */
  connect(port: number): Promise<Duplex>;
  /** Adds a drive to the running guest; resolves to its device path. The image must stay in place until `exited`. */
  attachDrive(drive: Drive): Promise<GuestDevice>;
  /**
   * Adds a drive of so many MiB that the guest may write to: an empty ext2 file system with room for one file of that
   * size, which goes away with the microVM.
   */
  attachScratch(mib: number): Promise<GuestDevice>;
  /**
   * Connects the guest's network card: frames flow from now on. The port stays the caller's and must work until
   * `exited`. Throws when there is no card, or when it is connected already.
   */
  attachNetwork(port: FramePort): void;
  /** Guest device of a drive given in the configuration, by its index. */
  deviceOf(driveIndex: number): GuestDevice;
  /** Sets its part of its CPU; until then it has that of one that boots. Does nothing on a host without cgroups. */
  setCpuShare(share: CpuShare): void;
  /**
   * Tells that it has work to do (at first it has: it boots) or has none. Those that have are spread over the host's
   * CPUs, so it may be moved to another one, now or while it works.
   */
  setBusy(busy: boolean): void;
  /**
   * Lets the guest write to its scratch drives, or not: then each write is an I/O error for it, and what it has written can
   * still be read. Throws when the host does not allow that.
   */
  setScratchWritable(writable: boolean): void;
  /** Bytes of the host's disk that its scratch drives take; 0 when it is gone. */
  scratchBytes(): Promise<number>;
  /** Stops all of the guest's CPUs. Its memory stays. */
  pause(): Promise<void>;
  resume(): Promise<void>;
  stats(): Promise<MicroVmStats>;
  /** Reads a file for each of its tasks, so not for every invocation. null when the host does not tell, or it has ended. */
  cpuTimes(): CpuTimes | null;
  /**
   * In a sentence that the host killed a part of it for want of memory, which the guest may have survived; null when it did
   * not, or that cannot be told.
   */
  outOfHostMemory(): string | null;
  /** Ends it at once. `detail` is kept as the reason. Idempotent. */
  kill(detail: string): Promise<MicroVmExit>;
}

/** What a hypervisor can do on this host, with the reason when it cannot. */
export type HypervisorProbe =
  | { readonly usable: true; readonly detail: string }
  | { readonly usable: false; readonly reason: string };

export interface Hypervisor {
  readonly name: "uml" | "kvm" | "firecracker";
  probe(): Promise<HypervisorProbe>;
  /** Removes what a crashed process of ours left on this host; returns the ids of its microVMs. Call before the first `spawn`. */
  cleanStale(): readonly string[];
  /**
   * Spawns a microVM; resolves as soon as its process runs (the guest is still booting). Nothing that the guest does comes
   * before who waits for this has gone on: it may listen then.
   */
  spawn(config: MicroVmConfig): Promise<MicroVm>;
}
