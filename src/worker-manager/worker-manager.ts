import type { Clock, Timer } from "../lib/clock.ts";
import type { Ids } from "../lib/ids.ts";
import type { Metrics, SlotWaitOutcome } from "../telemetry/metrics.ts";
import { traced } from "../telemetry/tracing.ts";
import type { Tracer } from "../telemetry/tracing.ts";
import { ServiceError, serviceFailure, slotGone, throttled } from "../wire/errors.ts";
import type { ThrottleReason } from "../wire/errors.ts";
import { functionKey } from "../wire/function.ts";
import type { FunctionSpec } from "../wire/function.ts";
import { unavailable } from "../wire/exhaustion.ts";
import { DEADLINE_GRACE_MS, INIT_WAIT_MS_MAX, LEASE_MS, SLOT_WAIT_MS_MAX } from "../wire/limits.ts";
import type {
  PlacementApi,
  PlacementDecision,
  ReleaseOutcome,
  ReserveRequest,
  SlotLease,
  WorkerManagerApi,
  WorkerSlotApi,
} from "../wire/roles.ts";
import type { SlotInfo, SlotState } from "../wire/slot.ts";
import type { TraceContext } from "../wire/trace.ts";
import { ReservedConcurrency } from "./reserved-concurrency.ts";
import { ScalingRate } from "./scaling-rate.ts";
import { WaitingReservations } from "./waiting-reservations.ts";
import type { Served } from "./waiting-reservations.ts";

export interface WorkerManagerOptions {
  readonly placement: PlacementApi;
  readonly metrics: Pick<Metrics, "reserve" | "placement" | "throttled" | "slotWait">;
  readonly tracer: Tracer;
  readonly clock: Clock;
  readonly ids: Ids;
  /** Concurrent executions of the whole account. */
  readonly accountConcurrency: number;
}

interface KnownSlot {
  readonly slotId: string;
  readonly workerId: string;
  readonly functionKey: string;
  readonly functionArn: string;
  readonly version: string;
  readonly revision: string;
}

/** A slot that was asked for, until its start begins or fails. */
interface PendingStart {
  readonly slot: Omit<KnownSlot, "workerId">;
  /** The worker that was asked; null before Placement has chosen one. */
  worker: WorkerSlotApi | null;
  /** Nobody waits for it any more. */
  withdrawn: boolean;
  /** Its revision is gone. */
  retired: boolean;
  /** What its worker last said of the slot: that may come before the worker's answer. */
  state: SlotState;
}

/** A reservation that waits for a slot. */
interface WaitingReservation {
  readonly spec: FunctionSpec;
  readonly sinceMs: number;
  readonly patience: Timer;
  readonly settle: { resolve(lease: SlotLease): void; reject(error: unknown): void };
}

interface Lease {
  readonly slot: KnownSlot;
  /** On the monotonic clock. */
  readonly expiresAtMs: number;
}

/**
 * Which slot serves which function version: in memory, relearned from the workers after a crash. Warm idle slots are
 * stacks, the last used on top: the hottest is used again and the coldest grow old enough to be ended.
 */
export class WorkerManager implements WorkerManagerApi {
  readonly #options: WorkerManagerOptions;
  readonly #workers: Map<string, WorkerSlotApi> = new Map();
  readonly #slots: Map<string, KnownSlot> = new Map();
  readonly #idle: Map<string, KnownSlot[]> = new Map();
  readonly #leases: Map<string, Lease> = new Map();
  /** By slot, for slots that are leased. */
  readonly #leaseOf: Map<string, string> = new Map();
  /** Leased slots of a revision that is gone: they end at their release. */
  readonly #retired: Set<string> = new Set();
  /** Slots whose start has begun and that have not been idle yet. */
  readonly #starting: Set<string> = new Set();
  /** By slot. */
  readonly #pending: Map<string, PendingStart> = new Map();
  readonly #waiting: WaitingReservations<WaitingReservation, PendingStart> = new WaitingReservations();
  /** Reservations that wait and leases, of all functions and of each. */
  #runningTotal = 0;
  readonly #running: Map<string, number> = new Map();
  readonly #rates: Map<string, ScalingRate> = new Map();
  readonly #onFreed: Set<(functionArn: string) => void> = new Set();
  /** Functions with reserved concurrency, and how much: it is taken out of what the others share. */
  readonly #reserved: ReservedConcurrency = new ReservedConcurrency();

  constructor(options: WorkerManagerOptions) {
    this.#options = options;
  }

