import { constants } from "node:os";
import type { Duplex } from "node:stream";

import type { Clock } from "../../../lib/clock.ts";
import { DeviceError } from "../../devices/device-error.ts";
import { GuestShareError, type GuestTurns } from "../../guest-turns.ts";
import type { Cgroup } from "../../jail/cgroup.ts";
import type { FramePort } from "../../devices/frames.ts";
import type { NetDevice } from "../../devices/net.ts";
import type { CpuPlace } from "../../jail/cpu-allocator.ts";
import type { WeightPart } from "../../jail/group-weight.ts";
import type { VsockDevice } from "../../devices/vsock.ts";
import { FREEZE_TIMEOUT_MS, MOVE_AGAIN_MS, REAP_AGAIN_MS, REAP_TIMEOUT_MS, UBD_DEVICES_MAX } from "../../limits.ts";
import type { CpuShare, CpuTimes, Drive, GuestDevice, MicroVm, MicroVmExit, MicroVmStats } from "../../microvm.ts";
import { checked, native } from "../../native.ts";
import { Watch } from "../../poller.ts";
import type { MemoryMappings } from "../../transports/memory-mappings.ts";
import { parentOf, signalProcess } from "../../signal-process.ts";
import { ubdDevice } from "./command-line.ts";
import { Mconsole } from "./mconsole.ts";
import {
  cpuTimeUsOf,
  isStopped,
  killJail,
  moveTasks,
  processTree,
  proportionalBytes,
  tasksBelow,
  WaitedTime,
} from "./processes.ts";
import type { DriveDirectory } from "./drive-directory.ts";
import type { Leftovers } from "./leftovers.ts";
import { checkReadable, type RunDirectory } from "./run-directory.ts";
import type { ScratchDirectory } from "./scratch-directory.ts";

/** What a spawned microVM consists of; `resources` is everything to be released at its end, in reverse order. */
export interface UmlParts {
  /** Does the loop's work for the guest. */
  readonly guest: GuestTurns;
  readonly leftovers: Leftovers;
  readonly id: string;
  readonly pid: number;
  readonly pidfd: number;
  readonly place: CpuPlace;
  readonly driveCount: number;
  /** A scratch drive behind those, made ahead for whoever asks for its size; null for none. */
  readonly scratchMib: number | null;
  readonly vsock: VsockDevice;
  readonly net: NetDevice | null;
  /** What looks at the guest's memory, and that. */
  readonly attached: DisposableStack;
  readonly mappings: MemoryMappings;
  readonly cgroup: Cgroup | null;
  /** What it adds to the weight of all microVMs; null where CPU time is not controlled. */
  readonly weight: WeightPart | null;
  readonly directory: RunDirectory;
  readonly drives: DriveDirectory;
  readonly scratch: ScratchDirectory;
  /** The jail's user; null for ours. */
  readonly user: number | null;
  /** Length of the longest drive of the configuration that it may write to; 0 for none. */
  readonly writableBytesMax: number;
  /** Descriptor of the jail's own directory, where the kernel makes its console's socket; null when it never began. */
  readonly ownDirectory: Promise<number | null>;
  /** Where the jail sees an image that needs no link; null for any other. */
  readonly sharedPath: (image: string) => string | null;
  readonly resources: DisposableStack;
}

/** What the timer of a guest's kernel does to the process that runs: it stops for its tracer, the kernel (arch/um, userspace()). */
const tick = (pid: number, kernel: number): void => {
  signalProcess(pid, "SIGALRM", (number) => parentOf(number) === kernel);
};

const signalName = (number: number): NodeJS.Signals | null => {
  for (const [name, value] of Object.entries(constants.signals)) if (value === number) return name as NodeJS.Signals;
  return null;
};

type Cause = Pick<MicroVmExit, "cause" | "detail" | "error">;

/** A running UML guest. Made by `UmlHypervisor.spawn`. */
export class UmlMicroVm implements MicroVm {
  readonly id: string;
  readonly exited: Promise<MicroVmExit>;
  readonly #parts: UmlParts;
  readonly #watch: Disposable;
  readonly #settle: (exit: MicroVmExit) => void;
  #cause: Cause | null = null;
  #ended = false;
  #paused = false;
  /** null until it was looked up. */
  #kernelPid: number | null = null;
  #console: Mconsole | null = null;
  readonly #waited: WaitedTime = new WaitedTime();
  #nextDrive: number;
  #readyScratchMib: number | null;

