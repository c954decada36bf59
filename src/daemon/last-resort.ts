import type { Logger, Metrics, Unowned } from "../telemetry/index.ts";

/**
 * The end of every failure that has no other: a timer's callback, an exception that came through a callback of Node's, a
 * promise that nobody awaits. Each of them is a mistake in this code, to be mended so that it ends the one request or
 * microVM that it is about. Until then the process goes on: what else runs in it belongs to others, who would all be cut
 * off for one failed piece of work, and whoever can cause the failure once could do so after every restart. It is said
 * in the log with its stack, and counted (`hearth_unowned_failures_total`): worth an alert.
 */
export class LastResort implements Disposable {
  readonly #log: Logger;
  readonly #metrics: Pick<Metrics, "unowned">;
  readonly #onException = (error: unknown): void => this.take("exception", error);
  readonly #onPromise = (error: unknown): void => this.take("promise", error);

  constructor(log: Logger, metrics: Pick<Metrics, "unowned">) {
    this.#log = log;
    this.#metrics = metrics;
    process.on("uncaughtException", this.#onException);
    process.on("unhandledRejection", this.#onPromise);
  }

  take(where: Unowned, error: unknown): void {
    this.#metrics.unowned(where);
    try {
      this.#log.error({ err: error, where }, "a failure had no owner: the service goes on, but this should not be");
    } catch {
      // It cannot be shown (a getter of it throws, say). It is counted, and nothing stands below this.
    }
  }

  [Symbol.dispose](): void {
    process.off("uncaughtException", this.#onException);
    process.off("unhandledRejection", this.#onPromise);
  }
}
