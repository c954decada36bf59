import { SCALING_ENVIRONMENTS, SCALING_SPAN_MS } from "../wire/limits.ts";

/** A token bucket: SCALING_ENVIRONMENTS new slots per SCALING_SPAN_MS, refilled continuously, never above its size. */
export class ScalingRate {
  #tokens: number = SCALING_ENVIRONMENTS;
  #atMs: number;

  constructor(nowMs: number) {
    this.#atMs = nowMs;
  }

  /** Takes one; false when the function grows faster than it may. */
  take(nowMs: number): boolean {
    const refill = ((nowMs - this.#atMs) * SCALING_ENVIRONMENTS) / SCALING_SPAN_MS;
    this.#tokens = Math.min(SCALING_ENVIRONMENTS, this.#tokens + Math.max(0, refill));
    this.#atMs = nowMs;
    if (this.#tokens < 1) return false;
    this.#tokens -= 1;
    return true;
  }
}
