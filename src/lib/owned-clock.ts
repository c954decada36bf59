import type { Clock } from "./clock.ts";

/**
 * The same clock for one owner: `run` makes every callback's call, so it can measure what that takes and give whatever
 * comes out of it (an error, a promise) to the owner. What `run` throws or returns goes on to the clock.
 */
export const ownedClock = (clock: Clock, run: (callback: () => unknown) => unknown): Clock => ({
  wallMs: () => clock.wallMs(),
  monotonicMs: () => clock.monotonicMs(),
  after: (delayMs, callback) => clock.after(delayMs, () => run(callback)),
  every: (periodMs, callback) => clock.every(periodMs, () => run(callback)),
  soon: (callback) => clock.soon(() => run(callback)),
  sleep: (delayMs, signal) => clock.sleep(delayMs, signal),
});
