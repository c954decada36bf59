import type { Clock, Timer } from "../../src/lib/clock.ts";

/** The clock of one process: with the process end all calls that it was going to make. */
export class ProcessClock implements Clock {
  readonly #host: Clock;
  readonly #onFailure: (error: unknown) => void;
  readonly #timers: Set<Timer> = new Set();
  #isDead = false;

  /** `onFailure` is told of what a callback throws or rejects with. */
  constructor(host: Clock, onFailure: (error: unknown) => void) {
    this.#host = host;
    this.#onFailure = onFailure;
  }

  /** The process is killed: nothing that waits for this clock goes on. */
  kill(): void {
    this.#isDead = true;
    for (const timer of this.#timers) timer[Symbol.dispose]();
    this.#timers.clear();
  }

  get pending(): number {
    return this.#timers.size;
  }

  wallMs(): number {
    return this.#host.wallMs();
  }

  monotonicMs(): number {
    return this.#host.monotonicMs();
  }

  after(delayMs: number, callback: () => unknown): Timer {
    return this.#keep((done) =>
      this.#host.after(delayMs, () => {
        done();
        this.#call(callback);
      }),
    );
  }

  every(periodMs: number, callback: () => unknown): Timer {
    return this.#keep(() => this.#host.every(periodMs, () => this.#call(callback)));
  }

  soon(callback: () => unknown): Timer {
    return this.after(0, callback);
  }

  sleep(delayMs: number, signal?: AbortSignal): Promise<void> {
    if (signal?.aborted === true) return Promise.resolve();
    return new Promise((resolve) => {
      const end = (): void => {
        timer[Symbol.dispose]();
        signal?.removeEventListener("abort", end);
        if (!this.#isDead) resolve();
      };
      const timer = this.after(delayMs, end);
      signal?.addEventListener("abort", end);
    });
  }

  #keep(make: (done: () => void) => Timer): Timer {
    if (this.#isDead) return { [Symbol.dispose]: () => {} };
    const kept: Timer = {
      [Symbol.dispose]: () => {
        this.#timers.delete(kept);
        timer[Symbol.dispose]();
      },
    };
    const timer = make(() => this.#timers.delete(kept));
    this.#timers.add(kept);
    return kept;
  }

  #call(callback: () => unknown): void {
    if (this.#isDead) return;
    try {
      const result = callback();
      if (result instanceof Promise) result.catch(this.#onFailure);
    } catch (error) {
      this.#onFailure(error);
    }
  }
}
