import type { Clock, Timer } from "../lib/clock.ts";
import { logStreamName } from "../telemetry/platform-lines.ts";
import type { LogSink } from "../telemetry/function-log.ts";
import type { Metrics } from "../telemetry/metrics.ts";
import { traced } from "../telemetry/tracing.ts";
import type { Span, Tracer } from "../telemetry/tracing.ts";
import type { CpuShare, GuestDevice, MicroVmExit } from "../vmm/microvm.ts";
import { serviceFailure, slotGone } from "../wire/errors.ts";
import type { ServiceError } from "../wire/errors.ts";
import { exhaustion } from "../wire/exhaustion.ts";
import { functionKey } from "../wire/function.ts";
import type { FunctionSpec } from "../wire/function.ts";
import type { FunctionError, InvocationReport, InvocationRequest } from "../wire/invocation.ts";
import { AFTER_ANSWER_MS, DEADLINE_GRACE_MS, DEADLINE_READ_ON_MS, INIT_TIMEOUT_MS } from "../wire/limits.ts";
import { decodeFields } from "../wire/shim-codec.ts";
import { FailureOutcome, FromShim, ReadyField, ToShim } from "../wire/shim-protocol.ts";
import type { Frame } from "../wire/shim-protocol.ts";
import type { SlotInfo } from "../wire/slot.ts";
import { formatAmznTrace } from "../wire/trace.ts";
import type { TraceContext } from "../wire/trace.ts";
import type { BootedMicroVm } from "./booted.ts";
import { cpuShare } from "./cpu-share.ts";
import type { CpuPolicy } from "./cpu-share.ts";
import { failureTexts, readFailure } from "./failure.ts";
import type { Failure } from "./failure.ts";
import { Freezer } from "./freezer.ts";
import type { SlotNetwork } from "./network/slot-network.ts";
import { GuestProtocolError, InvocationFrames, invokeFields } from "./invocation.ts";
import type { Done, ResponseSink } from "./invocation.ts";
import type { Taken } from "./pool.ts";
import type { RuntimeImage } from "./runtime-images.ts";
import { configureFields } from "./slot-configuration.ts";
import { SlotLog } from "./slot-log.ts";
import { cpuDenied, CpuDenial } from "./starts/cpu-denied.ts";
import { START_WEIGHT_MIN } from "./starts/limits.ts";
import type { StartTurn } from "./starts/starts.ts";
import { limitInit } from "./starts/init-limit.ts";
import { waitForInit } from "./starts/init-wait.ts";
import { SlotStateMachine } from "./slot-state.ts";
import { invocationSpan, StartTrace } from "./slot-trace.ts";

/** What a slot needs from its worker. */
export interface SlotServices {
  readonly workerId: string;
  readonly clock: Clock;
  readonly metrics: Metrics;
  readonly cpu: CpuPolicy;
  readonly tracer: Tracer;
  /** A microVM for a function that is going to need these images (host paths): from here on the slot's. */
  readonly microVm: (spec: FunctionSpec, images: readonly string[]) => Promise<Taken>;
  /** A network of its own for a slot, from here on the slot's; null where functions have none. */
  readonly network: () => Promise<SlotNetwork | null>;
  readonly runtime: (name: string, region: string) => RuntimeImage;
  /** Host path of a code or layer image. Throws `ServiceError` when it is gone. */
  readonly image: (digest: string) => Promise<string>;
  readonly logSink: (functionName: string, stream: string) => LogSink;
  /** Log that one slot may write in a second for as long as it likes, in KiB. */
  readonly logRateKib: number;
  readonly changed: (slot: Slot) => void;
  readonly warn: (message: string, error: unknown) => void;
}

/** How one invocation went. */
export interface Ended {
  readonly error: FunctionError | null;
  readonly report: InvocationReport;
}

const BYTES_PER_MIB = 1024 * 1024;

