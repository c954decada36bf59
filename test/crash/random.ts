import { randomInt } from "node:crypto";

const MODULUS = 2 ** 32;

/** Numbers that look random and come again with the same seed (mulberry32). HEARTH_SEED sets it; else it is any. */
export class Random {
  readonly seed: number;
  #state: number;

  constructor(seed: number = Number(process.env["HEARTH_SEED"] ?? randomInt(MODULUS))) {
    this.seed = seed >>> 0;
    this.#state = this.seed;
  }

  /** A whole number from 0 to `end`, without it. */
  below(end: number): number {
    this.#state = (this.#state + 0x6d2b_79f5) >>> 0;
    let mixed = Math.imul(this.#state ^ (this.#state >>> 15), this.#state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return Math.floor((((mixed ^ (mixed >>> 14)) >>> 0) / MODULUS) * end);
  }

  /** One of them. Throws when there is none. */
  pick<T>(items: readonly T[]): T {
    const item = items[this.below(items.length)];
    if (item === undefined) throw new RangeError("Nothing to pick from");
    return item;
  }
}
