import { SCALING_ENVIRONMENTS, SCALING_SPAN_MS } from "../wire/limits.ts";

/** A token bucket: SCALING_ENVIRONMENTS new slots per SCALING_SPAN_MS, refilled continuously, never above its size. */
export class ScalingRate {
  #tokens: number = SCALING_ENVIRONMENTS;
  #atMs: number;

  constructor(nowMs: number) {
    this.#atMs = nowMs;
  }

  /** True when it is as good as new. */
  isFull(nowMs: number): boolean {
    this.#refill(nowMs);
    return this.#tokens === SCALING_ENVIRONMENTS;
  }

  /** Takes one; false when the function grows faster than it may. */
  take(nowMs: number): boolean {
    this.#refill(nowMs);
    if (this.#tokens < 1) return false;
    this.#tokens -= 1;
    return true;
  }

  /** Gives one back that was not made after all. */
  giveBack(): void {
    this.#tokens = Math.min(SCALING_ENVIRONMENTS, this.#tokens + 1);
  }

  #refill(nowMs: number): void {
    const refill = ((nowMs - this.#atMs) * SCALING_ENVIRONMENTS) / SCALING_SPAN_MS;
    this.#tokens = Math.min(SCALING_ENVIRONMENTS, this.#tokens + Math.max(0, refill));
    this.#atMs = nowMs;
  }
}
