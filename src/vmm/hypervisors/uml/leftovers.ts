import type { Clock, Timer } from "../../../lib/clock.ts";
import { LEFTOVERS_RETRY_MS } from "../../limits.ts";

/**
 * What an ended microVM has left on the host because it could not be removed at the moment: a directory for want of a
 * descriptor, a control group whose last process lingers. It is tried again until it works; what is left when this
 * process ends is the next one's to clear away (`cleanStale`).
 */
export class Leftovers {
  readonly #clock: Clock;
  readonly #onLeft: (error: unknown) => void;
  #removals: (() => boolean)[] = [];
  #timer: Timer | null = null;

  /** `onLeft` is told of the first failure of each. */
  constructor(clock: Clock, onLeft: (error: unknown) => void) {
    this.#clock = clock;
    this.#onLeft = onLeft;
  }

  /** Removes something, now or later. `remove` returns false, or throws, when it is still there. Never throws. */
  remove(what: string, remove: () => boolean): void {
    try {
      if (remove()) return;
      this.#onLeft(new Error(`${what} could not be removed yet`));
    } catch (cause) {
      this.#onLeft(new Error(`${what} could not be removed yet`, { cause }));
    }
    this.#removals.push(remove);
    this.#timer ??= this.#clock.every(LEFTOVERS_RETRY_MS, () => this.tryAgain());
  }

  /** How many things are left. */
  get count(): number {
    return this.#removals.length;
  }

  tryAgain(): void {
    this.#removals = this.#removals.filter((remove) => {
      try {
        return !remove();
      } catch {
        return true;
      }
    });
    if (this.#removals.length > 0) return;
    this.#timer?.[Symbol.dispose]();
    this.#timer = null;
  }
}
