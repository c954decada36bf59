import type { Clock } from "../../lib/clock.ts";
import type { EventStore } from "../../store/store.ts";

/** A difference below this is the drift of the two clocks, or a correction too small to matter to what is queued. */
const STEP_MS_MIN = 2_000;

/**
 * The time that the queue's events are kept by. When an event is due is written down, and a wall clock that is set back
 * an hour would make it wait for an hour, one that is set forward would end its claim or make it too old. So
 * events have a time of their own: Unix time as it was when the first process looked, carried on by the monotonic clock,
 * which does not notice. What the wall clock was set by since (`offset`) is kept beside the events, so that the next
 * process carries on where this one ended.
 */
export class EventTime {
  readonly #clock: Clock;
  readonly #store: Pick<EventStore, "eventOffsetMs" | "keepEventOffset">;
  #opened: Promise<void> | null = null;
  /** Event time at 0 of the monotonic clock. */
  #originMs = 0;
  /** The wall clock minus event time, as it is kept. */
  #offsetMs = 0;

  constructor(clock: Clock, store: Pick<EventStore, "eventOffsetMs" | "keepEventOffset">) {
    this.#clock = clock;
    this.#store = store;
  }

  /** To be called before the first look. Rejects when the store cannot be read; the next call tries again. */
  async open(): Promise<void> {
    this.#opened ??= this.#open();
    try {
      await this.#opened;
    } catch (error) {
      this.#opened = null;
      throw error;
    }
  }

  /** The moment now, in whole ms, once it is open. */
  now(): number {
    return Math.floor(this.#originMs + this.#clock.monotonicMs());
  }

  /** Keeps by how much the wall clock was set, when it was. Rejects when the store does not take it. */
  async keepStep(): Promise<void> {
    const offsetMs = this.#clock.wallMs() - this.now();
    if (Math.abs(offsetMs - this.#offsetMs) < STEP_MS_MIN) return;
    await this.#store.keepEventOffset(offsetMs);
    this.#offsetMs = offsetMs;
  }

  async #open(): Promise<void> {
    this.#offsetMs = await this.#store.eventOffsetMs();
    this.#originMs = this.#clock.wallMs() - this.#offsetMs - this.#clock.monotonicMs();
  }
}
