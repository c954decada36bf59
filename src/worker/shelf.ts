import { POOL_DEMAND_MS, POOL_KEEP_MS, POOL_SHRINK_MS } from "../wire/limits.ts";
import type { BootedMicroVm } from "./booted.ts";

/** What the microVMs of one shelf have in common. */
export interface ShelfKey {
  readonly memoryMib: number;
  /** The runtime that has been started in them; null: none, they are only booted. */
  readonly runtime: string | null;
}

/** One that is being made, for the shelf or for who waits for it. */
export interface Making {
  /** Null when it could not be made. */
  readonly made: Promise<BootedMicroVm | null>;
  claimed: boolean;
  /** Somebody waits for it from now on. */
  readonly hurry: () => void;
}

/** Share of a new measurement in a mean. */
const WEIGHT = 1 / 4;

/** MicroVMs of one kind, and the demand for them. */
export class Shelf {
  readonly key: ShelfKey;
  readonly ready: BootedMicroVm[] = [];
  readonly making: Set<Making> = new Set();
  /** Mean time to make one, ms. */
  makeMs: number;
  /** Host memory of one in bytes, as last measured. */
  bytesEach: number;
  /** Of the last POOL_DEMAND_MS. */
  readonly #takenAtMs: number[] = [];
  #askedAtMs: number;

  constructor(key: ShelfKey, nowMs: number, guess: { readonly makeMs: number; readonly bytesEach: number }) {
    this.key = key;
    this.makeMs = guess.makeMs;
    this.bytesEach = guess.bytesEach;
    this.#askedAtMs = nowMs;
  }

  /** When somebody last asked for one, or let it be known that one may be wanted. */
  get askedAtMs(): number {
    return this.#askedAtMs;
  }

  expect(nowMs: number): void {
    this.#askedAtMs = nowMs;
  }

  asked(nowMs: number): void {
    this.#askedAtMs = nowMs;
    this.#takenAtMs.push(nowMs);
  }

  learn(makeMs: number): void {
    this.makeMs += (makeMs - this.makeMs) * WEIGHT;
  }

  /** Ready, or on the way to it. */
  get standing(): number {
    return this.ready.length + this.unclaimed.length;
  }

  get unclaimed(): Making[] {
    return [...this.making].filter((one) => !one.claimed);
  }

  /**
   * How many are to stand here. Little's law: with λ taken a second and W seconds to make one, λ·W are on their way at
   * any time; twice that are kept, at least `floor` as long as the shelf was asked for lately.
   */
  target(nowMs: number, floor: number): number {
    if (floor === 0 || nowMs - this.#askedAtMs > POOL_KEEP_MS) return 0;
    while (this.#takenAtMs[0] !== undefined && nowMs - this.#takenAtMs[0] > POOL_DEMAND_MS) this.#takenAtMs.shift();
    const perMs = this.#takenAtMs.length / POOL_DEMAND_MS;
    return Math.max(floor, Math.ceil(2 * perMs * this.makeMs));
  }

  /** Those that a demand of earlier left and nobody wants any more. */
  surplus(nowMs: number, floor: number): BootedMicroVm[] {
    const target = this.target(nowMs, floor);
    const rests = nowMs - this.#askedAtMs > POOL_SHRINK_MS;
    return rests ? this.ready.splice(target) : [];
  }
}