  constructor(parts: UmlParts) {
    this.id = parts.id;
    this.#parts = parts;
    this.#readyScratchMib = parts.scratchMib;
    this.#nextDrive = parts.driveCount + (parts.scratchMib === null ? 0 : 1);
    const { promise, resolve } = Promise.withResolvers<MicroVmExit>();
    this.exited = promise;
    this.#settle = resolve;
    parts.place.tenant = {
      cpuTimeUs: () => (this.#ended ? null : (parts.cgroup?.cpuTimeUs() ?? cpuTimeUsOf(this.#tasks()))),
      moveTo: (cpu) => this.#moveTo(cpu),
    };
    // A pidfd becomes readable when its process has ended.
    this.#watch = this.#watchEnd();
  }

  /** A process that runs has an owner, whatever fails: one whose end cannot be watched is ended, and asked for until it is. */
  #watchEnd(): Disposable {
    const { pidfd, guest } = this.#parts;
    try {
      return new Watch(pidfd, guest, () => this.#reap());
    } catch (error) {
      this.fail(error);
      return guest.clock.every(REAP_AGAIN_MS, () => this.#reap());
    }
  }

  get clock(): Clock {
    return this.#parts.guest.clock;
  }

  get cpu(): number {
    return this.#parts.place.cpu;
  }

  setCpuShare(share: CpuShare): void {
    if (this.#ended) return;
    this.#parts.cgroup?.setCpuShare(share);
    this.#parts.weight?.setShare(share.share);
  }

  setBusy(busy: boolean): void {
    if (this.#ended) return;
    this.#parts.place.setBusy(busy);
    this.#parts.weight?.setWorks(busy);
  }

  #tasks(): number[] {
    return this.#parts.cgroup?.tasks() ?? tasksBelow(this.#parts.pid);
  }

  /**
   * A task that is just being made has the CPUs its maker had when that began, and is not listed before it ends: so a
   * guest that runs is looked at again.
   */
  #moveTo(cpu: number): boolean {
    if (this.#ended || !moveTasks(() => this.#tasks(), cpu)) return false;
    if (this.#paused) return true;
    for (const delayMs of MOVE_AGAIN_MS) {
      this.#parts.guest.clock.after(delayMs, () => {
        if (!this.#ended && this.cpu === cpu) moveTasks(() => this.#tasks(), cpu);
      });
    }
    return true;
  }

  listen(port: number, accept: (stream: Duplex) => void): void {
    this.#parts.vsock.listen(port, accept);
  }

  connect(port: number): Promise<Duplex> {
    return this.#parts.vsock.connect(port);
  }

  attachNetwork(port: FramePort): void {
    const { net } = this.#parts;
    if (this.#ended) throw new Error(`MicroVM ${this.id} is gone`);
    if (net === null) throw new Error(`MicroVM ${this.id} was configured without a network card`);
    net.bind(port);
  }

  deviceOf(driveIndex: number): GuestDevice {
    if (driveIndex < 0 || driveIndex >= this.#parts.driveCount)
      throw new Error(
        `MicroVM ${this.id} was configured with ${String(this.#parts.driveCount)} drives, none has index ${String(driveIndex)}`,
      );
    return ubdDevice(driveIndex);
  }

  async attachDrive(drive: Drive): Promise<GuestDevice> {
    const { drives, sharedPath } = this.#parts;
    if (!drive.readOnly) throw new Error("A drive of a running UML guest is read-only or a scratch drive");
    const index = this.#takeDrive();
    checkReadable(drive.path);
    const path = sharedPath(drive.path) ?? drives.add(drive.path, index);
    await this.#command(`config ubd${String(index)}rd=${path}`);
    return ubdDevice(index);
  }

  async attachScratch(mib: number): Promise<GuestDevice> {
    const { driveCount, scratch } = this.#parts;
    const isReady = mib === this.#readyScratchMib;
    const index = isReady ? driveCount : this.#takeDrive();
    if (isReady) this.#readyScratchMib = null;
    else await this.#command(`config ubd${String(index)}d=${scratch.add(mib, index)}`);
    // Its kernel has what memory it needs: from here on no file of it is longer than its drives are.
    this.setScratchWritable(true);
    return ubdDevice(index);
  }

  setScratchWritable(writable: boolean): void {
    if (this.#ended) return;
    const { scratch, user, writableBytesMax } = this.#parts;
    const bytesMax = writable ? Math.max(scratch.driveBytesMax, writableBytesMax) : 0;
    checked(
      `Limit the files of microVM ${this.id}`,
      native().limitFiles(Int32Array.from(this.#tasks()), user ?? -1, bytesMax),
    );
  }

  scratchBytes(): Promise<number> {
    return this.#ended ? Promise.resolve(0) : this.#parts.scratch.bytes();
  }

  #takeDrive(): number {
    if (this.#ended) throw new Error(`MicroVM ${this.id} is gone`);
    if (this.#nextDrive >= UBD_DEVICES_MAX)
      throw new Error(`MicroVM ${this.id} has ${String(UBD_DEVICES_MAX)} drives, which is the limit of UML`);
    return this.#nextDrive++;
  }

  async #command(text: string): Promise<void> {
    const { guest, directory, ownDirectory, resources } = this.#parts;
    const own = await ownDirectory;
    if (own === null || this.#ended) throw new Error(`MicroVM ${this.id} is gone`);
    this.#console ??= resources.use(new Mconsole(guest, directory.consoleSocket, own, "uml/mconsole"));
    await this.#console.command(text);
  }

  async pause(): Promise<void> {
    this.#paused = true;
    const { cgroup, guest } = this.#parts;
    if (cgroup?.canFreeze === true) await cgroup.freeze(true, guest.clock);
    else await this.#signalKernel("SIGSTOP");
  }

  async resume(): Promise<void> {
    const { cgroup, guest } = this.#parts;
    if (cgroup?.canFreeze === true) await cgroup.freeze(false, guest.clock);
    else await this.#signalKernel("SIGCONT");
    this.#paused = false;
  }

  /**
   * Without a freezer the guest's kernel process is stopped. Guest processes stop with it at their next system call or
   * fault, for which they wait for the kernel; one that may make neither is brought to such a stop by a tick of its timer.
   */
  async #signalKernel(signal: "SIGSTOP" | "SIGCONT"): Promise<void> {
    this.#kernelPid ??= (await processTree(this.#parts.pid))[1] ?? null;
    const pid = this.#kernelPid;
    if (pid === null || this.#ended) return;
    signalProcess(pid, signal, (number) => parentOf(number) === this.#parts.pid);
    if (signal === "SIGCONT") return;
    const { clock } = this.#parts.guest;
    const deadline = clock.monotonicMs() + FREEZE_TIMEOUT_MS;
    // It is sent, but not obeyed yet.
    for (; !this.#ended && !isStopped(pid); await clock.sleep(1)) {
      if (clock.monotonicMs() > deadline) throw new Error(`Not stopped after ${String(FREEZE_TIMEOUT_MS)} ms`);
    }
    for (const guestProcess of (await processTree(pid)).slice(1)) if (!isStopped(guestProcess)) tick(guestProcess, pid);
  }

  async stats(): Promise<MicroVmStats> {
    const { pid, cgroup } = this.#parts;
    const { cpu } = this;
    const memory = cgroup?.memoryBytes() ?? null;
    const cpuTimeUs = cgroup?.cpuTimeUs() ?? 0;
    const scratchBytes = await this.scratchBytes();
    return {
      pid,
      cpu,
      cpuTimeUs,
      scratchBytes,
      memoryBytes: memory ?? (await proportionalBytes(await processTree(pid))),
    };
  }

  cpuTimes(): CpuTimes | null {
    if (this.#ended) return null;
    try {
      const tasks = this.#tasks();
      const ranUs = this.#parts.cgroup?.cpuTimeUs() ?? cpuTimeUsOf(tasks);
      return { ranMs: ranUs / 1000, waitedMs: this.#waited.read(tasks) };
    } catch {
      // Its control group goes with it.
      return null;
    }
  }

  outOfHostMemory(): string | null {
    return this.#ended ? null : (this.#parts.cgroup?.outOfMemory() ?? null);
  }

  kill(detail: string): Promise<MicroVmExit> {
    this.end("killed", detail);
    return this.exited;
  }

  /** Ends it for what went wrong in the work for its guest, which was that one's fault or ours. */
  fail(thrown: unknown): void {
    const error = thrown instanceof Error ? thrown : new Error(String(thrown));
    if (error instanceof DeviceError) this.end("device", `The guest broke a device's protocol: ${error.message}`);
    else if (error instanceof GuestShareError) this.end("device", `The guest was ended: ${error.message}`);
    else this.end("monitor", `The host could not serve the guest's devices any more: ${error.message}`, error);
  }

  /** Ends it; the first cause given is the one that is reported. */
  end(cause: MicroVmExit["cause"], detail: string, error: Error | null = null): void {
    if (this.#ended || this.#cause !== null) return;
    this.#cause = { cause, detail, error };
    const signal = (name: "SIGSTOP" | "SIGKILL"): void => {
      native().sendSignal(this.#parts.pidfd, constants.signals[name]);
    };
    const { cgroup, guest, pid } = this.#parts;
    if (cgroup === null) guest.own(killJail(pid, guest.clock, signal));
    else signal("SIGKILL");
    // A frozen process does not die before it is thawed, but for one that the kernel's own freezer (version 2) holds.
    if (this.#paused) this.resume().catch(() => {});
  }

  /** Our process ends now, without time to wait: takes along what would not die with us by itself. */
  abandon(): void {
    native().sendSignal(this.#parts.pidfd, constants.signals.SIGKILL);
    this.#parts.cgroup?.kill();
  }

  /** The guest's kernel let go of its device, which is power-off. UML faults while it goes on, so it is ended here. */
  poweredOff(): void {
    this.end("guest", "The guest powered off");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.kill("disposed");
  }

  #reap(): void {
    const result = new Int32Array(2);
    if (this.#ended || native().reap(this.#parts.pid, result) !== 1) return;
    this.#ended = true;
    const [code = -1, signal = 0] = result;
    // bwrap reports a command killed by a signal as 128 + its number.
    const killedBy = signal > 0 ? signal : code > 128 ? code - 128 : 0;
    const cause = this.#explain(this.#cause ?? guessCause(code, killedBy));
    this.#watch[Symbol.dispose]();
    const exit = { ...cause, exitCode: signal > 0 ? null : code, signal: killedBy > 0 ? signalName(killedBy) : null };
    // Never rejects: whoever waits for the end must hear of it.
    void this.#release().then(() => this.#settle(exit));
  }

  /** A guest's kernel that loses a process of its guest to the host's panics: that says less than what happened. */
  #explain(cause: Cause): Cause {
    if (cause.cause !== "crashed") return cause;
    try {
      const detail = this.#parts.cgroup?.outOfMemory() ?? null;
      return detail === null ? cause : { ...cause, detail };
    } catch {
      return cause;
    }
  }

  /**
   * Gives back all it held; never rejects, what cannot be removed now is tried again later. First the devices go, then the
   * memory that they looked at: what a dead guest had written is the host's again before anything else takes its time.
   * bwrap's end takes its namespace along, but for the moment in which its child has not yet asked for that: so what is
   * left in the group is killed one by one.
   */
  async #release(): Promise<void> {
    const { id, guest, leftovers, attached, mappings, cgroup, scratch, resources } = this.#parts;
    guest.run(() => attached.dispose());
    const freed = mappings.release();
    const deadline = guest.clock.monotonicMs() + REAP_TIMEOUT_MS;
    if (cgroup !== null) {
      let removed = cgroup.remove();
      for (let wait = 1; !removed && guest.clock.monotonicMs() < deadline; wait = Math.min(wait * 2, 50)) {
        cgroup.kill();
        await guest.clock.sleep(wait);
        removed = cgroup.remove();
      }
    }
    await scratch.remove().catch(() => {});
    await freed;
    // What of this is still there is looked at once more.
    leftovers.remove(`what microVM ${id} held`, () => {
      resources.dispose();
      return true;
    });
  }
}

/** FAILURE in native/jail/enter.c. */
const CODE_NOT_ENTERED = 125;

const guessCause = (code: number, signal: number): Cause => {
  if (code === 0) return { cause: "guest", detail: "The guest powered off", error: null };
  const how = signal > 0 ? `died of ${signalName(signal) ?? String(signal)}` : `ended with code ${String(code)}`;
  const where = code === CODE_NOT_ENTERED ? " while it entered its jail; the console says why" : "";
  return { cause: "crashed", detail: `The hypervisor process ${how}${where}`, error: null };
};
