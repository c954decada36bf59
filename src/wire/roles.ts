import type { FunctionSpec } from "./function.ts";
import type { InvocationRequest, InvocationResult, InvocationStream } from "./invocation.ts";
import type { SlotInfo } from "./slot.ts";
import type { TraceContext } from "./trace.ts";

/*
 * What the roles ask of each other. In one process these are called directly; between machines the same
 * calls travel over HTTP. So every argument and result is plain data (and, where it says so, a stream).
 */

/**
 * Proof that a slot is ours for a while; whoever holds it may invoke. How long is told as a duration, because the clocks
 * of two machines have nothing in common: who gives it, who holds it and who obeys it each reckon by their own.
 */
export interface SlotLease {
  readonly leaseId: string;
  readonly slotId: string;
  readonly workerId: string;
  /** How long it lasts from here on. Its holder takes off what has passed before it hands the lease on. */
  readonly validMs: number;
  /** True when the slot was made for this reservation (its first invocation pays for init). */
  readonly cold: boolean;
}

export interface ReserveRequest {
  readonly spec: FunctionSpec;
  readonly requestId: string;
  /** Reserved concurrency of the function; null when it draws from the account's unreserved pool. */
  readonly reservedConcurrency: number | null;
  readonly trace: TraceContext | null;
}

/** How an invocation left its slot. `starting`: it did not begin, because the slot's init takes longer than it could wait. */
export type ReleaseOutcome = "reusable" | "broken" | "starting";

export interface WorkerManagerApi {
  /**
   * A warm idle slot of the same function version, else the first that is free: one that is given back, or a new one once
   * its start begins. The lease lasts as long as the invocation may, with its init. Throws `ServiceError`
   * TooManyRequestsException with its Reason when concurrency or the scaling rate is used up, and
   * ServiceUnavailableException when no slot was free within SLOT_WAIT_MS_MAX.
   */
  reserve(request: ReserveRequest): Promise<SlotLease>;
  release(leaseId: string, outcome: ReleaseOutcome): Promise<void>;
  /**
   * Ends slots of a function, the idle ones at once and the busy ones at their release: those of $LATEST that are not of
   * `exceptRevision`, or with null those of every version.
   */
  retire(functionArn: string, exceptRevision: string | null): Promise<void>;
  /**
   * Called when an invocation of a function (by ARN) has given its concurrency back, from within the call that did; it must
   * not throw. Returns how to stop listening.
   */
  onFreed(listener: (functionArn: string) => void): () => void;
  /** Concurrent executions now, for the account and by function ARN. */
  concurrency(): Promise<{ readonly account: number; readonly byFunction: Readonly<Record<string, number>> }>;
}

export interface PlacementRequest {
  readonly functionArn: string;
  readonly memoryMb: number;
}

export interface PlacementDecision {
  readonly workerId: string;
  /** Why this worker, for logs and traces. */
  readonly reason: string;
  readonly leaseId: string;
}

export interface PlacementApi {
  place(request: PlacementRequest): Promise<PlacementDecision>;
  /** Gives back a lease that was not used. */
  cancel(leaseId: string): Promise<void>;
}

/** What a worker says of itself with every heartbeat. */
export interface WorkerReport {
  readonly workerId: string;
  /** Unix ms on the worker, to be shown. */
  readonly atMs: number;
  /** Placement's leases of the slots that it has taken within the last LEASE_MS: these slots are in this report. */
  readonly placementLeases: readonly string[];
  readonly cpus: number;
  readonly memoryBytesTotal: number;
  readonly memoryBytesAvailable: number;
  /** What its pool and idle slots take, as measured: it ends them where the available does not do. */
  readonly memoryBytesIdle: number;
  /** Nominal memory of its slots, in MB. */
  readonly memoryMbCommitted: number;
  readonly slots: number;
  readonly slotsMax: number;
  readonly busy: number;
  /** Slots by group of functions (`functionGroup`), FUNCTION_GROUPS of them: who is here, in a bounded report. */
  readonly groups: readonly number[];
  /** Share of the host's CPU time in use lately, 0 to 1. */
  readonly cpuShare: number;
  /** Share of the host's network in use lately, 0 to 1; 0 when it is not known. */
  readonly networkShare: number;
  readonly storageBytesTotal: number;
  readonly storageBytesAvailable: number;
  readonly draining: boolean;
}

/** The worker's side of the invoke path, as the Frontend sees it. */
export interface WorkerInvokeApi {
  /**
   * Runs one invocation in a leased slot. Throws `ServiceError` when the platform failed; a function's own failure is a result.
   */
  invoke(lease: SlotLease, request: InvocationRequest): Promise<InvocationResult>;
  invokeStreaming(lease: SlotLease, request: InvocationRequest): Promise<InvocationStream>;
}

/** The worker's side of slot keeping, as the Worker Manager sees it. */
export interface WorkerSlotApi {
  readonly workerId: string;
  /**
   * Makes a slot. Starts take turns: this returns when this one's has come; the start runs on, and the first invoke waits
   * for it. Throws `ServiceError` SlotGoneException when it was taken back meanwhile.
   */
  createSlot(request: {
    readonly slotId: string;
    readonly spec: FunctionSpec;
    readonly placementLeaseId: string;
    readonly trace: TraceContext | null;
  }): Promise<SlotInfo>;
  /** Takes a `createSlot` back that still waits for its turn. Does nothing when its start has begun. */
  withdrawSlot(slotId: string): Promise<void>;
  endSlot(slotId: string, reason: string): Promise<void>;
  listSlots(): Promise<readonly SlotInfo[]>;
  report(): Promise<WorkerReport>;
  /** Called on every change of a slot's state. Returns how to stop listening. */
  onSlot(listener: (slot: SlotInfo) => void): () => void;
}

export type WorkerApi = WorkerInvokeApi & WorkerSlotApi;
