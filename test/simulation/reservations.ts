import type { Clock } from "../../src/lib/clock.ts";
import { ServiceError } from "../../src/wire/errors.ts";
import type { ThrottleReason } from "../../src/wire/errors.ts";
import { SCALING_ENVIRONMENTS, SLOT_WAIT_MS_MAX } from "../../src/wire/limits.ts";
import type { ReserveRequest, WorkerManagerApi } from "../../src/wire/roles.ts";

export interface ReservationLimits {
  readonly account: number;
  /** What functions have reserved, by name. */
  readonly reserved: ReadonlyMap<string, number>;
  /** Nothing but clocks goes wrong. */
  readonly isCalm: boolean;
}

/** What is held of one function, and how often it was asked for. */
interface Held {
  readonly functionName: string;
  now: number;
  asked: number;
}

/**
 * Keeps count of what a manager is asked for and has given, without knowing how it counts, and tells `broken` of each
 * refusal that no limit asked for. The count is never below the manager's own: a refused one is let go a little later here.
 */
export const watchReservations = (
  manager: WorkerManagerApi,
  clock: Clock,
  limits: ReservationLimits,
  broken: (what: string) => void,
): WorkerManagerApi => {
  const held = new Map<string, Held>();
  const byLease = new Map<string, Held>();
  const reservedTotal = [...limits.reserved.values()].reduce((sum, count) => sum + count, 0);

  const heldOf = ({ spec }: ReserveRequest): Held => {
    const known = held.get(spec.functionArn) ?? { functionName: spec.functionName, now: 0, asked: 0 };
    held.set(spec.functionArn, known);
    return known;
  };
  const sharedNow = (): number =>
    [...held.values()].reduce((sum, { functionName, now }) => sum + (limits.reserved.has(functionName) ? 0 : now), 0);

  /** Whether a limit is reached, with one that asks for one more among those held. */
  const isReached = (reason: ThrottleReason, of: Held): boolean => {
    switch (reason) {
      case "ReservedFunctionConcurrentInvocationLimitExceeded":
        return of.now > (limits.reserved.get(of.functionName) ?? Number.POSITIVE_INFINITY);
      case "ConcurrentInvocationLimitExceeded":
        return sharedNow() > limits.account - reservedTotal;
      case "FunctionInvocationRateLimitExceeded":
        return of.asked > SCALING_ENVIRONMENTS;
      // Hearth has no such limits.
      case "ReservedFunctionInvocationRateLimitExceeded":
      case "CallerRateLimitExceeded":
        return false;
    }
  };
  const judge = (error: unknown, of: Held, waitedMs: number): void => {
    if (!(error instanceof ServiceError)) return;
    if (error.status === 429) {
      const reason = error.members["Reason"] as ThrottleReason;
      if (!isReached(reason, of)) broken(`${of.functionName} is refused for ${reason}, which is not reached`);
    } else if (limits.isCalm && waitedMs < SLOT_WAIT_MS_MAX) {
      broken(`${of.functionName} is refused after ${waitedMs} ms though there is room: ${error.message}`);
    }
  };

  return {
    reserve: async (request) => {
      const of = heldOf(request);
      of.now += 1;
      of.asked += 1;
      const sinceMs = clock.monotonicMs();
      try {
        const lease = await manager.reserve(request);
        byLease.set(lease.leaseId, of);
        return lease;
      } catch (error) {
        judge(error, of, clock.monotonicMs() - sinceMs);
        of.now -= 1;
        throw error;
      }
    },
    release: (leaseId, outcome) => {
      const released = manager.release(leaseId, outcome);
      const of = byLease.get(leaseId);
      if (of !== undefined && byLease.delete(leaseId)) of.now -= 1;
      return released;
    },
    retire: (arn, except) => manager.retire(arn, except),
    concurrency: () => manager.concurrency(),
    onFreed: (listener) => manager.onFreed(listener),
  };
};
