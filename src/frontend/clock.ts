import { setTimeout as sleep } from "node:timers/promises";

/** Time as the Frontend sees it; a parameter, so that tests need not wait. */
export interface Clock {
  /** Unix ms. */
  now(): number;
  /** Resolves after `ms`, or at once when `signal` is aborted. Never rejects. */
  sleep(ms: number, signal: AbortSignal): Promise<void>;
}

/** Longer waits than this overflow the timer; who sleeps looks again anyway. */
const SLEEP_MS_MAX = 2 ** 31 - 1;

export const systemClock: Clock = {
  now: () => Date.now(),
  sleep: async (ms, signal) => {
    try {
      await sleep(Math.min(Math.max(ms, 0), SLEEP_MS_MAX), undefined, { signal });
    } catch {
      // Aborted: waking early is what the signal is for.
    }
  },
};
