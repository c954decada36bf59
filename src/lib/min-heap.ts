interface Entry<T> {
  readonly key: number;
  readonly item: T;
}

/** A binary heap: puts in and takes out the item of the smallest key in O(log n). Items of one key come in no order. */
export class MinHeap<T> {
  readonly #entries: Entry<T>[] = [];

  get size(): number {
    return this.#entries.length;
  }

  /** The entry of the smallest key; null when there is none. */
  peek(): Entry<T> | null {
    return this.#entries[0] ?? null;
  }

  push(key: number, item: T): void {
    const entries = this.#entries;
    const entry = { key, item };
    let at = entries.push(entry) - 1;
    for (;;) {
      const above = (at - 1) >> 1;
      const parent = entries[above];
      if (at === 0 || parent === undefined || parent.key <= key) break;
      entries[at] = parent;
      at = above;
    }
    entries[at] = entry;
  }

  pop(): Entry<T> | null {
    const entries = this.#entries;
    const [first] = entries;
    const last = entries.pop();
    if (first === undefined || last === undefined) return null;
    if (entries.length > 0) this.#sink(last);
    return first;
  }

  /** Puts an entry where the first one was, and lets it sink to its place. */
  #sink(entry: Entry<T>): void {
    const entries = this.#entries;
    let at = 0;
    for (;;) {
      const left = 2 * at + 1;
      const [leftEntry, rightEntry] = [entries[left], entries[left + 1]];
      if (leftEntry === undefined) break;
      const right = rightEntry !== undefined && rightEntry.key < leftEntry.key;
      const child = right ? rightEntry : leftEntry;
      if (child.key >= entry.key) break;
      entries[at] = child;
      at = right ? left + 1 : left;
    }
    entries[at] = entry;
  }
}
