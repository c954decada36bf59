import { LOOP_NICE, LOOP_SLICE_NS } from "../limits.ts";
import { native, NativeError } from "../native.ts";

/**
 * Puts the calling thread before the host's other work, guests among it: it serves the devices of every guest, so whoever
 * can keep it from a CPU holds all of them up. It is woken for moments, and its own turns are bounded. What it starts (guests,
 * tools, further threads) has the usual priority again (SCHED_RESET_ON_FORK of sched(7)). Returns why it could not be
 * done, in one sentence; null when it was.
 */
export const prioritizeLoop = (): string | null => {
  const result = native().prioritize(LOOP_NICE, LOOP_SLICE_NS);
  if (result === 0) return null;
  const { message } = new NativeError("sched_setattr", result);
  return `Hearth's own thread has the priority of any other process (${message}): functions that take all CPUs slow it down.`;
};
