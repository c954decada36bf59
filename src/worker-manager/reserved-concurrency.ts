/**
 * The functions that have concurrency of their own: how much all of them have together, and how many of their
 * invocations run. Kept as sums, so that an admission costs the same however many such functions there are.
 */
export class ReservedConcurrency {
  readonly #byFunction: Map<string, number> = new Map();
  #total = 0;
  #running = 0;

  /** Concurrency that the others cannot have. */
  get total(): number {
    return this.#total;
  }

  /** Invocations of functions with concurrency of their own. */
  get running(): number {
    return this.#running;
  }

  /** A function has so much reserved (null for none), and so many of its invocations run. */
  set(functionArn: string, reserved: number | null, running: number): void {
    const before = this.#byFunction.get(functionArn) ?? null;
    if (before === reserved) return;
    this.#total += (reserved ?? 0) - (before ?? 0);
    if (before === null) this.#running += running;
    if (reserved === null) {
      this.#running -= running;
      this.#byFunction.delete(functionArn);
    } else this.#byFunction.set(functionArn, reserved);
  }

  /** One more (1) or one less (-1) of the function's invocations runs. */
  count(functionArn: string, change: 1 | -1): void {
    if (this.#byFunction.has(functionArn)) this.#running += change;
  }
}
