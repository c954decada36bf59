import { Duplex } from "node:stream";
import type { Clock, Timer } from "../../src/lib/clock.ts";
import type { Random } from "../../src/lib/random.ts";
import type { Hypervisor, MicroVm, MicroVmConfig, MicroVmExit, MicroVmStats } from "../../src/vmm/microvm.ts";
import { decodeFields, encodeBody, encodeFields, encodeFrame, FrameDecoder } from "../../src/wire/shim-codec.ts";
import {
  DoneField,
  FailureField,
  FailureOutcome,
  FLAG_LAST,
  FromShim,
  HelloField,
  InvokeField,
  ReadyField,
  SHIM_PORT,
  SHIM_PROTOCOL_VERSION,
  ToShim,
} from "../../src/wire/shim-protocol.ts";
import type { Field, Frame } from "../../src/wire/shim-protocol.ts";
import type { SharedCpu } from "./cpu.ts";

const MIB = 1024 * 1024;
/** Of a CPU's time: a boot, and an init of runtime and function. */
const BOOT_CPU_MS = 15;
const INIT_CPU_MS_MAX = 200;
const KILL_MS_MAX = 20;

/** What an event tells the function to do. */
export interface Order {
  /** The event's own number, to tell it from all others. */
  readonly n: number;
  /** How long it works, in ms; not on the CPU. */
  readonly ms: number;
  readonly fail: boolean;
}

/** What the world wants to know of the guests, and what it does to them. */
export interface GuestObserver {
  booted(vm: string): void;
  ready(vm: string, functionName: string): void;
  began(vm: string, functionName: string, order: Order): void;
  ended(vm: string, functionName: string, order: Order, how: "answered" | "failed" | "timed out"): void;
  /** It is killed by its worker while it runs an invocation. */
  cut(vm: string, functionName: string, order: Order, detail: string): void;
  /** It ended by a fault while it ran one. */
  died(vm: string, functionName: string, order: Order): void;
  broken(what: string): void;
  /** Draws whether the next boot comes to nothing: no process, no hello, or an early end. */
  bootFault(): "spawn" | "silent" | "crash" | null;
}

export interface GuestWorld {
  readonly clock: Clock;
  readonly cpu: SharedCpu;
  readonly random: Random;
  readonly observer: GuestObserver;
}

interface Running {
  readonly order: Order;
  readonly timers: readonly Timer[];
}

/** A microVM without a machine: its shim speaks the real protocol over a real stream, and does what events tell it. */
export class ScriptedVm implements MicroVm {
  readonly id: string;
  readonly cpu = 0;
  readonly exited: Promise<MicroVmExit>;
  readonly #world: GuestWorld;
  readonly #settle: (exit: MicroVmExit) => void;
  readonly #gone: () => void;
  readonly #decoder = new FrameDecoder(new Set(Object.values(ToShim)));
  readonly #works: Set<Disposable> = new Set();
  #accept: ((stream: Duplex) => void) | null = null;
  #stream: Duplex | null = null;
  #functionName = "";
  #timeoutMs = 0;
  #isPaused = false;
  #isOver = false;
  #drives = 0;
  #payload: Uint8Array[] = [];
  #requested = false;
  #running: Running | null = null;

  constructor(id: string, world: GuestWorld, gone: () => void) {
    this.id = id;
    this.#world = world;
    this.#gone = gone;
    const { promise, resolve } = Promise.withResolvers<MicroVmExit>();
    this.exited = promise;
    this.#settle = resolve;
  }

  get clock(): Clock {
    return this.#world.clock;
  }

