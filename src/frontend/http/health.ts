import type { FastifyInstance } from "fastify";
import type { Clock } from "../../lib/clock.ts";
import type { Draining } from "./draining.ts";
import { READY_CHECK_MS } from "./limits.ts";

/*
 * For whoever watches over the process: no path of the Lambda API is like these, and they need no key, since a
 * supervisor or a load balancer has none.
 *   GET /health   200 as long as the process answers: when it does not, restart it.
 *   GET /ready    200 when it takes work, else 503 with the reasons: when it does not, send work elsewhere.
 */
export const HEALTH_PATH = "/health";
export const READY_PATH = "/ready";

/** Says in one word each why no work can be done: `store`, `worker`; none when it can. */
export type ReadinessCheck = () => Promise<readonly string[]>;

/** Looks once in a while however often it is asked: whoever asks needs no key. */
class Readiness {
  readonly #check: ReadinessCheck;
  readonly #clock: Clock;
  #reasons: Promise<readonly string[]> = Promise.resolve([]);
  #atMs = Number.NEGATIVE_INFINITY;

  constructor(check: ReadinessCheck, clock: Clock) {
    this.#check = check;
    this.#clock = clock;
  }

  reasons(): Promise<readonly string[]> {
    const nowMs = this.#clock.monotonicMs();
    if (nowMs - this.#atMs >= READY_CHECK_MS) {
      this.#atMs = nowMs;
      this.#reasons = this.#check();
    }
    return this.#reasons;
  }
}

/** Adds both paths. A drain makes /ready a 503 before anything else happens. */
export const addHealth = (app: FastifyInstance, clock: Clock, draining: Draining, check: ReadinessCheck): void => {
  const readiness = new Readiness(check, clock);
  app.get(HEALTH_PATH, { config: { open: true } }, async () => ({ status: "ok" }));
  app.get(READY_PATH, { config: { open: true } }, async (_request, reply) => {
    const reasons = draining.hasBegun ? ["stopping"] : await readiness.reasons();
    if (reasons.length === 0) return { ready: true };
    return reply.code(503).header("retry-after", "1").send({ ready: false, reasons });
  });
};
