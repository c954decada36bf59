import type { LoopClock } from "../lib/turn-meter.ts";
import { native, NativeError } from "./native.ts";

/** Cells of native/binding/loop.c. */
const ITERATION = 0;
const BEGAN_US = 1;
const LONGEST_US = 2;

export interface MeasuredLoop extends LoopClock {
  /** CPU time in ms of the longest iteration since this was last asked. */
  takeLongestMs(): number;
}

/**
 * Measures the loop of the calling thread from now on until that ends; once for a thread is enough. `onLong` is called
 * after each iteration that took more than `longMs` of CPU time, with its µs. Throws a `NativeError` without memory.
 */
export const startLoopClock = (
  longMs: number,
  monotonicMs: () => number,
  onLong: (spentUs: number) => void,
): MeasuredLoop => {
  const started = native().startLoopClock(longMs * 1000, onLong);
  if (typeof started === "number") throw new NativeError("Measure the loop", started);
  const cells = new Float64Array(started);
  return {
    cpuUs: () => native().threadCpuUs(),
    monotonicMs,
    get iteration() {
      return cells[ITERATION] ?? 0;
    },
    get iterationBeganUs() {
      return cells[BEGAN_US] ?? 0;
    },
    takeLongestMs: () => {
      const longestMs = (cells[LONGEST_US] ?? 0) / 1000;
      cells[LONGEST_US] = 0;
      return longestMs;
    },
  };
};