  /** Takes a worker in and learns the slots it holds. */
  async addWorker(worker: WorkerSlotApi): Promise<void> {
    this.#workers.set(worker.workerId, worker);
    worker.onSlot((slot) => this.#onSlot(slot));
    for (const slot of await worker.listSlots()) {
      if (this.#slots.has(slot.slotId)) continue;
      const known = this.#learn(slot);
      if (slot.state === "Idle") this.#offer(known);
      else if (slot.state === "Init") this.#starting.add(known.slotId);
    }
  }

  async reserve(request: ReserveRequest): Promise<SlotLease> {
    const { clock, metrics } = this.#options;
    const startedMs = clock.monotonicMs();
    try {
      const lease = await this.#reserve(request);
      metrics.reserve(clock.monotonicMs() - startedMs, lease.cold ? "cold" : "warm");
      return lease;
    } catch (error) {
      const reason = error instanceof ServiceError && error.status === 429 ? error.members["Reason"] : undefined;
      metrics.reserve(clock.monotonicMs() - startedMs, reason === undefined ? "failed" : "throttled");
      // Only `throttled` makes such an error, and gives it no other reasons.
      if (reason !== undefined) metrics.throttled(reason as ThrottleReason);
      throw error;
    }
  }

  async release(leaseId: string, outcome: ReleaseOutcome): Promise<void> {
    const lease = this.#leases.get(leaseId);
    if (lease === undefined) return;
    this.#endLease(leaseId, lease);
    const { slot } = lease;
    // A slot that died meanwhile is forgotten already.
    if (!this.#slots.has(slot.slotId)) return;
    if (outcome === "broken") await this.#end(slot, "broken");
    else if (this.#retired.has(slot.slotId)) await this.#end(slot, "retired");
    else if (outcome === "reusable" || !this.#starting.has(slot.slotId)) this.#offer(slot);
  }

  async retire(functionArn: string, exceptRevision: string | null): Promise<void> {
    const isOutdated = (slot: Omit<KnownSlot, "workerId">): boolean =>
      slot.functionArn === functionArn &&
      (exceptRevision === null || (slot.version === "$LATEST" && slot.revision !== exceptRevision));
    const outdated = [...this.#slots.values()].filter(isOutdated);
    const busy = outdated.filter((slot) => this.#leaseOf.has(slot.slotId));
    for (const slot of busy) this.#retired.add(slot.slotId);
    // What waits for it was asked for while the revision was there, and is served.
    for (const start of this.#pending.values()) if (isOutdated(start.slot)) start.retired = true;
    const idle = outdated.filter((slot) => !this.#leaseOf.has(slot.slotId));
    await Promise.all(idle.map((slot) => this.#end(slot, "retired")));
  }

  onFreed(listener: (functionArn: string) => void): () => void {
    this.#onFreed.add(listener);
    return () => void this.#onFreed.delete(listener);
  }

  concurrency(): Promise<{ readonly account: number; readonly byFunction: Readonly<Record<string, number>> }> {
    return Promise.resolve({ account: this.#runningTotal, byFunction: Object.fromEntries(this.#running) });
  }

  /** Ends leases whose holder went away without a release. Called now and then by who runs the manager. */
  async sweep(): Promise<void> {
    const nowMs = this.#options.clock.monotonicMs();
    // A rate that has filled up again says no more than none.
    for (const [arn, rate] of this.#rates) if (rate.isFull(nowMs)) this.#rates.delete(arn);
    const expired = [...this.#leases].filter(([, lease]) => lease.expiresAtMs < nowMs);
    await Promise.all(expired.map(([leaseId]) => this.release(leaseId, "broken")));
  }

  async #reserve(request: ReserveRequest): Promise<SlotLease> {
    const { spec } = request;
    this.#admit(request);
    const warm = this.#idle.get(functionKey(spec))?.pop();
    // Counted from here, before anything is awaited: two reservations never see the same room.
    this.#count(spec.functionArn, 1);
    if (warm !== undefined) return this.#lease(warm, spec, false);
    try {
      return await this.#wait(spec, request.trace);
    } catch (error) {
      this.#count(spec.functionArn, -1);
      throw error;
    }
  }

  /** Throws the 429 that Lambda would: the function's own limit first, then what the account has left. */
  #admit(request: ReserveRequest): void {
    const { functionArn } = request.spec;
    const running = this.#running.get(functionArn) ?? 0;
    this.#reserved.set(functionArn, request.reservedConcurrency, running);
    if (request.reservedConcurrency !== null) {
      if (running >= request.reservedConcurrency) throw throttled("ReservedFunctionConcurrentInvocationLimitExceeded");
      return;
    }
    const shared = this.#options.accountConcurrency - this.#reserved.total;
    if (this.#runningTotal - this.#reserved.running >= shared) throw throttled("ConcurrentInvocationLimitExceeded");
  }

  /** Asks for a start and waits for whatever slot of the function version is free first. */
  #wait(spec: FunctionSpec, trace: TraceContext | null): Promise<SlotLease> {
    const { clock, ids } = this.#options;
    const sinceMs = clock.monotonicMs();
    const rate = this.#rates.get(spec.functionArn) ?? new ScalingRate(sinceMs);
    this.#rates.set(spec.functionArn, rate);
    if (!rate.take(sinceMs)) throw throttled("FunctionInvocationRateLimitExceeded");
    const { functionArn, version, revision } = spec;
    const slotId = ids.uuid().replaceAll("-", "");
    const slot = { slotId, functionKey: functionKey(spec), functionArn, version, revision };
    const start: PendingStart = { slot, worker: null, withdrawn: false, retired: false, state: "Init" };
    const { promise, ...settle } = Promise.withResolvers<SlotLease>();
    const patience = clock.after(SLOT_WAIT_MS_MAX, () => this.#giveUp(slot.functionKey, waiting));
    const waiting: WaitingReservation = { spec, sinceMs, patience, settle };
    this.#pending.set(slotId, start);
    this.#waiting.add(slot.functionKey, waiting, start);
    void this.#start(start, spec, trace);
    return promise;
  }

  /** Has a slot made. Never rejects: a failure is told to who has waited longest for such a slot. */
  async #start(start: PendingStart, spec: FunctionSpec, trace: TraceContext | null): Promise<void> {
    const { slotId, functionKey: key } = start.slot;
    try {
      const { workerId, leaseId: placementLeaseId } = await this.#place(spec, trace);
      try {
        const worker = this.#workers.get(workerId);
        if (worker === undefined) throw serviceFailure(`Placement chose worker ${workerId}, which is not known`);
        if (start.withdrawn) throw slotGone("it was taken back");
        start.worker = worker;
        await worker.createSlot({ slotId, spec, placementLeaseId, trace });
      } catch (error) {
        await this.#options.placement.cancel(placementLeaseId);
        throw error;
      }
      this.#began(start, { ...start.slot, workerId });
    } catch (error) {
      this.#pending.delete(slotId);
      const waiting = this.#waiting.startFailed(key, start);
      if (waiting !== null) this.#refuse(waiting, error, "failed");
    }
  }

  /** The start of a slot has begun: whoever has waited longest gets it, or it is offered once it is idle. */
  #began(start: PendingStart, slot: KnownSlot): void {
    this.#pending.delete(slot.slotId);
    // Who gets one that has died already learns of it from the worker, and reserves again.
    if (start.state !== "Dead") {
      this.#slots.set(slot.slotId, slot);
      if (start.retired) this.#retired.add(slot.slotId);
      if (start.state === "Init") this.#starting.add(slot.slotId);
    }
    if (this.#serve(this.#waiting.startBegan(slot.functionKey, start), slot, true)) return;
    if (start.state === "Idle") this.#idled(slot);
  }

  /** A slot without a lease has become idle. */
  #idled(slot: KnownSlot): void {
    if (this.#retired.has(slot.slotId)) void this.#end(slot, "retired").catch(() => {});
    else this.#offer(slot);
  }

  /** An idle slot without a lease: to who waits for such a one, or onto its stack. */
  #offer(slot: KnownSlot): void {
    this.#starting.delete(slot.slotId);
    if (this.#serve(this.#waiting.slotFree(slot.functionKey), slot, false)) return;
    this.#stack(slot.functionKey).push(slot);
  }

  #serve(served: Served<WaitingReservation, PendingStart> | null, slot: KnownSlot, cold: boolean): boolean {
    if (served === null) return false;
    const { reservation, surplus } = served;
    this.#endWait(reservation, cold ? "start" : "release");
    if (surplus !== null) this.#withdraw(surplus);
    reservation.settle.resolve(this.#lease(slot, reservation.spec, cold));
    return true;
  }

  #giveUp(key: string, waiting: WaitingReservation): void {
    const surplus = this.#waiting.giveUp(key, waiting);
    if (surplus !== null) this.#withdraw(surplus);
    const text = `No slot was free within ${SLOT_WAIT_MS_MAX / 1000} s: this host starts as many microVMs at once as its CPUs can carry, and more were asked for. Try again later.`;
    this.#refuse(waiting, unavailable(text), "refused");
  }

  #refuse(waiting: WaitingReservation, error: unknown, outcome: "failed" | "refused"): void {
    this.#endWait(waiting, outcome);
    waiting.settle.reject(error);
  }

  #endWait({ patience, sinceMs }: WaitingReservation, outcome: SlotWaitOutcome): void {
    patience[Symbol.dispose]();
    this.#options.metrics.slotWait(this.#options.clock.monotonicMs() - sinceMs, outcome);
  }

  /** Nobody waits for this start any more. One that has begun goes on, and its slot is offered when it is idle. */
  #withdraw(start: PendingStart): void {
    start.withdrawn = true;
    this.#rates.get(start.slot.functionArn)?.giveBack();
    // A worker that cannot be told makes one slot too many.
    void start.worker?.withdrawSlot(start.slot.slotId).catch(() => {});
  }

  #place({ functionArn, memoryMb }: FunctionSpec, trace: TraceContext | null): Promise<PlacementDecision> {
    const { placement, metrics, tracer, clock } = this.#options;
    return traced(tracer.start("place", trace), async (span) => {
      const startedMs = clock.monotonicMs();
      const decision = await placement.place({ functionArn, memoryMb });
      metrics.placement(clock.monotonicMs() - startedMs);
      span.set({ "hearth.worker": decision.workerId, "hearth.reason": decision.reason });
      return decision;
    });
  }

  /** A lease for a reservation that is counted already. */
  #lease(slot: KnownSlot, spec: FunctionSpec, cold: boolean): SlotLease {
    const { clock, ids } = this.#options;
    const leaseId = ids.uuid();
    const validMs = INIT_WAIT_MS_MAX + spec.timeoutMs + DEADLINE_GRACE_MS + LEASE_MS;
    this.#leases.set(leaseId, { slot, expiresAtMs: clock.monotonicMs() + validMs });
    this.#leaseOf.set(slot.slotId, leaseId);
    return { leaseId, slotId: slot.slotId, workerId: slot.workerId, validMs, cold };
  }

  #endLease(leaseId: string, lease: Lease): void {
    if (!this.#leases.delete(leaseId)) return;
    this.#leaseOf.delete(lease.slot.slotId);
    this.#count(lease.slot.functionArn, -1);
  }

  /** One more (1) or one less (-1) of the function's invocations has a lease, or waits for one. */
  #count(functionArn: string, change: 1 | -1): void {
    this.#runningTotal += change;
    this.#reserved.count(functionArn, change);
    const running = (this.#running.get(functionArn) ?? 0) + change;
    if (running > 0) this.#running.set(functionArn, running);
    else this.#running.delete(functionArn);
    if (change < 0) for (const listener of this.#onFreed) listener(functionArn);
  }

  /** Workers are the truth about slots: what they say has died is gone, leased or not. */
  #onSlot(info: SlotInfo): void {
    const pending = this.#pending.get(info.slotId);
    if (pending !== undefined) pending.state = info.state;
    else if (info.state === "Dead") this.#forget(info.slotId);
    else if (info.state === "Idle" && this.#starting.delete(info.slotId)) {
      const slot = this.#slots.get(info.slotId);
      if (slot !== undefined && !this.#leaseOf.has(slot.slotId)) this.#idled(slot);
    }
  }

  #forget(slotId: string): void {
    const slot = this.#slots.get(slotId);
    if (slot === undefined) return;
    this.#slots.delete(slotId);
    this.#starting.delete(slotId);
    this.#retired.delete(slotId);
    const stack = this.#stack(slot.functionKey);
    const index = stack.findIndex((idle) => idle.slotId === slotId);
    if (index !== -1) stack.splice(index, 1);
    if (stack.length === 0) this.#idle.delete(slot.functionKey);
  }

  #learn(info: SlotInfo): KnownSlot {
    const known = {
      slotId: info.slotId,
      workerId: info.workerId,
      functionKey: info.functionKey,
      functionArn: info.functionArn,
      version: info.version,
      revision: info.functionKey.slice(info.functionKey.lastIndexOf("@") + 1),
    };
    this.#slots.set(info.slotId, known);
    return known;
  }

  async #end(slot: KnownSlot, reason: string): Promise<void> {
    this.#forget(slot.slotId);
    await this.#workers.get(slot.workerId)?.endSlot(slot.slotId, reason);
  }

  #stack(key: string): KnownSlot[] {
    let stack = this.#idle.get(key);
    if (stack === undefined) {
      stack = [];
      this.#idle.set(key, stack);
    }
    return stack;
  }
}
