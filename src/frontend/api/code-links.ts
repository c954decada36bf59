import { createHmac, randomBytes, timingSafeEqual } from "node:crypto";
import type { Clock } from "../../lib/clock.ts";
import type { Digest } from "../../wire/function.ts";
import { CODE_LOCATION_MS } from "../../wire/limits.ts";

const KEY_BYTES = 32;

/** Path of the downloads, on the same endpoint as the API. */
export const CODE_PATH = "/hearth/code";

/**
 * Links under which a function's archive can be downloaded for a while, without signing: GetFunction's Code.Location. They
 * end with this process, whose key signs them, so their end is a reading of its monotonic clock.
 */
export class CodeLinks {
  readonly #key = randomBytes(KEY_BYTES);
  readonly #clock: Clock;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Absolute URL, for the host the caller itself used. */
  make(host: string, digest: Digest): string {
    const expires = Math.ceil(this.#clock.monotonicMs() + CODE_LOCATION_MS);
    return `http://${host}${CODE_PATH}/${digest}?Expires=${expires}&Signature=${this.#sign(digest, expires).toString("hex")}`;
  }

  /** True for a link made here that has not expired. */
  isGood(digest: Digest, expires: unknown, signature: unknown): boolean {
    const expiresMs = Number(expires);
    if (typeof signature !== "string" || !/^[0-9a-f]{64}$/.test(signature)) return false;
    if (!Number.isSafeInteger(expiresMs) || expiresMs < this.#clock.monotonicMs()) return false;
    return timingSafeEqual(this.#sign(digest, expiresMs), Buffer.from(signature, "hex"));
  }

  #sign(digest: Digest, expires: number): Buffer {
    return createHmac("sha256", this.#key).update(`${digest}/${expires}`).digest();
  }
}