  /** Its kernel boots, and its shim connects. */
  boot(fault: "silent" | "crash" | null): void {
    this.#work(BOOT_CPU_MS * (1 + this.#world.random()), () => {
      if (fault === "silent") return;
      if (fault === "crash") return this.die("The hypervisor process died of SIGSEGV");
      this.#world.observer.booted(this.id);
      const stream = new Duplex({
        read: () => {},
        write: (chunk: Buffer, _encoding, done) => {
          for (const frame of this.#decoder.push(Buffer.from(chunk))) this.#take(frame);
          done();
        },
      });
      this.#stream = stream;
      stream.on("error", () => {});
      this.#accept?.(stream);
      this.#say(FromShim.Hello, [
        [HelloField.ProtocolVersion, SHIM_PROTOCOL_VERSION],
        [HelloField.UptimeUs, 1],
      ]);
    });
  }

  get isRunning(): boolean {
    return this.#running !== null;
  }

  /** It ends by itself, at whatever step it is. */
  die(detail: string): void {
    if (this.#isOver) return;
    const running = this.#stop();
    if (running !== null) this.#world.observer.died(this.id, this.#functionName, running.order);
    this.#end("crashed", detail, 0);
  }

  /** Its monitor is killed, and it with it: nobody is left to be told. */
  vanish(): void {
    if (this.#isOver) return;
    this.#isOver = true;
    const running = this.#stop();
    if (running !== null) this.#world.observer.died(this.id, this.#functionName, running.order);
    this.#gone();
  }

  listen(port: number, accept: (stream: Duplex) => void): void {
    if (port === SHIM_PORT) this.#accept = accept;
  }

  connect(): Promise<Duplex> {
    return Promise.reject(new Error("nobody listens"));
  }

  async attachDrive(): Promise<string> {
    await this.#world.clock.sleep(this.#world.random());
    if (this.#isOver) throw new Error(`MicroVM ${this.id} is gone`);
    this.#drives += 1;
    return `/dev/ubd${this.#drives}`;
  }

  attachScratch(): Promise<string> {
    return this.attachDrive();
  }

  attachNetwork(): void {}

  deviceOf(index: number): string {
    return `/dev/ubd${index}`;
  }

  setCpuShare(): void {}
  setBusy(): void {}
  setScratchWritable(): void {}

  async pause(): Promise<void> {
    this.#isPaused = true;
    if (this.#running !== null) this.#world.observer.broken(`${this.id} is frozen in the midst of an invocation`);
  }

  async resume(): Promise<void> {
    await this.#world.clock.sleep(this.#world.random());
    this.#isPaused = false;
  }

  stats(): Promise<MicroVmStats> {
    return Promise.resolve({ pid: 1, cpu: 0, cpuTimeUs: 1, memoryBytes: 8 * MIB, scratchBytes: 0 });
  }

  scratchBytes(): Promise<number> {
    return Promise.resolve(0);
  }

  cpuTimes(): null {
    return null;
  }

  outOfHostMemory(): null {
    return null;
  }

  kill(detail: string): Promise<MicroVmExit> {
    if (!this.#isOver) {
      const running = this.#stop();
      if (running !== null) this.#world.observer.cut(this.id, this.#functionName, running.order, detail);
      this.#end("killed", detail, this.#world.random() * KILL_MS_MAX);
    }
    return this.exited;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.kill("disposed");
  }

  #end(cause: MicroVmExit["cause"], detail: string, afterMs: number): void {
    this.#isOver = true;
    this.#stream?.destroy();
    this.#world.clock.after(afterMs, () => {
      this.#gone();
      this.#settle({ cause, detail, exitCode: null, signal: "SIGKILL", error: null });
    });
  }

  #stop(): Running | null {
    const running = this.#running;
    this.#running = null;
    for (const timer of running?.timers ?? []) timer[Symbol.dispose]();
    for (const work of this.#works) work[Symbol.dispose]();
    this.#works.clear();
    return running;
  }

  #work(ms: number, done: () => void): void {
    const work = this.#world.cpu.run(ms, () => {
      this.#works.delete(work);
      if (!this.#isOver) done();
    });
    this.#works.add(work);
  }

  #say(type: number, fields: readonly Field[]): void {
    this.#stream?.push(encodeFrame(type, 0, encodeFields(fields)));
  }

  #take(frame: Frame): void {
    if (this.#isPaused) this.#world.observer.broken(`${this.id} is spoken to while it is frozen`);
    switch (frame.type) {
      case ToShim.Configure:
        return this.#configure(frame);
      case ToShim.Invoke:
        if (this.#running !== null || this.#requested) this.#world.observer.broken(`${this.id} has two invocations`);
        this.#requested = true;
        this.#payload = [];
        this.#timeoutMs = timeoutOf(frame);
        return;
      case ToShim.Payload:
        this.#payload.push(Uint8Array.from(frame.payload));
        if ((frame.flags & FLAG_LAST) !== 0) this.#invoke();
        return;
      default:
        this.#world.observer.broken(`frame 0x${frame.type.toString(16)} to a shim that knows no such script`);
    }
  }

  #configure(frame: Frame): void {
    // FunctionName of ConfigureField.
    this.#functionName = decodeFields(frame.payload).text(12) ?? "";
    const ms = INIT_CPU_MS_MAX * (0.1 + 0.9 * this.#world.random());
    this.#work(ms, () => {
      this.#world.observer.ready(this.id, this.#functionName);
      this.#say(FromShim.Ready, [[ReadyField.InitDurationUs, Math.round(ms * 1000)]]);
    });
  }

  #invoke(): void {
    this.#requested = false;
    const order = JSON.parse(Buffer.concat(this.#payload).toString()) as Order;
    const { clock, observer } = this.#world;
    observer.began(this.id, this.#functionName, order);
    const timesOut = order.ms >= this.#timeoutMs;
    const timer = clock.after(Math.min(order.ms, this.#timeoutMs), () => this.#answer(order, timesOut));
    this.#running = { order, timers: [timer] };
  }

  #answer(order: Order, timesOut: boolean): void {
    this.#running = null;
    const how = timesOut ? "timed out" : order.fail ? "failed" : "answered";
    this.#world.observer.ended(this.id, this.#functionName, order, how);
    if (how === "answered") {
      this.#say(FromShim.ResponseHead, []);
      for (const piece of encodeBody(FromShim.ResponseData, Buffer.from(`{"n":${order.n}}`))) this.#stream?.push(piece);
      this.#say(FromShim.ResponseEnd, []);
    } else {
      const outcome = timesOut ? FailureOutcome.TimedOut : FailureOutcome.Reported;
      this.#say(FromShim.ResponseEnd, [
        [FailureField.Outcome, outcome],
        ...(timesOut ? [] : [[FailureField.ErrorType, "Error"] as Field]),
      ]);
    }
    this.#say(FromShim.Done, [
      [DoneField.DurationUs, Math.round(Math.min(order.ms, this.#timeoutMs) * 1000)],
      [DoneField.MemoryBytesPeak, 8 * MIB],
      [DoneField.RuntimeAlive, 1],
    ]);
  }
}

const timeoutOf = (frame: Frame): number => {
  const fields = decodeFields(frame.payload);
  return (fields.number(InvokeField.DeadlineMs) ?? 0) - (fields.number(InvokeField.UnixTimeUs) ?? 0) / 1000;
};

/** Hands out scripted microVMs, and knows those that live. */
export class ScriptedHypervisor implements Hypervisor {
  readonly name = "uml";
  readonly live: Set<ScriptedVm> = new Set();
  readonly #world: GuestWorld;

  constructor(world: GuestWorld) {
    this.#world = world;
  }

  probe(): Promise<{ usable: true; detail: string }> {
    return Promise.resolve({ usable: true, detail: "scripted" });
  }

  cleanStale(): readonly string[] {
    return [];
  }

  async spawn(config: MicroVmConfig): Promise<MicroVm> {
    const { clock, random, observer } = this.#world;
    await clock.sleep(random() * 2);
    const fault = observer.bootFault();
    if (fault === "spawn") throw Object.assign(new Error("spawn bwrap EAGAIN"), { code: "EAGAIN", syscall: "spawn" });
    const vm: ScriptedVm = new ScriptedVm(config.id, this.#world, () => this.live.delete(vm));
    this.live.add(vm);
    vm.boot(fault);
    return vm;
  }
}
