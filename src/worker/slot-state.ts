import type { Clock } from "../lib/clock.ts";
import type { SlotState } from "../wire/slot.ts";

/** Where a slot may go from each state. Dead is never left. */
const TRANSITIONS: Readonly<Record<SlotState, readonly SlotState[]>> = {
  Init: ["Idle", "Dead"],
  Idle: ["Busy", "Dead"],
  Busy: ["Idle", "Dead"],
  Dead: [],
};

/** A transition that the table does not have: a mistake of ours, never of a guest. */
export class SlotTransitionError extends Error {
  override readonly name = "SlotTransitionError";
}

/**
 * The life of one slot: Init → Idle ⇄ Busy → Dead. Tells `changed` of every step; going to Dead twice is
 * allowed and does nothing the second time, since many causes end a slot and the first one wins.
 */
export class SlotStateMachine {
  readonly #clock: Clock;
  readonly #changed: (state: SlotState) => void;
  #state: SlotState = "Init";
  #sinceMs: number;
  #sinceWallMs: number;

  constructor(clock: Clock, changed: (state: SlotState) => void) {
    this.#clock = clock;
    this.#changed = changed;
    this.#sinceMs = clock.monotonicMs();
    this.#sinceWallMs = clock.wallMs();
  }

  get state(): SlotState {
    return this.#state;
  }

  /** When it changed last, on the monotonic clock. */
  get sinceMs(): number {
    return this.#sinceMs;
  }

  /** When it changed last, in Unix ms: to be shown. */
  get sinceWallMs(): number {
    return this.#sinceWallMs;
  }

  /** Throws `SlotTransitionError` when there is no such step. Returns false when it was Dead already. */
  to(next: SlotState): boolean {
    if (this.#state === "Dead" && next === "Dead") return false;
    if (!TRANSITIONS[this.#state].includes(next)) {
      throw new SlotTransitionError(`a slot cannot go from ${this.#state} to ${next}`);
    }
    this.#state = next;
    this.#sinceMs = this.#clock.monotonicMs();
    this.#sinceWallMs = this.#clock.wallMs();
    this.#changed(next);
    return true;
  }
}
