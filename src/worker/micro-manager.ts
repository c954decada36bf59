import { nextTurn } from "../lib/clock.ts";
import type { Timer } from "../lib/clock.ts";
import type { Ids } from "../lib/ids.ts";
import { serviceFailure, slotGone } from "../wire/errors.ts";
import { unavailable } from "../wire/exhaustion.ts";
import { functionGroup, functionKey } from "../wire/function.ts";
import type { FunctionSpec } from "../wire/function.ts";
import type { InvocationRequest, InvocationResult, InvocationStream } from "../wire/invocation.ts";
import {
  FUNCTION_GROUPS,
  LEASE_MS,
  PAYLOAD_BYTES_MAX,
  POOL_MEMORY_SHARE,
  RESPONSE_STREAM_BYTES_MAX,
  SLOT_AGE_MS_MAX,
  SLOT_SWEEP_MS,
  SLOTS_MEASURE_MS,
  SLOTS_MEASURED_AT_ONCE,
} from "../wire/limits.ts";
import type { WorkerReading } from "../telemetry/metrics.ts";
import type { SlotLease, WorkerApi, WorkerReport } from "../wire/roles.ts";
import type { SlotInfo, SlotState } from "../wire/slot.ts";
import type { TraceContext } from "../wire/trace.ts";
import { bootMicroVm, WANTED } from "./booted.ts";
import type { BootedMicroVm, BootOptions } from "./booted.ts";
import { guestMemoryMib } from "./guest-memory.ts";
import type { HostShares } from "./host-load.ts";
import type { MemoryReading } from "./memory/host-memory.ts";
import { BufferedSink, StreamingSink } from "./invocation.ts";
import { MemoryKeeper } from "./memory/memory-keeper.ts";
import type { MemoryStallWatch } from "./memory/memory-stalls.ts";
import { MicroVmPool } from "./pool.ts";
import type { Taken } from "./pool.ts";
import { expectedBytes, nominalRoom } from "./memory/pressure.ts";
import type { IdleSlot } from "./memory/pressure.ts";
import { ScratchKeeper } from "./scratch/scratch-keeper.ts";
import type { DiskReading, ScratchSlot } from "./scratch/scratch-budget.ts";
import { prepareRuntime } from "./preparation.ts";
import type { ShelfKey } from "./shelf.ts";
import { mayTakePrepared } from "./slot-configuration.ts";
import { Slot } from "./slot.ts";
import type { SlotServices } from "./slot.ts";
import { STARTS_FIRST, STARTS_PER_CPU } from "./starts/limits.ts";
import { Starts } from "./starts/starts.ts";

export interface MicroManagerOptions extends Omit<SlotServices, "microVm" | "changed"> {
  readonly ids: Ids;
  readonly boot: Omit<BootOptions, "clock">;
  /** Most slots at once. */
  /** CPUs of the host: so many starts at once they can carry. */
  readonly cpus: number;
  readonly slotsMax: number;
  /** Nominal memory of all slots together, in MB. */
  readonly memoryMbMax: number;
  /** Reads how much memory there is; must not reject. */
  readonly memory: () => Promise<MemoryReading>;
  /** All of it, in bytes. */
  readonly memoryBytesTotal: number;
  /** Watches for stalls of memory from now on. */
  readonly memoryStalls: (onStall: () => void) => MemoryStallWatch;
  /** How long an idle slot is kept. */
  readonly slotIdleMs: number;
  /** How much of the host is in use besides its memory. Must not reject. */
  readonly load: () => Promise<HostShares>;
  /** Reads the disk that slots' `/tmp` is on. */
  readonly scratchDisk: () => DiskReading;
  /** How much of it all of them may take, in bytes; null for what is free but for a reserve. */
  readonly scratchBytesMax: number | null;
  /** Booted microVMs kept ready of each size in demand; 0 for none. */
  readonly poolFloor: number;
  /** Booted microVMs at most, of all sizes together. */
  readonly poolMax: number;
  /** Function memory sizes, in MB, to have ready from the start. */
  readonly warmMemoryMb: readonly number[];
}

/** The part of a worker that owns its slots: makes them, runs invocations in them, ends them. */
export class MicroManager implements WorkerApi, AsyncDisposable {
  readonly workerId: string;
  readonly #options: MicroManagerOptions;
  readonly #services: SlotServices;
  readonly #pool: MicroVmPool;
  readonly #starts: Starts;
  readonly #slots: Map<string, Slot> = new Map();
  /** Of slots whose start waits for its turn. */
  readonly #waiting: Map<string, FunctionSpec> = new Map();
  /** Placement's leases of slots taken lately, oldest first, with the monotonic time at which each was. */
  readonly #placementLeases: Map<string, number> = new Map();
  readonly #listeners: Set<(slot: SlotInfo) => void> = new Set();
  readonly #finishing: Set<Promise<void>> = new Set();
  readonly #sweep: Timer;
  readonly #memory: MemoryKeeper;
  readonly #scratch: ScratchKeeper;
  #draining = false;
  #measuredAtMs = Number.NEGATIVE_INFINITY;
  #measuring: Promise<void> = Promise.resolve();

