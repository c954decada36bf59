import type { Clock, Timer } from "../../src/lib/clock.ts";

interface Job {
  leftMs: number;
  readonly done: () => void;
}

/** A rest of work below this is the error of the sums, not work. */
const EPSILON_MS = 1e-6;

/** CPUs that all work on the host shares: with more jobs than CPUs each of them takes as much longer. */
export class SharedCpu {
  readonly #clock: Clock;
  readonly #cpus: number;
  readonly #jobs: Set<Job> = new Set();
  #sinceMs: number;
  #timer: Timer | null = null;

  constructor(clock: Clock, cpus: number) {
    this.#clock = clock;
    this.#cpus = cpus;
    this.#sinceMs = clock.monotonicMs();
  }

  /** Calls `done` after `workMs` of one CPU's time. Disposing it gives the work up. */
  run(workMs: number, done: () => void): Disposable {
    this.#advance();
    const job: Job = { leftMs: workMs, done };
    this.#jobs.add(job);
    this.#wait();
    return {
      [Symbol.dispose]: () => {
        this.#advance();
        this.#jobs.delete(job);
        this.#wait();
      },
    };
  }

  get #rate(): number {
    return Math.min(1, this.#cpus / Math.max(1, this.#jobs.size));
  }

  #advance(): void {
    const nowMs = this.#clock.monotonicMs();
    const workedMs = (nowMs - this.#sinceMs) * this.#rate;
    this.#sinceMs = nowMs;
    for (const job of this.#jobs) job.leftMs -= workedMs;
  }

  #wait(): void {
    this.#timer?.[Symbol.dispose]();
    this.#timer = null;
    if (this.#jobs.size === 0) return;
    const leastMs = Math.min(...[...this.#jobs].map(({ leftMs }) => leftMs));
    this.#timer = this.#clock.after(Math.max(0, leastMs) / this.#rate, () => this.#finish());
  }

  #finish(): void {
    this.#advance();
    const finished = [...this.#jobs].filter(({ leftMs }) => leftMs <= EPSILON_MS);
    for (const job of finished) this.#jobs.delete(job);
    this.#wait();
    for (const { done } of finished) done();
  }
}
