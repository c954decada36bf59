/**
 * Gives every microVM a CPU of its host: the one with the fewest microVMs, and among equals the one that waited longest.
 */
export class CpuAllocator {
  readonly #load = new Map<number, number>();

  constructor(cpus: readonly number[]) {
    for (const cpu of cpus) this.#load.set(cpu, 0);
    if (this.#load.size === 0) throw new Error("No CPU is left for microVMs");
  }

  /** Takes a place on the wished CPU, or on the best one. Give it back with `release`. */
  take(wished: number | null): number {
    let best = wished;
    if (best === null) {
      // Maps keep the order of insertion: re-inserting the chosen one makes it the last among equals.
      for (const [cpu, load] of this.#load) if (best === null || load < (this.#load.get(best) ?? 0)) best = cpu;
    }
    const cpu = best ?? 0;
    const load = this.#load.get(cpu);
    if (load === undefined) throw new Error(`CPU ${String(cpu)} is not among those for microVMs`);
    this.#load.delete(cpu);
    this.#load.set(cpu, load + 1);
    return cpu;
  }

  release(cpu: number): void {
    const load = this.#load.get(cpu);
    if (load !== undefined) this.#load.set(cpu, load - 1);
  }
}
