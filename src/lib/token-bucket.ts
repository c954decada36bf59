import type { Clock } from "./clock.ts";

/** How much may be taken, in tokens of any unit. */
export interface BucketSize {
  /** Most that is ever saved up, and what may be taken at once when nothing was taken for long. */
  readonly size: number;
  /** What comes back in a second. */
  readonly perS: number;
  /** Given once, at the beginning, on top; never refilled. */
  readonly burst?: number;
}

const MS_PER_S = 1000;

/**
 * A bucket of tokens that refills with time, as Firecracker's rate limiter has them: a size, a one-time burst and a rate.
 * Whoever finds any token may take as many as one piece of work costs, be it more than there are: the debt is then waited
 * for. So no piece is too large to be ever done, and the rate holds over time.
 */
export class TokenBucket {
  readonly #size: BucketSize;
  readonly #clock: Pick<Clock, "monotonicMs">;
  /** Below 0: a debt. */
  #tokens: number;
  #burst: number;
  #refilledAtMs: number;

  constructor(size: BucketSize, clock: Pick<Clock, "monotonicMs">) {
    if (!(size.size > 0 && size.perS > 0))
      throw new Error(`A bucket's size and rate must be above 0, got ${size.size} and ${size.perS}`);
    this.#size = size;
    this.#clock = clock;
    this.#tokens = size.size;
    this.#burst = size.burst ?? 0;
    this.#refilledAtMs = clock.monotonicMs();
  }

  /** Takes tokens; false, with nothing taken, when there is none. */
  take(tokens: number): boolean {
    this.#refill();
    if (this.#burst <= 0 && this.#tokens <= 0) return false;
    const fromBurst = Math.min(this.#burst, tokens);
    this.#burst -= fromBurst;
    this.#tokens -= tokens - fromBurst;
    return true;
  }

  /** ms until there are so many tokens; 0 when there are. At most `size` can be waited for. */
  waitMs(tokens = 1): number {
    this.#refill();
    const missing = Math.min(tokens, this.#size.size) - this.#tokens - this.#burst;
    return missing <= 0 ? 0 : (missing / this.#size.perS) * MS_PER_S;
  }

  #refill(): void {
    const nowMs = this.#clock.monotonicMs();
    const refill = ((nowMs - this.#refilledAtMs) / MS_PER_S) * this.#size.perS;
    this.#refilledAtMs = nowMs;
    this.#tokens = Math.min(this.#size.size, this.#tokens + refill);
  }
}
