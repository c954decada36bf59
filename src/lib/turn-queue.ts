import type { Clock } from "./clock.ts";

/** One piece of a longer job, a few ms of work at most. True when the job is done; what it throws ends the job. */
export type Step = () => boolean;

interface Job {
  readonly step: Step;
  readonly resolve: () => void;
  readonly reject: (error: unknown) => void;
}

/**
 * Long jobs on a loop that must not wait for them: one piece of one job in every turn, the jobs in rotation. Each job
 * yielding by itself is not enough, for the pieces of a hundred jobs that yield to the next turn are all done in it.
 */
export class TurnQueue {
  readonly #clock: Pick<Clock, "soon">;
  readonly #jobs: Job[] = [];

  constructor(clock: Pick<Clock, "soon">) {
    this.#clock = clock;
  }

  /** Resolves when the job is done; rejects with what its step threw. */
  run(step: Step): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#jobs.push({ step, resolve, reject });
      if (this.#jobs.length === 1) this.#clock.soon(() => this.#turn());
    });
  }

  #turn(): void {
    const job = this.#jobs[0];
    if (job === undefined) return;
    try {
      if (job.step()) {
        this.#jobs.shift();
        job.resolve();
      } else {
        this.#jobs.push(job);
        this.#jobs.shift();
      }
    } catch (error) {
      this.#jobs.shift();
      job.reject(error);
    }
    if (this.#jobs.length > 0) this.#clock.soon(() => this.#turn());
  }
}
