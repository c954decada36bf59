import type { Turns } from "../lib/turn-meter.ts";
import {
  GUEST_LONG_TURNS_MAX,
  GUEST_LONG_TURNS_WINDOW_MS,
  GUEST_SHARE_MAX,
  GUEST_SHARE_WINDOW_MS,
  GUEST_TURN_MS_MAX,
  LOOP_OTHERS_MS_MIN,
} from "./limits.ts";

/** How often a guest's share is looked at while it works. */
const SAMPLE_MS = 1_000;
const US_PER_MS = 1_000;

interface Sample {
  readonly atMs: number;
  /** All since the start, in µs: of this guest, of the loop, and of the loop for guests and requests. */
  readonly ownUs: number;
  readonly loopUs: number;
  readonly servedUs: number;
}

/**
 * What the work for one guest takes of the main loop, and when that is more than its share:
 * - turns so long that others notice each of them; one alone may have met a garbage collection,
 * - turns so many that the loop hardly gets to anything else, for so long that no burst explains it, while others want
 *   something of it. A guest that nobody waits for may have all of the loop.
 */
export class GuestShare {
  readonly #use: Turns["use"];
  /** When the last turns that were too long ended. */
  #longAtMs: readonly number[] = [];
  #ownUs = 0;
  /** The first is the newest that is a whole window old, once there is one. */
  #samples: readonly Sample[] = [];

  constructor(use: Turns["use"]) {
    this.#use = use;
  }

  /** A turn of `us` for the guest ended at `nowMs` of the monotonic clock. Returns why the guest must go, or null. */
  took(us: number, nowMs: number): string | null {
    this.#ownUs += us;
    const tooLong = us > GUEST_TURN_MS_MAX * US_PER_MS ? this.#tooLong(us / US_PER_MS, nowMs) : null;
    if (tooLong !== null) return tooLong;
    const last = this.#samples.at(-1);
    return last !== undefined && nowMs - last.atMs < SAMPLE_MS ? null : this.#tooMuch(nowMs);
  }

  #tooLong(ms: number, nowMs: number): string | null {
    this.#longAtMs = [...this.#longAtMs, nowMs].filter((atMs) => nowMs - atMs < GUEST_LONG_TURNS_WINDOW_MS);
    if (this.#longAtMs.length < GUEST_LONG_TURNS_MAX) return null;
    return (
      `${ms.toFixed(0)} ms in one turn, and more than ${String(GUEST_TURN_MS_MAX)} ms in ` +
      `${String(this.#longAtMs.length)} turns within ${String(GUEST_LONG_TURNS_WINDOW_MS / 1000)} s`
    );
  }

  #tooMuch(nowMs: number): string | null {
    const { cpuUs, servedUs } = this.#use();
    const now: Sample = { atMs: nowMs, ownUs: this.#ownUs, loopUs: cpuUs, servedUs };
    const samples = [...this.#samples, now];
    const whole = samples.findLastIndex(({ atMs }) => nowMs - atMs >= GUEST_SHARE_WINDOW_MS);
    this.#samples = samples.slice(Math.max(0, whole));
    const [first = now] = this.#samples;
    const windowMs = nowMs - first.atMs;
    if (windowMs < GUEST_SHARE_WINDOW_MS) return null;
    const ownUs = now.ownUs - first.ownUs;
    const othersUs = now.servedUs - first.servedUs - ownUs;
    // Short turns are reckoned by the clock on the wall, in which the loop may have been kept from its CPU.
    const ownMs = Math.min(ownUs, now.loopUs - first.loopUs) / US_PER_MS;
    if (ownMs <= GUEST_SHARE_MAX * windowMs || othersUs < LOOP_OTHERS_MS_MIN * US_PER_MS) return null;
    return (
      `${String(Math.round((100 * ownMs) / windowMs))} % of its time for ${(windowMs / 1000).toFixed(0)} s while others waited; ` +
      `${String(100 * GUEST_SHARE_MAX)} % may be`
    );
  }
}
