/*
 * Time that a guest could use. On a host whose CPUs are wanted by more than they can carry a guest is runnable and does
 * not run: a limit in the time that passes would blame the function for its host. The host's kernel keeps, for every task,
 * how long it ran and how long it waited for a CPU (sched-stats in its documentation); what is left of the time that
 * passes when the waiting is taken off is what the guest ran, slept, or waited for something of its own.
 *
 * A guest's processes can wait for each other's CPU, and that is no fault of the host: what it ran always counts.
 */
import type { Clock, Timer } from "../../lib/clock.ts";
import type { CpuTimes } from "../../vmm/microvm.ts";
import { STARVED_MS_MAX, USABLE_LOOK_MS } from "./limits.ts";

/** Of `elapsedMs` that passed, what a guest could use that ran and waited for so long in them. */
export const usableMs = (elapsedMs: number, { ranMs, waitedMs }: CpuTimes): number =>
  Math.min(elapsedMs, Math.max(ranMs, elapsedMs - waitedMs));

/** What a limit in usable time is told of. */
export interface UsableLimit {
  /** Reads the CPU times of the microVM; null when they cannot be had: then all time counts as usable. */
  readonly read: () => CpuTimes | null;
  readonly usableMsMax: number;
  /** `starved`: the guest has not had so much time, but far too much has passed. */
  readonly onOver: (why: "used up" | "starved") => void;
}

/** How such a limit was passed, for an error's text. */
export const overText = (why: "used up" | "starved", usableMsMax: number): string =>
  why === "used up"
    ? `within ${usableMsMax} ms that it could use`
    : `within ${STARVED_MS_MAX} ms in which its host had hardly any CPU time for it`;

const NONE: CpuTimes = { ranMs: 0, waitedMs: 0 };

/** Calls `onOver` once the guest could use `usableMsMax`. Disposing the timer ends that. */
export const afterUsable = (clock: Clock, { read, usableMsMax, onOver }: UsableLimit): Timer => {
  const startedMs = clock.monotonicMs();
  // The first look comes later: most of what is limited is over by then, and reading costs.
  let base: CpuTimes | null = null;
  let timer: Timer;
  const look = (): void => {
    const elapsedMs = clock.monotonicMs() - startedMs;
    const times = read() ?? base ?? NONE;
    base ??= times;
    const spent = { ranMs: times.ranMs - base.ranMs, waitedMs: times.waitedMs - base.waitedMs };
    const leftMs = usableMsMax - usableMs(elapsedMs, spent);
    if (leftMs <= 0) return onOver("used up");
    if (elapsedMs >= STARVED_MS_MAX) return onOver("starved");
    // In whole ms: what rounding leaves of a sum would be waited for in no time, again and again.
    timer = clock.after(Math.min(Math.ceil(leftMs), USABLE_LOOK_MS), look);
  };
  timer = clock.after(Math.min(usableMsMax, USABLE_LOOK_MS), look);
  return { [Symbol.dispose]: () => timer[Symbol.dispose]() };
};