/** One microVM, one function version, one invocation at a time. Owns its microVM. */
export class Slot {
  readonly id: string;
  readonly spec: FunctionSpec;
  /** In Unix ms: to be shown. */
  readonly createdAtMs: number;
  /** The same moment on the monotonic clock. */
  readonly madeAtMs: number;
  readonly #services: SlotServices;
  readonly #state: SlotStateMachine;
  readonly #log: SlotLog;
  readonly #logStream: string;
  readonly #ready = Promise.withResolvers<void>();
  #taken: Taken | null = null;
  #network: SlotNetwork | null = null;
  #freezer: Freezer | null = null;
  #invocation: InvocationFrames | null = null;
  #startTrace: StartTrace | null = null;
  /** Of the invocation that runs. */
  #span: Span | null = null;
  #invocations = 0;
  /** Invocations that wait for its init. */
  #awaited = 0;
  #initDurationMs: number | null = null;
  #memoryBytes = 0;
  #cpuTimeUs = 0;
  #scratchBytes = 0;
  #scratchWritable = true;
  /** Why it could not start, when that is not the slot's own fault. */
  #failure: ServiceError | null = null;
  /** Of its start, until that is over. */
  #turn: StartTurn | null = null;
  #initLimit: Timer | null = null;
  /** When a guest that writes too much log may go on. */
  #logHold: Timer | null = null;
  #endReason: string | null = null;
  #ended: Promise<void> | null = null;

