import { POOL_DEMAND_MS, POOL_FLOOR, POOL_MAX } from "../wire/limits.ts";
import type { BootedMicroVm } from "./booted.ts";

export interface PoolOptions {
  /** Boots one microVM of so much memory. */
  readonly boot: (memoryMib: number) => Promise<BootedMicroVm>;
  /** Kept ready of every size that is in demand; 0 turns the pool off. */
  readonly floor?: number;
  readonly max?: number;
  readonly nowMs?: () => number;
  readonly onError?: (error: unknown) => void;
}

/** MicroVMs of one size. */
interface Shelf {
  readonly ready: BootedMicroVm[];
  booting: number;
  /** Unix ms of the takes within the last POOL_DEMAND_MS. */
  takenAtMs: number[];
  /** Mean time to boot, ms, as last seen. */
  bootMs: number;
}

/**
 * MicroVMs booted before they are needed. How many follows the demand by Little's law: with λ takes a second and
 * W seconds to boot one, λ·W are on their way at any time; twice that are kept ready, at least `floor` of every
 * size asked for lately, at most `max` together. Owns what stands in it.
 */
export class MicroVmPool implements AsyncDisposable {
  readonly #options: PoolOptions;
  readonly #floor: number;
  readonly #max: number;
  readonly #nowMs: () => number;
  readonly #shelves: Map<number, Shelf> = new Map();
  readonly #boots: Set<Promise<void>> = new Set();
  #closed = false;

  constructor(options: PoolOptions) {
    this.#options = options;
    this.#floor = options.floor ?? POOL_FLOOR;
    this.#max = options.max ?? POOL_MAX;
    this.#nowMs = options.nowMs ?? Date.now;
  }

  get ready(): number {
    let count = 0;
    for (const shelf of this.#shelves.values()) count += shelf.ready.length;
    return count;
  }

  /** Makes `memoryMib` a size in demand, so that the floor of it is booted. */
  warm(memoryMib: number): void {
    this.#fill(memoryMib, this.#shelf(memoryMib));
  }

  /** A booted microVM, from the pool (`hit`) or booted now. It is the caller's from here on. */
  async take(memoryMib: number): Promise<{ readonly booted: BootedMicroVm; readonly hit: boolean }> {
    const shelf = this.#shelf(memoryMib);
    const nowMs = this.#nowMs();
    shelf.takenAtMs = [...shelf.takenAtMs.filter((atMs) => nowMs - atMs < POOL_DEMAND_MS), nowMs];
    const ready = shelf.ready.shift();
    // Refilled after this invocation has got its start: booting takes CPU from it.
    setImmediate(() => this.#fill(memoryMib, shelf));
    if (ready !== undefined) return { booted: ready, hit: true };
    return { booted: await this.#options.boot(memoryMib), hit: false };
  }

  /** Ends up to `count` ready microVMs: memory is short. Returns how many. */
  shed(count: number): number {
    let ended = 0;
    for (const shelf of this.#shelves.values()) {
      while (ended < count) {
        const booted = shelf.ready.shift();
        if (booted === undefined) break;
        ended += 1;
        void booted.vm.kill("the host is short of memory");
      }
    }
    return ended;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed = true;
    await Promise.all(this.#boots);
    const all = [...this.#shelves.values()].flatMap((shelf) => shelf.ready.splice(0));
    await Promise.all(all.map((booted) => booted[Symbol.asyncDispose]()));
  }

  /** Ready or on the way, of all sizes. */
  get #standing(): number {
    let count = 0;
    for (const shelf of this.#shelves.values()) count += shelf.ready.length + shelf.booting;
    return count;
  }

  #shelf(memoryMib: number): Shelf {
    let shelf = this.#shelves.get(memoryMib);
    if (shelf === undefined) {
      shelf = { ready: [], booting: 0, takenAtMs: [], bootMs: 20 };
      this.#shelves.set(memoryMib, shelf);
    }
    return shelf;
  }

  #target(shelf: Shelf): number {
    if (this.#floor === 0) return 0;
    const perSecond = shelf.takenAtMs.length / (POOL_DEMAND_MS / 1000);
    return Math.max(this.#floor, Math.ceil(2 * perSecond * (shelf.bootMs / 1000)));
  }

  #fill(memoryMib: number, shelf: Shelf): void {
    const target = this.#target(shelf);
    while (!this.#closed && shelf.ready.length + shelf.booting < target && this.#standing < this.#max) {
      shelf.booting += 1;
      const boot = this.#boot(memoryMib, shelf).finally(() => this.#boots.delete(boot));
      this.#boots.add(boot);
    }
  }

  async #boot(memoryMib: number, shelf: Shelf): Promise<void> {
    try {
      const booted = await this.#options.boot(memoryMib);
      shelf.bootMs = (shelf.bootMs * 3 + booted.bootMs) / 4;
      if (this.#closed) {
        await booted[Symbol.asyncDispose]();
        return;
      }
      shelf.ready.push(booted);
      void booted.vm.exited.then(() => {
        const index = shelf.ready.indexOf(booted);
        if (index !== -1) shelf.ready.splice(index, 1);
      });
    } catch (error) {
      this.#options.onError?.(error);
    } finally {
      shelf.booting -= 1;
    }
  }
}
