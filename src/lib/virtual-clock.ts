import type { Clock, OnFailure, Timer } from "./clock.ts";
import type { Random } from "./random.ts";

interface Due {
  readonly atMs: number;
  /** Decides between calls that are due at the same moment. */
  readonly rank: number;
  readonly callback: () => unknown;
}

export interface VirtualClockOptions {
  /** Unix ms at the start. */
  readonly wallMs?: number;
  /** Draws the order of calls that are due at the same moment; without it they come in the order they were made in. */
  readonly random?: Random;
  /** Told of what a callback throws or rejects with; without it `runUntil` rejects with the first such error. */
  readonly onFailure?: OnFailure;
  /** `soon` means the host's next turn, as with real input and output beside a time that stands; false without it. */
  readonly realTurns?: boolean;
}

/** Turns of the real loop after each call: what promises settle in a chain of awaits is settled before time goes on. */
const settle = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

/**
 * A clock that only moves when it is told to, and then straight to the next call that is due: an hour passes in
 * microseconds, and with the same seed in the same order. Between two calls all promises that can settle do. Real input
 * and output has no place in such a run: the clock would not wait for it.
 */
export class VirtualClock implements Clock {
  readonly #random: Random | null;
  readonly #onFailure: OnFailure;
  readonly #realTurns: boolean;
  readonly #due: Set<Due> = new Set();
  #nowMs = 0;
  #wallOffsetMs: number;
  #made = 0;
  #failure: { readonly error: unknown } | null = null;

  constructor(options: VirtualClockOptions = {}) {
    this.#wallOffsetMs = options.wallMs ?? Date.UTC(2026, 0, 1);
    this.#random = options.random ?? null;
    this.#realTurns = options.realTurns ?? false;
    this.#onFailure = options.onFailure ?? ((error) => (this.#failure ??= { error }));
  }

  wallMs(): number {
    return this.#wallOffsetMs + Math.floor(this.#nowMs);
  }

  monotonicMs(): number {
    return this.#nowMs;
  }

  /** Sets the wall clock forward (or, below 0, back), as an operator or NTP does. The monotonic clock does not notice. */
  stepWall(byMs: number): void {
    this.#wallOffsetMs += byMs;
  }

  after(delayMs: number, callback: () => unknown): Timer {
    const rank = this.#random === null ? this.#made : this.#random();
    this.#made += 1;
    const due: Due = { atMs: this.#nowMs + Math.max(0, delayMs), rank, callback };
    this.#due.add(due);
    return { [Symbol.dispose]: () => void this.#due.delete(due) };
  }

  every(periodMs: number, callback: () => unknown): Timer {
    let timer = this.after(periodMs, () => again());
    let ended = false;
    const again = (): unknown => {
      if (!ended) timer = this.after(periodMs, again);
      return callback();
    };
    return {
      [Symbol.dispose]: () => {
        ended = true;
        timer[Symbol.dispose]();
      },
    };
  }

  soon(callback: () => unknown): Timer {
    if (!this.#realTurns) return this.after(0, callback);
    const immediate = setImmediate(() => this.#call(callback));
    return { [Symbol.dispose]: () => clearImmediate(immediate) };
  }

  sleep(delayMs: number, signal?: AbortSignal): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    if (signal?.aborted === true) return Promise.resolve();
    const end = (): void => {
      timer[Symbol.dispose]();
      signal?.removeEventListener("abort", end);
      resolve();
    };
    const timer = this.after(delayMs, end);
    signal?.addEventListener("abort", end);
    return promise;
  }

  /** Time goes on while nothing is called, as in a turn of the loop that takes `ms`: what is due meanwhile comes late. */
  pass(ms: number): void {
    this.#nowMs += ms;
  }

  /** How many calls are going to be made. */
  get pending(): number {
    return this.#due.size;
  }

  /** Lets `ms` pass, with all that is due in it. Rejects with what a callback threw. */
  async advance(ms: number): Promise<void> {
    const endMs = this.#nowMs + ms;
    await this.runUntil(() => false, endMs);
    this.#nowMs = Math.max(this.#nowMs, endMs);
    await settle();
  }

  /**
   * Makes the calls that are due, in their order, until `done` says so, nothing is due any more, or the next one lies
   * after `endMs` on the monotonic clock. Returns what `done` says at the end. Rejects with what a callback threw.
   */
  async runUntil(done: () => boolean, endMs: number = Number.POSITIVE_INFINITY): Promise<boolean> {
    for (;;) {
      await settle();
      if (this.#failure !== null) throw this.#failure.error;
      if (done()) return true;
      const next = this.#next();
      if (next === null || next.atMs > endMs) return done();
      this.#due.delete(next);
      this.#nowMs = Math.max(this.#nowMs, next.atMs);
      this.#call(next.callback);
    }
  }

  #next(): Due | null {
    let first: Due | null = null;
    for (const due of this.#due) {
      if (first === null || due.atMs < first.atMs || (due.atMs === first.atMs && due.rank < first.rank)) first = due;
    }
    return first;
  }

  #call(callback: () => unknown): void {
    try {
      const result = callback();
      if (result instanceof Promise) result.catch(this.#onFailure);
    } catch (error) {
      this.#onFailure(error);
    }
  }
}
