/*
 * Whose start comes next. A start (boot, attaching drives, the CPU-heavy part of init) is CPU time from end to end, so
 * starting everything that is asked for at once makes nothing ready sooner: 300 starts that share two CPUs are all as
 * slow as the last one, and those with a time limit fail together. In turns the first is ready as soon as if it were alone.
 *
 * One function's burst must not make another function's first start wait behind it. So turns go round by function, and the
 * last free one is kept for a function that has none under way.
 */

interface Waiting {
  readonly id: string;
  readonly group: string;
}

/** Decides; knows no time. `id` names a start, `group` is what turns go round by. */
export class StartTurns {
  readonly #turnsMax: number;
  /** Groups with starts that wait, the one whose turn is next first. */
  readonly #waiting: Map<string, Waiting[]> = new Map();
  readonly #groupOf: Map<string, string> = new Map();
  /** Starts under way, by id, with their group. */
  readonly #underWay: Map<string, string> = new Map();

  /** `turnsMax`: starts under way at once, at least 2: one of them is kept for a group that has none. */
  constructor(turnsMax: number) {
    if (!Number.isInteger(turnsMax) || turnsMax < 2)
      throw new RangeError(`turnsMax must be at least 2, got ${turnsMax}`);
    this.#turnsMax = turnsMax;
  }

  get waiting(): number {
    return this.#groupOf.size;
  }

  get underWay(): number {
    return this.#underWay.size;
  }

  /** A start asks for its turn. Its id must be new. */
  ask(id: string, group: string): void {
    if (this.#groupOf.has(id) || this.#underWay.has(id)) throw new Error(`start ${id} has asked before`);
    this.#groupOf.set(id, group);
    const queue = this.#waiting.get(group);
    if (queue === undefined) this.#waiting.set(group, [{ id, group }]);
    else queue.push({ id, group });
  }

  /** Takes back what has not begun; false when it has, or is not known. */
  withdraw(id: string): boolean {
    const group = this.#groupOf.get(id);
    if (group === undefined) return false;
    this.#groupOf.delete(id);
    const left = (this.#waiting.get(group) ?? []).filter((one) => one.id !== id);
    if (left.length === 0) this.#waiting.delete(group);
    else this.#waiting.set(group, left);
    return true;
  }

  /** A start has ended, or needs its turn no more. */
  end(id: string): void {
    this.#underWay.delete(id);
  }

  /** The start that may begin now, which counts as under way from here on; null when none may. */
  next(): string | null {
    const free = this.#turnsMax - this.#underWay.size;
    if (free <= 0) return null;
    const served = free === 1 ? new Set(this.#underWay.values()) : null;
    for (const [group, queue] of this.#waiting) {
      if (served?.has(group) === true) continue;
      const first = queue.shift();
      // Behind all others that wait, when more of it do.
      this.#waiting.delete(group);
      if (queue.length > 0) this.#waiting.set(group, queue);
      if (first === undefined) continue;
      this.#groupOf.delete(first.id);
      this.#underWay.set(first.id, group);
      return first.id;
    }
    return null;
  }
}
