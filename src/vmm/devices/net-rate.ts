import type { Clock } from "../../lib/clock.ts";
import { TokenBucket, type BucketSize } from "../../lib/token-bucket.ts";

/** What a network card may carry each way: two buckets, as a rate limiter of Firecracker's has them. */
export interface NetRate {
  readonly bytes: BucketSize;
  /** Frames as the guest hands them over: one that the host cuts into many costs the device model no more than one. */
  readonly frames: BucketSize;
}

const BYTES_PER_S_PER_MBIT = 125_000;
const FRAMES_PER_S_PER_MBIT = 50;
/** What a card that was quiet may carry at once, in seconds of its rate; and once, at the beginning, on top. */
const SIZE_S = 1;
const BURST_S = 8;

const sized = (perS: number): BucketSize => ({ size: perS * SIZE_S, perS, burst: perS * BURST_S });

/** The rate of a card of so many Mbit/s: with frames of 2,500 bytes and more its bytes are what is used up first. */
export const netRate = (mbitPerS: number): NetRate => ({
  bytes: sized(mbitPerS * BYTES_PER_S_PER_MBIT),
  frames: sized(mbitPerS * FRAMES_PER_S_PER_MBIT),
});

/** One direction of a card. */
export class NetLimiter {
  readonly #bytes: TokenBucket;
  readonly #frames: TokenBucket;

  constructor(rate: NetRate, clock: Pick<Clock, "monotonicMs">) {
    this.#bytes = new TokenBucket(rate.bytes, clock);
    this.#frames = new TokenBucket(rate.frames, clock);
  }

  /** Counts a frame that is carried: only when nothing is to be waited for. */
  take(bytes: number): void {
    this.#bytes.take(bytes);
    this.#frames.take(1);
  }

  /** ms until the next frame may be carried; 0 for now. */
  waitMs(): number {
    return Math.max(this.#bytes.waitMs(), this.#frames.waitMs());
  }
}
