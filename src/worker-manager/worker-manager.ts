import type { Clock } from "../lib/clock.ts";
import type { Ids } from "../lib/ids.ts";
import type { Metrics } from "../telemetry/metrics.ts";
import { traced } from "../telemetry/tracing.ts";
import type { Tracer } from "../telemetry/tracing.ts";
import { ServiceError, serviceFailure, throttled } from "../wire/errors.ts";
import type { ThrottleReason } from "../wire/errors.ts";
import { functionKey } from "../wire/function.ts";
import type { FunctionSpec } from "../wire/function.ts";
import { DEADLINE_GRACE_MS, INIT_TIMEOUT_MS, LEASE_MS } from "../wire/limits.ts";
import type {
  PlacementApi,
  PlacementDecision,
  ReleaseOutcome,
  ReserveRequest,
  SlotLease,
  WorkerManagerApi,
  WorkerSlotApi,
} from "../wire/roles.ts";
import type { SlotInfo } from "../wire/slot.ts";
import type { TraceContext } from "../wire/trace.ts";
import { ReservedConcurrency } from "./reserved-concurrency.ts";
import { ScalingRate } from "./scaling-rate.ts";

export interface WorkerManagerOptions {
  readonly placement: PlacementApi;
  readonly metrics: Pick<Metrics, "reserve" | "placement" | "throttled">;
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
      if (slot.state === "Idle") this.#stack(known.functionKey).push(known);
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
    else this.#stack(slot.functionKey).push(slot);
  }

  async retire(functionArn: string, exceptRevision: string | null): Promise<void> {
    const outdated = [...this.#slots.values()].filter(
      (slot) =>
        slot.functionArn === functionArn &&
        (exceptRevision === null || (slot.version === "$LATEST" && slot.revision !== exceptRevision)),
    );
    const busy = outdated.filter((slot) => this.#leaseOf.has(slot.slotId));
    for (const slot of busy) this.#retired.add(slot.slotId);
    const idle = outdated.filter((slot) => !this.#leaseOf.has(slot.slotId));
    await Promise.all(idle.map((slot) => this.#end(slot, "retired")));
  }

  onFreed(listener: (functionArn: string) => void): () => void {
    this.#onFreed.add(listener);
    return () => void this.#onFreed.delete(listener);
  }

  concurrency(): Promise<{ readonly account: number; readonly byFunction: Readonly<Record<string, number>> }> {
    return Promise.resolve({ account: this.#leases.size, byFunction: Object.fromEntries(this.#running) });
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
    if (warm !== undefined) return this.#lease(warm, spec, false);
    return this.#grow(spec, request.trace);
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
    if (this.#leases.size - this.#reserved.running >= shared) throw throttled("ConcurrentInvocationLimitExceeded");
  }

  async #grow(spec: FunctionSpec, trace: TraceContext | null): Promise<SlotLease> {
    const { clock, ids } = this.#options;
    const nowMs = clock.monotonicMs();
    const rate = this.#rates.get(spec.functionArn) ?? new ScalingRate(nowMs);
    this.#rates.set(spec.functionArn, rate);
    if (!rate.take(nowMs)) throw throttled("FunctionInvocationRateLimitExceeded");
    const key = functionKey(spec);
    const slot: KnownSlot = {
      slotId: ids.uuid().replaceAll("-", ""),
      workerId: "",
      functionKey: key,
      functionArn: spec.functionArn,
      version: spec.version,
      revision: spec.revision,
    };
    // The lease counts from here, before anything is awaited: two reservations never see the same room.
    const lease = this.#lease(slot, spec, true);
    const expiresAtMs = nowMs + lease.validMs;
    try {
      const { workerId, leaseId: placementLeaseId } = await this.#place(spec, trace);
      const worker = this.#workers.get(workerId);
      if (worker === undefined) throw serviceFailure(`Placement chose worker ${workerId}, which is not known`);
      const placed = { ...slot, workerId };
      this.#slots.set(slot.slotId, placed);
      this.#leases.set(lease.leaseId, { slot: placed, expiresAtMs });
      try {
        await worker.createSlot({ slotId: slot.slotId, spec, placementLeaseId, trace });
      } catch (error) {
        await this.#options.placement.cancel(placementLeaseId);
        throw error;
      }
      return { ...lease, workerId };
    } catch (error) {
      this.#slots.delete(slot.slotId);
      this.#endLease(lease.leaseId, { slot, expiresAtMs });
      throw error;
    }
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

  #lease(slot: KnownSlot, spec: FunctionSpec, cold: boolean): SlotLease {
    const { clock, ids } = this.#options;
    const leaseId = ids.uuid();
    const validMs = INIT_TIMEOUT_MS + spec.timeoutMs + DEADLINE_GRACE_MS + LEASE_MS;
    this.#leases.set(leaseId, { slot, expiresAtMs: clock.monotonicMs() + validMs });
    this.#leaseOf.set(slot.slotId, leaseId);
    this.#running.set(slot.functionArn, (this.#running.get(slot.functionArn) ?? 0) + 1);
    this.#reserved.count(slot.functionArn, 1);
    return { leaseId, slotId: slot.slotId, workerId: slot.workerId, validMs, cold };
  }

  #endLease(leaseId: string, lease: Lease): void {
    if (!this.#leases.delete(leaseId)) return;
    this.#leaseOf.delete(lease.slot.slotId);
    this.#reserved.count(lease.slot.functionArn, -1);
    const running = (this.#running.get(lease.slot.functionArn) ?? 1) - 1;
    if (running > 0) this.#running.set(lease.slot.functionArn, running);
    else this.#running.delete(lease.slot.functionArn);
    for (const listener of this.#onFreed) listener(lease.slot.functionArn);
  }

  /** Workers are the truth about slots: what they say has died is gone, leased or not. */
  #onSlot(info: SlotInfo): void {
    if (info.state === "Dead") this.#forget(info.slotId);
  }

  #forget(slotId: string): void {
    const slot = this.#slots.get(slotId);
    if (slot === undefined) return;
    this.#slots.delete(slotId);
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
