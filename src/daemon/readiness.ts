import { open } from "node:fs/promises";
import { join } from "node:path";
import type { Clock } from "../lib/clock.ts";
import type { Logger } from "../telemetry/index.ts";
import type { WorkerReport } from "../wire/roles.ts";

/** An answer that takes longer is none. */
const ANSWER_MS_MAX = 2_000;
const PROBE_FILE = ".ready";

/** Writes and syncs a byte in the data directory: a full, failed or read-only disk shows here and nowhere sooner. */
const probeDisk = async (dataDir: string): Promise<void> => {
  await using file = await open(join(dataDir, PROBE_FILE), "w", 0o600);
  await file.write("1", 0);
  await file.datasync();
};

/** What readiness is read from. */
export interface ReadinessSource {
  readonly dataDir: string;
  readonly clock: Clock;
  readonly log: Logger;
  /** Reads the database. */
  readonly store: () => Promise<unknown>;
  readonly report: () => Promise<WorkerReport>;
}

/**
 * Why this Hearth cannot work now, a word each: `store` when the data directory cannot be written or the database does
 * not answer; `worker` when no slot could be made and none is idle. Each change is logged with its cause.
 */
export const readinessOf = ({ dataDir, clock, log, store, report }: ReadinessSource): (() => Promise<string[]>) => {
  const failing = new Set<string>();
  const holds = async (name: string, check: () => Promise<void>): Promise<boolean> => {
    const over = new AbortController();
    const late = clock.sleep(ANSWER_MS_MAX, over.signal).then(() => {
      throw new Error(`no answer within ${ANSWER_MS_MAX} ms`);
    });
    late.catch(() => undefined);
    try {
      await Promise.race([check(), late]);
      if (failing.delete(name)) log.info({ part: name }, "this Hearth can work again");
      return true;
    } catch (error) {
      if (!failing.has(name)) log.error({ err: error, part: name }, "this Hearth is not ready");
      failing.add(name);
      return false;
    } finally {
      over.abort();
    }
  };
  const checkStore = async (): Promise<void> => {
    await Promise.all([probeDisk(dataDir), store()]);
  };
  const checkWorker = async (): Promise<void> => {
    const { slots, slotsMax, busy, draining } = await report();
    if (draining) throw new Error("the worker takes no new slots");
    if (slots >= slotsMax && busy >= slots) throw new Error(`all of its ${slotsMax} slots are busy`);
  };
  return async () => {
    const found = await Promise.all([holds("store", checkStore), holds("worker", checkWorker)]);
    return ["store", "worker"].filter((_, index) => found[index] === false);
  };
};
