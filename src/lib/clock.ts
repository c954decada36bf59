/**
 * Time is a parameter. A role that reads the host's clock by itself cannot be simulated, and it mixes up two things that
 * the host keeps apart: the wall clock, which people and other machines understand and which may be set at any moment in
 * either direction, and the monotonic clock, which means nothing to anybody else and never goes back. An age, a lease or
 * a deadline that is reckoned with the wall clock ends at once, or never, when somebody sets it. So every role gets a
 * `Clock`, and says with each reading which of the two it means.
 */
import { setTimeout as sleepFor } from "node:timers/promises";

/** A call that is going to be made, until it is disposed of. Disposing it twice, or after the call, does nothing. */
export type Timer = Disposable;

export interface Clock {
  /** Unix ms: for what is stored, shown or sent to others. It may step in either direction. */
  wallMs(): number;
  /** ms since some moment before this process's first reading; never less than before. For ages, leases, timeouts, durations. */
  monotonicMs(): number;
  /**
   * Calls `callback` once after `delayMs` (at once when that is not above 0). What it throws, or the promise that it
   * returns rejects with, goes to the clock's `onFailure`. The timer alone does not keep the process alive.
   */
  after(delayMs: number, callback: () => unknown): Timer;
  /** Calls `callback` every `periodMs`, the first time after one period; otherwise as `after`. */
  every(periodMs: number, callback: () => unknown): Timer;
  /** Calls `callback` in the next turn of the loop, behind input and output that is due already; otherwise as `after`. */
  soon(callback: () => unknown): Timer;
  /** Resolves after `delayMs`, or at once when `signal` is aborted. Never rejects. It keeps the process alive. */
  sleep(delayMs: number, signal?: AbortSignal): Promise<void>;
}

/** A longer delay than this overflows the host's timers (2^31 - 1 ms, 24.8 days). */
const DELAY_MS_MAX = 2 ** 31 - 1;

const delayOf = (delayMs: number): number => Math.min(Math.max(delayMs, 0), DELAY_MS_MAX);

/** Told of what a callback threw: no failure of a timer ends the process. */
export type OnFailure = (error: unknown) => void;

const throwOn: OnFailure = (error) => {
  throw error;
};

/** The host's clocks. Without `onFailure` what a callback throws is an uncaught exception: right for tests and commands. */
export const createSystemClock = (onFailure: OnFailure = throwOn): Clock => {
  const call = (callback: () => unknown): void => {
    try {
      const result = callback();
      if (result instanceof Promise) result.catch(onFailure);
    } catch (error) {
      onFailure(error);
    }
  };
  return {
    wallMs: () => Date.now(),
    monotonicMs: () => performance.now(),
    after: (delayMs, callback) => {
      const timer = setTimeout(() => call(callback), delayOf(delayMs));
      timer.unref();
      return { [Symbol.dispose]: () => clearTimeout(timer) };
    },
    every: (periodMs, callback) => {
      const timer = setInterval(() => call(callback), delayOf(periodMs));
      timer.unref();
      return { [Symbol.dispose]: () => clearInterval(timer) };
    },
    soon: (callback) => {
      const immediate = setImmediate(() => call(callback));
      return { [Symbol.dispose]: () => clearImmediate(immediate) };
    },
    sleep: async (delayMs, signal) => {
      try {
        await sleepFor(delayOf(delayMs), undefined, signal === undefined ? {} : { signal });
      } catch {
        // Aborted: waking early is what the signal is for.
      }
    },
  };
};

export const systemClock: Clock = createSystemClock();

/** Resolves in the next turn of the loop: lets input, output and other work that is due come in between. */
export const nextTurn = (clock: Clock): Promise<void> => new Promise((resolve) => void clock.soon(resolve));