  constructor(options: MicroManagerOptions) {
    this.#options = options;
    this.workerId = options.workerId;
    this.#starts = new Starts(options.clock, options.cpus * STARTS_PER_CPU + STARTS_FIRST);
    this.#pool = new MicroVmPool({
      clock: options.clock,
      boot: (memoryMib, images) => this.#boot(memoryMib, images),
      make: (key, wanted) => this.#make(key, wanted),
      floor: options.poolFloor,
      max: options.poolMax,
      makesMax: options.cpus,
      memoryBytesMax: options.memoryBytesTotal * POOL_MEMORY_SHARE,
      mayMake: () => this.#memory.mayFillPool,
      onError: (error) => options.warn("a microVM for the pool did not boot", error),
    });
    this.#memory = new MemoryKeeper({
      clock: options.clock,
      read: options.memory,
      stalls: options.memoryStalls,
      pool: this.#pool,
      idle: () => this.#idle(),
      end: (slotId) => this.endSlot(slotId, "pressure"),
    });
    this.#scratch = new ScratchKeeper({
      clock: options.clock,
      disk: options.scratchDisk,
      bytesMax: options.scratchBytesMax,
      slots: () => this.#scratchSlots(),
      measure: async () => {
        await Promise.all([...this.#slots.values()].map((slot) => slot.measureScratch()));
        return this.#scratchSlots();
      },
      end: (slotId) => this.endSlot(slotId, "pressure"),
      setWritable: (slotId, writable) => this.#slots.get(slotId)?.setScratchWritable(writable),
      warn: options.warn,
    });
    this.#services = {
      ...options,
      microVm: (spec, images) => this.#microVm(spec, images),
      changed: (slot) => this.#changed(slot),
    };
    for (const memoryMb of options.warmMemoryMb) {
      this.#pool.expect({ memoryMib: guestMemoryMib(memoryMb), runtime: null });
    }
    this.#sweep = options.clock.every(SLOT_SWEEP_MS, () => this.#sweepSlots());
  }

  async createSlot(request: {
    readonly slotId: string;
    readonly spec: FunctionSpec;
    readonly placementLeaseId: string;
    readonly trace: TraceContext | null;
  }): Promise<SlotInfo> {
    const { slotId, spec, trace } = request;
    this.#assertOpen();
    this.#placementLeases.set(request.placementLeaseId, this.#options.clock.monotonicMs());
    this.#waiting.set(slotId, spec);
    const turn = await this.#starts.turn(slotId, functionKey(spec)).finally(() => this.#waiting.delete(slotId));
    try {
      this.#assertOpen();
      this.#scratch.makeRoom(spec.ephemeralMb);
      this.#makeRoom(spec.memoryMb);
    } catch (error) {
      turn[Symbol.dispose]();
      throw error;
    }
    const slot = new Slot(slotId, spec, this.#services);
    this.#slots.set(slot.id, slot);
    this.#finish(slot.start(trace, turn));
    return slot.info;
  }

  withdrawSlot(slotId: string): Promise<void> {
    this.#starts.withdraw(slotId, slotGone(`slot ${slotId} was taken back before its start`));
    return Promise.resolve();
  }

  #assertOpen(): void {
    if (this.#draining) throw serviceFailure(`worker ${this.workerId} is draining and takes no new slots`);
  }

  async invoke(lease: SlotLease, request: InvocationRequest): Promise<InvocationResult> {
    const sink = new BufferedSink();
    const { error, report } = await this.#leased(lease).invoke(request, sink, PAYLOAD_BYTES_MAX);
    return { payload: error === null ? sink.payload() : error.body, contentType: sink.contentType, error, report };
  }

  async invokeStreaming(lease: SlotLease, request: InvocationRequest): Promise<InvocationStream> {
    const slot = this.#leased(lease);
    const sink = new StreamingSink(() => slot.resumeReading());
    const done = slot.invoke(request, sink, RESPONSE_STREAM_BYTES_MAX);
    done.catch((error: Error) => sink.abort(error));
    const contentType = await sink.started;
    return { contentType, body: sink.body, done };
  }

  async endSlot(slotId: string, reason: string): Promise<void> {
    await this.withdrawSlot(slotId);
    await this.#slots.get(slotId)?.end(reason);
  }

  listSlots(): Promise<readonly SlotInfo[]> {
    return Promise.resolve([...this.#slots.values()].map((slot) => slot.info));
  }

  /** Slots with what they take of the host, measured within the last SLOTS_MEASURE_MS. */
  async measureSlots(): Promise<readonly SlotInfo[]> {
    const nowMs = this.#options.clock.monotonicMs();
    if (nowMs - this.#measuredAtMs > SLOTS_MEASURE_MS) {
      this.#measuredAtMs = nowMs;
      this.#measuring = this.#measureAll();
    }
    await this.#measuring;
    return this.listSlots();
  }

  async report(): Promise<WorkerReport> {
    const slots = [...this.#slots.values()];
    const waiting = [...this.#waiting.values()];
    const memory = await this.#memory.read();
    return {
      workerId: this.workerId,
      atMs: this.#options.clock.wallMs(),
      placementLeases: this.#freshPlacementLeases(),
      cpus: this.#options.cpus,
      memoryBytesTotal: memory.totalBytes,
      memoryBytesAvailable: memory.availableBytes,
      memoryBytesIdle: this.#pool.readyBytes + this.#idle().reduce((sum, { memoryBytes }) => sum + memoryBytes, 0),
      // Starts that wait count: Placement has let go of its lease on them.
      memoryMbCommitted: this.#committedMb + waiting.reduce((sum, { memoryMb }) => sum + memoryMb, 0),
      slots: slots.length + waiting.length,
      slotsMax: this.#options.slotsMax,
      busy: slots.filter((slot) => slot.info.state === "Busy").length,
      groups: countGroups([...slots.map(({ spec }) => spec), ...waiting]),
      ...(await this.#options.load()),
      draining: this.#draining,
    };
  }

  onSlot(listener: (slot: SlotInfo) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** What the metrics show of this worker. Measures every slot. */
  async reading(): Promise<WorkerReading> {
    const slots = await this.measureSlots();
    return {
      report: await this.report(),
      slots: countStates(slots),
      slotMemoryBytes: slots.reduce((sum, slot) => sum + slot.memoryBytes, 0),
      slotScratchBytes: slots.reduce((sum, slot) => sum + slot.scratchBytes, 0),
      scratchStopped: this.#scratch.stopped,
      poolReady: this.#pool.ready,
      starts: { waiting: this.#starts.waiting, underWay: this.#starts.underWay },
    };
  }

  /** Ends every slot and the pool. Running invocations fail. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#draining = true;
    this.#sweep[Symbol.dispose]();
    this.#starts[Symbol.dispose]();
    this.#memory[Symbol.dispose]();
    this.#scratch[Symbol.dispose]();
    await Promise.all([...this.#slots.values()].map((slot) => slot.end("drain")));
    await this.#pool[Symbol.asyncDispose]();
    await Promise.all(this.#finishing);
  }

  /** A few at a time: each is a read of the kernel's that nothing else can happen during. */
  async #measureAll(): Promise<void> {
    const slots = [...this.#slots.values()];
    while (slots.length > 0) {
      await Promise.all(slots.splice(0, SLOTS_MEASURED_AT_ONCE).map((slot) => slot.measure()));
      await nextTurn(this.#options.clock);
    }
  }

  /** Those of the last LEASE_MS: longer ago Placement has let go of them by itself. */
  #freshPlacementLeases(): readonly string[] {
    const oldestMs = this.#options.clock.monotonicMs() - LEASE_MS;
    for (const [leaseId, takenAtMs] of this.#placementLeases) {
      if (takenAtMs >= oldestMs) break;
      this.#placementLeases.delete(leaseId);
    }
    return [...this.#placementLeases.keys()];
  }

  #leased(lease: SlotLease): Slot {
    const slot = this.#slots.get(lease.slotId);
    if (slot === undefined) throw slotGone(`slot ${lease.slotId} is gone from worker ${this.workerId}`);
    if (lease.validMs <= 0) throw slotGone(`the lease on slot ${lease.slotId} has expired`);
    return slot;
  }

  async #boot(memoryMib: number, images: readonly string[], wanted: Promise<void> = WANTED): Promise<BootedMicroVm> {
    const id = `vm-${this.#options.ids.uuid().slice(0, 13)}`;
    try {
      const { boot, clock } = this.#options;
      const booted = await bootMicroVm({ ...boot, clock }, id, memoryMib, images, wanted);
      this.#options.metrics.boot(booted.bootMs, "ready");
      return booted;
    } catch (error) {
      this.#options.metrics.boot(0, "failed");
      throw error;
    }
  }

  /** One for the pool. */
  async #make({ memoryMib, runtime }: ShelfKey, wanted: Promise<void>): Promise<BootedMicroVm> {
    if (runtime === null) return this.#boot(memoryMib, [], wanted);
    // The region is in nothing that the runtime gets before its function.
    const image = this.#options.runtime(runtime, "");
    return prepareRuntime(this.#options.clock, await this.#boot(memoryMib, image.drives, wanted), runtime, image);
  }

  async #microVm(spec: FunctionSpec, images: readonly string[]): Promise<Taken> {
    const runtime = this.#options.runtime(spec.runtime, spec.region);
    const taken = await this.#pool.take({
      memoryMib: guestMemoryMib(spec.memoryMb),
      runtime: mayTakePrepared(spec, runtime) ? spec.runtime : null,
      images,
    });
    if (taken.result === "none") this.#options.metrics.pool("miss");
    else this.#options.metrics.pool("hit", taken.result);
    return taken;
  }

  #changed(slot: Slot): void {
    const { info } = slot;
    if (info.state === "Dead") {
      this.#slots.delete(slot.id);
      this.#options.metrics.evicted(reasonLabel(slot.endReason));
      this.#finish(slot.end("failed"));
    }
    for (const listener of this.#listeners) {
      try {
        listener(info);
      } catch (error) {
        // The slot goes on, and so do the others who listen.
        this.#options.warn("a listener to slots failed", error);
      }
    }
  }

  /** Something that closing waits for. */
  #finish(work: Promise<void>): void {
    const finished = work.finally(() => this.#finishing.delete(finished));
    this.#finishing.add(finished);
  }

  /** Room for one more slot: slots that have been idle longest give way. A busy one never does. */
  #makeRoom(memoryMb: number): void {
    const { slotsMax, memoryMbMax } = this.#options;
    const usedMb = this.#committedMb;
    const use = { slotsMax, memoryMbMax, slots: this.#slots.size, memoryMb: usedMb };
    const room = nominalRoom(use, memoryMb, this.#idle());
    if (!room.fits) {
      throw unavailable(
        room.lacks === "slots"
          ? `Worker ${this.workerId} has all of its ${slotsMax} slots in use and none idle. Try again when fewer invocations run, or raise its limit (\`--slots-max\`).`
          : `Worker ${this.workerId} has promised ${usedMb} of at most ${memoryMbMax} MB of memory to functions that run, and a further ${memoryMb} MB do not fit. Try again when fewer run, or raise the limit (\`--overcommit\` or \`--memory\`).`,
      );
    }
    this.#memory.end(room.end);
    this.#memory.makeRoom(memoryMb, this.#startingBytes);
  }

  /** What slots are reckoned to take yet that are not through with their init. */
  get #startingBytes(): number {
    let bytes = 0;
    for (const { info } of this.#slots.values()) if (info.state === "Init") bytes += expectedBytes(info.memoryMb);
    return bytes;
  }

  get #committedMb(): number {
    let memoryMb = 0;
    for (const slot of this.#slots.values()) memoryMb += slot.spec.memoryMb;
    return memoryMb;
  }

  #scratchSlots(): ScratchSlot[] {
    return [...this.#slots.values()].map(({ id, spec, mayGiveWay, info: { scratchBytes } }) => ({
      slotId: id,
      ephemeralMb: spec.ephemeralMb,
      scratchBytes,
      isIdle: mayGiveWay,
    }));
  }

  /** Those that may be ended, longest idle first. */
  #idle(): IdleSlot[] {
    return this.#idleSlots().map(({ info: { slotId, memoryMb, memoryBytes } }) => ({ slotId, memoryMb, memoryBytes }));
  }

  #idleSlots(): Slot[] {
    return [...this.#slots.values()].filter((slot) => slot.mayGiveWay).sort((a, b) => a.sinceMs - b.sinceMs);
  }

  /** Ends what has been idle or has lived too long. */
  #sweepSlots(): void {
    const nowMs = this.#options.clock.monotonicMs();
    for (const slot of this.#idleSlots()) {
      if (nowMs - slot.sinceMs > this.#options.slotIdleMs) void slot.end("idle");
      else if (nowMs - slot.madeAtMs > SLOT_AGE_MS_MAX) void slot.end("age");
    }
  }
}

/** Few and fixed words, so that a metric's label stays small; a microVM's own end is told in the log. */
const END_REASONS: ReadonlySet<string> = new Set(["idle", "age", "retired", "broken", "pressure", "drain", "once"]);

const reasonLabel = (reason: string | null): string => (reason !== null && END_REASONS.has(reason) ? reason : "failed");

const countStates = (slots: readonly SlotInfo[]): Record<SlotState, number> => {
  const counts = { Init: 0, Idle: 0, Busy: 0, Dead: 0 };
  for (const slot of slots) counts[slot.state] += 1;
  return counts;
};

const countGroups = (specs: readonly FunctionSpec[]): number[] => {
  const counts = Array.from({ length: FUNCTION_GROUPS }, () => 0);
  for (const { functionArn } of specs) {
    const group = functionGroup(functionArn);
    counts[group] = (counts[group] ?? 0) + 1;
  }
  return counts;
};
