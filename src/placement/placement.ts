import type { Clock } from "../lib/clock.ts";
import type { Ids } from "../lib/ids.ts";
import type { Random } from "../lib/random.ts";
import { unavailable } from "../wire/exhaustion.ts";
import { functionGroup } from "../wire/function.ts";
import { LEASE_MS, PLACEMENT_CANDIDATES } from "../wire/limits.ts";
import type { PlacementApi, PlacementDecision, PlacementRequest, WorkerReport } from "../wire/roles.ts";
import { decide } from "./decide.ts";
import type { Choice, Wanted } from "./decide.ts";
import { Demand } from "./demand.ts";
import { Fleet } from "./fleet.ts";

/** What Placement stands on. */
export interface PlacementOptions {
  readonly clock: Clock;
  readonly ids: Ids;
  /** Draws the workers that are compared. */
  readonly random: Random;
}

/**
 * Chooses workers for new slots. It compares a few workers drawn at random: the best of k is nearly the best of all,
 * costs the same in every fleet, and several Placements with the same old reports do not all fall upon one worker.
 */
export class Placement implements PlacementApi {
  readonly #clock: Clock;
  readonly #ids: Ids;
  readonly #random: Random;
  readonly #fleet: Fleet = new Fleet();
  readonly #demand: Demand = new Demand();

  constructor({ clock, ids, random }: PlacementOptions) {
    this.#clock = clock;
    this.#ids = ids;
    this.#random = random;
  }

  /** A worker's heartbeat. */
  heartbeat(report: WorkerReport): void {
    this.#fleet.report(report);
  }

  forget(workerId: string): void {
    this.#fleet.forget(workerId);
  }

  place(request: PlacementRequest): Promise<PlacementDecision> {
    const nowMs = this.#clock.monotonicMs();
    this.#fleet.expire(nowMs);
    const group = functionGroup(request.functionArn);
    this.#demand.note(group, nowMs);
    const choice = this.#choose({
      memoryMb: request.memoryMb,
      group,
      groupSlots: this.#fleet.groupSlots(group),
      correlations: this.#demand.correlations(group, nowMs),
    });
    if (choice.workerId === null)
      throw unavailable(`No worker can take the function now: ${choice.reason}. Try again later.`);
    const { workerId, reason } = choice;
    const leaseId = this.#ids.uuid();
    this.#fleet.promise({
      leaseId,
      workerId,
      group,
      memoryMb: request.memoryMb,
      expiresAtMs: nowMs + LEASE_MS,
    });
    return Promise.resolve({ workerId, reason, leaseId });
  }

  cancel(leaseId: string): Promise<void> {
    this.#fleet.cancel(leaseId);
    return Promise.resolve();
  }

  /** The best of some; when none of them is any good, the best of all. */
  #choose(wanted: Wanted): Choice {
    const choice = decide(this.#fleet.sample(PLACEMENT_CANDIDATES, this.#random), wanted);
    const good = choice.workerId !== null && choice.fullness <= 1;
    return good || this.#fleet.size <= PLACEMENT_CANDIDATES ? choice : decide(this.#fleet.workers, wanted);
  }
}