  constructor(id: string, spec: FunctionSpec, services: SlotServices) {
    this.id = id;
    this.spec = spec;
    this.#services = services;
    const { clock } = services;
    this.createdAtMs = clock.wallMs();
    this.madeAtMs = clock.monotonicMs();
    this.#state = new SlotStateMachine(clock, () => services.changed(this));
    this.#logStream = logStreamName(this.createdAtMs, spec.version, id);
    const sink = services.logSink(spec.functionName, this.#logStream);
    this.#log = new SlotLog(sink, spec.logFormat, clock, services.logRateKib);
    this.#ready.promise.catch(() => {});
  }

  get info(): SlotInfo {
    return {
      slotId: this.id,
      workerId: this.#services.workerId,
      functionKey: functionKey(this.spec),
      functionArn: this.spec.functionArn,
      version: this.spec.version,
      state: this.#state.state,
      memoryMb: this.spec.memoryMb,
      createdAtMs: this.createdAtMs,
      since: this.#state.sinceWallMs,
      invocations: this.#invocations,
      memoryBytes: this.#memoryBytes,
      cpuTimeUs: this.#cpuTimeUs,
      scratchBytes: this.#scratchBytes,
      cpu: this.#booted?.vm.cpu ?? -1,
    };
  }

  /** When its state changed last, on the monotonic clock. */
  get sinceMs(): number {
    return this.#state.sinceMs;
  }

  /** Whether it may give way to others: an invocation that waited for its init begins a moment after that has ended. */
  get mayGiveWay(): boolean {
    return this.#state.state === "Idle" && this.#awaited === 0;
  }

  /**
   * Gets a microVM, attaches the code and starts the runtime. `turn` is ended when init is over. Never rejects: a failure
   * ends the slot.
   */
  async start(trace: TraceContext | null, turn: StartTurn): Promise<void> {
    this.#turn = turn;
    const steps = new StartTrace(this.#services, trace, this.id, this.spec);
    this.#startTrace = steps;
    try {
      const images = await this.#images();
      const wanted = [...images.root, images.code, ...images.layers];
      const [taking, networking] = await Promise.allSettled([
        steps.microVm(() => this.#services.microVm(this.spec, wanted)).then((taken) => (this.#taken = taken)),
        this.#takeNetwork(),
      ]);
      // Whatever of the two was had is the slot's by now, and goes with it.
      if (taking.status === "rejected") throw taking.reason;
      if (networking.status === "rejected") throw networking.reason;
      const { booted } = taking.value;
      if (this.#state.state === "Dead") {
        taking.value.settled();
        await booted.vm.kill("its slot ended while it booted");
        return;
      }
      void booted.vm.exited.then((exit) => this.#exited(exit));
      booted.vm.setCpuShare({ share: Math.max(START_WEIGHT_MIN, this.#memoryShare("init").share), hard: false });
      booted.vm.setBusy(true);
      this.#freezer = new Freezer({
        clock: this.#services.clock,
        vm: booted.vm,
        memoryBytes: () => this.measure().then(() => this.#memoryBytes),
        onError: (error) => this.#services.warn("a slot could not be frozen", error),
      });
      const attach = async (path: string): Promise<GuestDevice> =>
        booted.drives.get(path) ?? (await booted.vm.attachDrive({ path, readOnly: true }));
      const [root, code, scratch, layers] = await steps.attach(() =>
        Promise.all([
          // A microVM whose runtime was started has them in their place.
          Promise.all(booted.runtime === null ? images.root.map(attach) : []),
          attach(images.code),
          booted.vm.attachScratch(this.spec.ephemeralMb),
          Promise.all(images.layers.map(attach)),
        ]),
      );
      // Said while it was being attached.
      if (!this.#scratchWritable) this.setScratchWritable(false);
      if (this.#network !== null) booted.vm.attachNetwork(this.#network.port);
      booted.link.own({ frame: (frame) => this.#frame(frame), closed: (detail) => void this.end(detail) });
      this.#logInitStart();
      steps.initBegan();
      const runtime = this.#services.runtime(this.spec.runtime, this.spec.region);
      booted.link.send(
        ToShim.Configure,
        configureFields({
          spec: this.spec,
          runtime,
          drives: { root, code, scratch, layers },
          network: this.#network,
          logStream: this.#logStream,
          unixMs: this.#services.clock.wallMs(),
        }),
      );
      turn.watch(
        () => booted.vm.cpuTimes(),
        // It goes on beside others now, and weighs no more than they do.
        () => booted.vm.setCpuShare(this.#memoryShare("init")),
      );
      this.#initLimit = limitInit({
        clock: this.#services.clock,
        read: () => booted.vm.cpuTimes(),
        end: () => booted.link.send(ToShim.EndInit, []),
        giveUp: (what, failure) => {
          this.#failure = failure;
          void this.end(what);
        },
      });
    } catch (error) {
      this.#failure = exhaustion(error);
      await this.end(error instanceof Error ? error.message : String(error));
    }
  }

  /** The microVM ended by itself, or for what the host has run out of: nobody's init, and no other slot, would fare better. */
  #exited({ detail, error }: MicroVmExit): Promise<void> {
    this.#failure ??= exhaustion(error);
    return this.end(detail);
  }

  /** The part of a CPU that comes with the function's memory. */
  #memoryShare(phase: "init" | "invoke"): CpuShare {
    return cpuShare(this.spec.memoryMb, this.#services.cpu, phase);
  }

  /**
   * Runs one invocation, after init if that is still under way. Rejects with `ServiceError` when the slot died under
   * it. `sink` gets the answer while it comes.
   */
  invoke(request: InvocationRequest, sink: ResponseSink, responseBytesMax: number): Promise<Ended> {
    const span = invocationSpan(this.#services.tracer, this.spec, {
      trace: request.trace,
      requestId: request.requestId,
      functionArn: request.invokedFunctionArn,
      instance: this.#logStream,
      cold: this.#invocations === 0,
    });
    return traced(span, () => this.#invoke(request, sink, responseBytesMax, span));
  }

  async #invoke(request: InvocationRequest, sink: ResponseSink, responseBytesMax: number, span: Span): Promise<Ended> {
    const { tracer, clock } = this.#services;
    await this.#becomeBusy(span);
    const { booted } = this;
    const cold = this.#invocations === 0;
    this.#invocations += 1;
    // Before it runs again: a frozen microVM is moved at no cost to what it does.
    booted.vm.setBusy(true);
    if (this.#freezer?.frozen === true) await traced(tracer.start("thaw", span.context), () => this.#wake());
    else await this.#wake();
    const frames = new InvocationFrames(sink, responseBytesMax);
    this.#invocation = frames;
    this.#log.openTail();
    this.#log.platform({ type: "start", requestId: request.requestId, version: this.spec.version });
    const beganMs = clock.monotonicMs();
    const wallMs = clock.wallMs();
    const deadlineMs = wallMs + this.spec.timeoutMs;
    const readOn = clock.after(this.spec.timeoutMs + DEADLINE_READ_ON_MS, () => {
      frames.readOn();
      this.resumeReading();
      this.#log.hurry();
      this.#booted?.link.resume("log");
    });
    const backstop = clock.after(this.spec.timeoutMs + DEADLINE_GRACE_MS, () => {
      frames.overrun(this.spec.timeoutMs);
      void this.end("the guest did not end an invocation at its deadline");
    });
    const { share } = this.#memoryShare("invoke");
    const denial = new CpuDenial(clock, this.spec.timeoutMs, share, () => booted.vm.cpuTimes());
    const running = tracer.start("run", span.context);
    this.#span = running;
    try {
      const traceId = running.context === null ? request.traceId : formatAmznTrace(running.context);
      const fields = invokeFields({ ...request, traceId }, deadlineMs, responseBytesMax, wallMs);
      booted.link.sendInvoke(fields, request.payload);
      const done = await frames.done;
      running.end();
      if (frames.failure?.outcome === FailureOutcome.Exited) this.#assertWhole(booted);
      if (frames.failure?.outcome === FailureOutcome.TimedOut && denial.isDenied) throw cpuDenied();
      const ended = this.#report(request, frames, done, cold);
      if (ended.error !== null) span.fail(ended.error.errorType, "The function failed.");
      span.set({
        "hearth.billed_ms": ended.report.billedDurationMs,
        "hearth.memory_used_mb": ended.report.maxMemoryUsedMb,
      });
      this.#afterInvocation();
      if (request.asynchronous) await this.#log.written();
      return ended;
    } catch (error) {
      this.#log.broken(request.requestId, error, clock.monotonicMs() - beganMs, this.spec.memoryMb);
      throw error;
    } finally {
      running.end();
      this.#span = null;
      readOn[Symbol.dispose]();
      backstop[Symbol.dispose]();
      denial[Symbol.dispose]();
      this.#invocation = null;
      // Held back for a reader that has the whole answer by now: the next invocation must not wait for it.
      this.resumeReading();
    }
  }

  /** Takes the slot once its init is over. Rejects with `slotStarting` when that takes too long, with `slotGone` when the slot ends first. */
  async #becomeBusy(span: Span): Promise<void> {
    const { tracer, clock } = this.#services;
    const { promise: ready } = this.#ready;
    this.#awaited += 1;
    try {
      if (this.#state.state === "Init")
        await traced(tracer.start("wait for init", span.context), () => waitForInit(clock, ready));
      await ready;
      if (this.#state.state === "Dead") throw slotGone(String(this.#endReason));
      this.#state.to("Busy");
    } finally {
      this.#awaited -= 1;
    }
  }

  /** A runtime's end may be the host's doing: a process that it killed has crashed for the guest, which knows no better. */
  #assertWhole({ vm }: BootedMicroVm): void {
    const why = vm.outOfHostMemory();
    if (why === null) return;
    void this.end(why);
    throw microVmEnded(why);
  }

  /** Throws `slotGone` when the microVM has ended while it slept: nothing of the invocation has begun. */
  async #wake(): Promise<void> {
    try {
      await this.#freezer?.wake();
    } catch (error) {
      void this.end(`it could not be woken: ${error instanceof Error ? error.message : String(error)}`);
    }
    if (this.#state.state === "Dead") throw slotGone(String(this.#endReason));
  }

  /** Holds the guest's answer back, or lets it come, as its reader can take it. */
  resumeReading(): void {
    this.#booted?.link.resume("reader");
  }

  /** Measures what the microVM takes on the host, and has taken of its CPUs. */
  async measure(): Promise<void> {
    if (this.#booted === null || this.#state.state === "Dead") return;
    const stats = await this.#booted.vm.stats().catch(() => null);
    if (stats === null) return;
    this.#memoryBytes = stats.memoryBytes;
    this.#cpuTimeUs = stats.cpuTimeUs;
    this.#scratchBytes = stats.scratchBytes;
  }

  /** Measures only what its `/tmp` takes of the disk. */
  async measureScratch(): Promise<void> {
    this.#scratchBytes = (await this.#booted?.vm.scratchBytes()) ?? 0;
  }

  /** Lets the function write to its `/tmp`, or not: each write is then an I/O error for it, which its log explains. */
  setScratchWritable(writable: boolean): void {
    this.#scratchWritable = writable;
    if (this.#booted === null || this.#state.state === "Dead") return;
    try {
      this.#booted.vm.setScratchWritable(writable);
    } catch (error) {
      // Where the host does not let us the slot has to go: the disk is everybody's.
      if (!writable)
        void this.end(`its /tmp takes too much of the disk: ${error instanceof Error ? error.message : String(error)}`);
      return;
    }
    if (!writable)
      this.#log.notice("/tmp takes no more: the room that functions have on this host's disk is used up (--scratch).");
  }

  /** Ends the slot; the first reason wins. Resolves, never rejects, when everything it held is released. */
  end(reason: string): Promise<void> {
    if (this.#ended === null) {
      // Set before anything is told of the end: who hears of it may call back here.
      const { promise, resolve } = Promise.withResolvers<void>();
      this.#ended = promise;
      void this.#end(reason)
        .catch((error: unknown) => this.#services.warn("a slot did not end cleanly", error))
        .finally(resolve);
    }
    return this.#ended;
  }

  get endReason(): string | null {
    return this.#endReason;
  }

  get #booted(): BootedMicroVm | null {
    return this.#taken?.booted ?? null;
  }

  private get booted(): BootedMicroVm {
    if (this.#booted === null) throw serviceFailure(`slot ${this.id} has no microVM yet`);
    return this.#booted;
  }

  async #end(reason: string): Promise<void> {
    this.#endReason = reason;
    const gone = microVmEnded(reason);
    this.#initLimit?.[Symbol.dispose]();
    this.#turn?.[Symbol.dispose]();
    this.#state.to("Dead");
    this.#freezer?.close();
    this.#log.flush();
    this.#startTrace?.ended("SlotEnded", reason);
    // What waits for the init has not begun, and may have another slot unless that one would fare no better.
    this.#ready.reject(this.#failure ?? slotGone(reason));
    this.#invocation?.abort(gone);
    this.#taken?.settled();
    // The answer goes out first.
    if (reason === "once") await this.#services.clock.sleep(AFTER_ANSWER_MS);
    await this.#booted?.vm.kill(reason);
    this.#network?.[Symbol.dispose]();
  }

  async #takeNetwork(): Promise<void> {
    const network = await this.#services.network();
    if (this.#state.state === "Dead") network?.[Symbol.dispose]();
    else this.#network = network;
  }

  async #images(): Promise<{ root: readonly string[]; code: string; layers: readonly string[] }> {
    const [code, ...layers] = await Promise.all([this.spec.code, ...this.spec.layers].map(this.#services.image));
    if (code === undefined) throw serviceFailure("a function without code");
    return { root: this.#services.runtime(this.spec.runtime, this.spec.region).drives, code, layers };
  }

  /** A function that writes more log than it may is held back for a moment. */
  #output(frame: Frame): void {
    const held = this.#log.output(frame);
    if (held === null || this.#booted === null) return;
    const { link, vm } = this.#booted;
    link.pause("log", held.rest);
    this.#logHold?.[Symbol.dispose]();
    // The function's output is looked at in turns of its own guest.
    const { clock } = vm;
    const resume = (): void => link.resume("log");
    this.#logHold = held.delayMs === 0 ? clock.soon(resume) : clock.after(held.delayMs, resume);
  }

  /** Every frame from the guest comes through here. A frame out of order ends this microVM and nothing else. */
  #frame(frame: Frame): void {
    try {
      switch (frame.type) {
        case FromShim.Log:
          return this.#output(frame);
        case FromShim.Ready:
          return this.#initEnded(null, decodeFields(frame.payload).number(ReadyField.InitDurationUs) ?? 0);
        case FromShim.InitFailed: {
          const failure = readFailure(decodeFields(frame.payload));
          return this.#initEnded(failure, failure?.durationUs ?? 0);
        }
        case FromShim.Fault:
          throw new GuestProtocolError(`the shim gave up: ${Buffer.from(frame.payload.subarray(0, 500)).toString()}`);
        case FromShim.Status:
          return;
        default:
          if (this.#invocation === null) throw new GuestProtocolError("a frame came outside any invocation");
          if (frame.type === FromShim.Done) this.#log.flush();
          if (frame.type === FromShim.ResponseHead) this.#span?.event("answer begins");
          if (frame.type === FromShim.ResponseEnd) this.#span?.event("answer is complete");
          if (!this.#invocation.take(frame)) this.#booted?.link.pause("reader");
      }
    } catch (error) {
      this.#failure ??= exhaustion(error);
      void this.end(error instanceof Error ? error.message : String(error));
    }
  }

  #initEnded(failure: Failure | null, durationUs: number): void {
    if (this.#state.state !== "Init") throw new GuestProtocolError("init ended a second time");
    this.#initLimit?.[Symbol.dispose]();
    this.#turn?.[Symbol.dispose]();
    const durationMs = durationUs / 1000;
    this.#services.metrics.init(durationMs, failure === null ? "ready" : "failed");
    if (failure === null) {
      this.#initDurationMs = durationMs;
    } else {
      this.#log.flush();
      const texts = failureTexts(failure, this.id, INIT_TIMEOUT_MS);
      this.#log.platform({
        type: "initReport",
        durationMs,
        phase: "init",
        status: texts.status,
        errorType: texts.error.errorType,
      });
    }
    this.#booted?.vm.setCpuShare(this.#memoryShare("invoke"));
    this.#startTrace?.ended(failure === null ? null : "InitFailed", "The function's init failed.");
    this.#idle();
    this.#ready.resolve();
  }

  #logInitStart(): void {
    const { version, versionArn } = this.#services.runtime(this.spec.runtime, this.spec.region);
    this.#log.platform({
      type: "initStart",
      runtimeVersion: version,
      runtimeVersionArn: versionArn,
      functionName: this.spec.functionName,
      functionVersion: this.spec.version,
    });
  }

  /** Writes the lines that end an invocation's log and makes its report. */
  #report(request: InvocationRequest, frames: InvocationFrames, done: Done, cold: boolean): Ended {
    const { spec } = this;
    const { requestId } = request;
    const texts =
      frames.failure === null ? null : failureTexts(frames.failure, requestId, spec.timeoutMs, frames.responseBytesMax);
    const timedOut = frames.failure?.outcome === FailureOutcome.TimedOut;
    const durationMs = timedOut ? spec.timeoutMs : done.durationMs;
    const initDurationMs = cold ? this.#initDurationMs : null;
    const status = texts?.status ?? "success";
    const errorType = texts?.error.errorType ?? null;
    const report = {
      durationMs,
      billedDurationMs: Math.max(1, Math.ceil(durationMs + (initDurationMs ?? 0))),
      memoryMb: spec.memoryMb,
      maxMemoryUsedMb: Math.min(spec.memoryMb, Math.ceil(done.memoryBytesPeak / BYTES_PER_MIB)),
      initDurationMs,
    };
    if (done.initFailed && texts !== null) {
      const { initDurationMs: initMs, durationMs: allMs } = done;
      this.#log.platform({
        type: "initReport",
        durationMs: initMs ?? allMs,
        phase: "invoke",
        status: texts.status,
        errorType,
      });
    }
    if (timedOut) this.#log.platform({ type: "timeout", requestId, timeoutMs: spec.timeoutMs });
    else if (texts !== null && texts.fault !== null) {
      this.#log.platform({ type: "fault", requestId, message: texts.fault, errorType: texts.error.errorType });
    }
    this.#log.platform({ type: "end", requestId, status, durationMs, producedBytes: frames.responseBytes, errorType });
    this.#log.platform({ type: "report", requestId, ...report, status, errorType, traceId: null });
    return {
      error: texts?.error ?? null,
      report: {
        ...report,
        logTail: this.#log.closeTail(),
        executedVersion: spec.version,
        slotId: this.id,
        coldStart: cold,
      },
    };
  }

  #afterInvocation(): void {
    this.#taken?.settled();
    if (this.#state.state === "Dead") return;
    if (this.spec.reuse === "never") {
      void this.end("once");
      return;
    }
    this.#idle();
  }

  #idle(): void {
    this.#booted?.vm.setBusy(false);
    this.#state.to("Idle");
    this.#freezer?.idle();
  }
}

const microVmEnded = (reason: string): ServiceError =>
  serviceFailure(`The microVM ended before the invocation did: ${reason}`);
