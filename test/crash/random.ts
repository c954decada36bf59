import { randomInt } from "node:crypto";
import { seededBelow } from "../../src/lib/random.ts";

const MODULUS = 2 ** 32;

/** Numbers that look random and come again with the same seed. HEARTH_SEED sets it; else it is any. */
export class Random {
  readonly seed: number;
  readonly #below: (end: number) => number;

  constructor(seed: number = Number(process.env["HEARTH_SEED"] ?? randomInt(MODULUS))) {
    this.seed = seed >>> 0;
    this.#below = seededBelow(this.seed);
  }

  /** A whole number from 0 to `end`, without it. */
  below(end: number): number {
    return this.#below(end);
  }

  /** One of them. Throws when there is none. */
  pick<T>(items: readonly T[]): T {
    const item = items[this.below(items.length)];
    if (item === undefined) throw new RangeError("Nothing to pick from");
    return item;
  }
}
