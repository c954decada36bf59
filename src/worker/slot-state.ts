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
  readonly #nowMs: () => number;
  readonly #changed: (state: SlotState) => void;
  #state: SlotState = "Init";
  #sinceMs: number;

  constructor(nowMs: () => number, changed: (state: SlotState) => void) {
    this.#nowMs = nowMs;
    this.#changed = changed;
    this.#sinceMs = nowMs();
  }

  get state(): SlotState {
    return this.#state;
  }

  /** Unix ms of the last change. */
  get sinceMs(): number {
    return this.#sinceMs;
  }

  /** Throws `SlotTransitionError` when there is no such step. Returns false when it was Dead already. */
  to(next: SlotState): boolean {
    if (this.#state === "Dead" && next === "Dead") return false;
    if (!TRANSITIONS[this.#state].includes(next)) {
      throw new SlotTransitionError(`a slot cannot go from ${this.#state} to ${next}`);
    }
    this.#state = next;
    this.#sinceMs = this.#nowMs();
    this.#changed(next);
    return true;
  }
}
