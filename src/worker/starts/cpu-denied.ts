import type { Clock, Timer } from "../../lib/clock.ts";
import type { CpuTimes } from "../../vmm/microvm.ts";
import type { ServiceError } from "../../wire/errors.ts";
import { unavailable } from "../../wire/exhaustion.ts";
import { DENIED_RAN_MAX, DENIED_WAITED_MIN } from "./limits.ts";

/** Of a span of time: whether a guest that may have `share` of a CPU wanted it for most of that time and did not get it. */
export const isDenied = (elapsedMs: number, { ranMs, waitedMs }: CpuTimes, share: number): boolean =>
  waitedMs >= elapsedMs * DENIED_WAITED_MIN && ranMs < elapsedMs * share * DENIED_RAN_MAX;

interface Reading {
  readonly atMs: number;
  readonly times: CpuTimes;
}

/** When, in parts of the time limit, the guest is looked at. What ends before the first look costs no reading. */
const LOOKS = [1 / 2, 19 / 20] as const;

/**
 * Knows of an invocation that ran into its time limit whether that was its host's doing: the guest wanted to run in the last
 * half of that time, and did not get the part of a CPU that the function's memory buys.
 */
export class CpuDenial implements Disposable {
  readonly #clock: Clock;
  readonly #read: () => CpuTimes | null;
  readonly #share: number;
  #timer: Timer;
  #first: Reading | null = null;
  #last: Reading | null = null;

  constructor(clock: Clock, timeoutMs: number, share: number, read: () => CpuTimes | null) {
    this.#clock = clock;
    this.#read = read;
    this.#share = share;
    this.#timer = clock.after(timeoutMs * LOOKS[0], () => {
      this.#first = this.#look();
      this.#timer = clock.after(timeoutMs * (LOOKS[1] - LOOKS[0]), () => (this.#last = this.#look()));
    });
  }

  get isDenied(): boolean {
    if (this.#first === null || this.#last === null) return false;
    const ranMs = this.#last.times.ranMs - this.#first.times.ranMs;
    const waitedMs = this.#last.times.waitedMs - this.#first.times.waitedMs;
    return isDenied(this.#last.atMs - this.#first.atMs, { ranMs, waitedMs }, this.#share);
  }

  [Symbol.dispose](): void {
    this.#timer[Symbol.dispose]();
  }

  #look(): Reading | null {
    const times = this.#read();
    return times === null ? null : { atMs: this.#clock.monotonicMs(), times };
  }
}

/** A time limit that was passed for want of CPU is the host's failure. */
export const cpuDenied = (): ServiceError =>
  unavailable(
    "This host's CPUs were too busy: the function did not get the CPU time that its memory buys before its timeout. Try again when the host is less busy.",
  );
