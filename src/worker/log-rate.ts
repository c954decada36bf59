import type { Clock } from "../lib/clock.ts";
import { TokenBucket } from "../lib/token-bucket.ts";
import type { LineVerdict } from "../telemetry/line-splitter.ts";

/*
 * How much log a slot may write. A line is turned into a record by the loop that serves every guest, and is written to the
 * disk that all functions have in common; a function that prints without end would have both to itself. Within its rate
 * every line is kept. Beyond it lines are left out (and counted, where they are missing), and the guest is held
 * back between two readings, so that its output costs no more than being looked at now and then.
 */

const KIB = 1024;

/** Log that a slot may write in a second for as long as it likes, in KiB; `hearth up --log-rate`. */
export const LOG_RATE_KIB_DEFAULT = 1_024;
export const LOG_RATE_KIB_MAX: number = 1_024 * KIB;
/** What a slot that was quiet may write at once, in seconds of its rate. */
const BURST_S = 16;
/** What a line costs beside its bytes: making its record takes as long as a hundred bytes more. */
const LINE_BYTES = 128;
/** Lines made into records in one turn of the loop: a few milliseconds of it. */
export const LINES_PER_TURN_MAX = 500;
/** Once lines are left out they are until so much is saved up again, so that they are missing in few places and not in thousands. */
const RESUME_S = 0.25;
/** How long a guest whose lines are left out is held back between two readings. */
export const HOLD_MS = 50;
/** A reading is so much, or one chunk of up to 256 KiB. Small chunks are many to one: each of them costs as a line does. */
const HOLD_AFTER_BYTES = 32 * KIB;

/** Decides which lines of a slot are kept, and when the guest is to be held back. */
export class LogRate {
  readonly #bucket: TokenBucket;
  readonly #resumeBytes: number;
  #linesThisTurn = 0;
  #readBytes = 0;
  #leavesOut = false;
  #hurries = false;

  constructor(rateKib: number, clock: Pick<Clock, "monotonicMs">) {
    const perS = rateKib * KIB;
    this.#bucket = new TokenBucket({ size: perS * BURST_S, perS }, clock);
    this.#resumeBytes = perS * RESUME_S;
  }

  /** For each line that the function has written. */
  judge(lineBytes: number): LineVerdict {
    if (this.#leavesOut && this.#bucket.waitMs(this.#resumeBytes) > 0) return "skip";
    this.#leavesOut = false;
    if (this.#linesThisTurn >= LINES_PER_TURN_MAX) return "wait";
    this.#leavesOut = !this.#bucket.take(lineBytes + LINE_BYTES);
    if (this.#leavesOut) return "skip";
    this.#linesThisTurn += 1;
    return "keep";
  }

  /**
   * After a chunk of output, of so many bytes: how long to hold the guest back, in ms; 0 for until the next turn of the loop, null for not at all.
   */
  holdMs(bytes: number, hasRest: boolean): number | null {
    if (this.#leavesOut && !this.#hurries) {
      this.#readBytes += bytes + LINE_BYTES;
      if (this.#readBytes < HOLD_AFTER_BYTES) return null;
      this.#readBytes = 0;
      return HOLD_MS;
    }
    if (!hasRest) return null;
    this.#linesThisTurn = 0;
    return 0;
  }

  /** From now on the guest is not held back: its time is up, and the end of its invocation comes behind what it wrote. */
  hurry(hurries: boolean): void {
    this.#hurries = hurries;
  }
}
