import type { Clock, Timer } from "../lib/clock.ts";
import { AFTER_ANSWER_MS, POOL_FLOOR, POOL_MAX, POOL_REFILL_MS_MAX, POOL_SWEEP_MS } from "../wire/limits.ts";
import type { BootedMicroVm } from "./booted.ts";
import { Shelf } from "./shelf.ts";
import type { Making, ShelfKey } from "./shelf.ts";

const MIB = 1024 * 1024;
/** Before anything was measured: a boot, and a boot with the start of a runtime. */
const GUESS_BARE = { makeMs: 20, bytesEach: 12 * MIB };
const GUESS_PREPARED = { makeMs: 150, bytesEach: 64 * MIB };

export interface PoolOptions {
  readonly clock: Clock;
  /** Boots a microVM, and starts its runtime where the shelf wants one. `wanted` says when somebody waits for it. */
  readonly make: (key: ShelfKey, wanted: Promise<void>) => Promise<BootedMicroVm>;
  /** Boots one for a request that found nothing, with the images it is going to need. */
  readonly boot: (memoryMib: number, images: readonly string[]) => Promise<BootedMicroVm>;
  /** Kept ready of every kind that is in demand; 0 turns the pool off. */
  /** Made at once: more than there are CPUs make nothing ready sooner. */
  readonly makesMax: number;
  readonly floor?: number;
  readonly max?: number;
  /** Host memory of all that stand ready together, in bytes. */
  readonly memoryBytesMax?: number;
  /** Whether more may be made now. */
  readonly mayMake?: () => boolean;
  readonly onError?: (error: unknown) => void;
}

/** What somebody needs a microVM for. */
export interface PoolRequest {
  readonly memoryMib: number;
  /** A runtime of which one that was started ahead would do; null when none would. */
  readonly runtime: string | null;
  /** Host paths of all images that will be attached. */
  readonly images: readonly string[];
}

/** What the microVM had ready: its runtime, itself, or nothing. */
export type PoolResult = "prepared" | "bare" | "none";

/** A microVM that is the taker's from here on. */
export interface Taken {
  readonly booted: BootedMicroVm;
  readonly result: PoolResult;
  /** To be called when its first work is done, or it ended: what replaces it is made then and not before. */
  settled(): void;
}

/**
 * MicroVMs made before they are needed, on shelves by size and runtime (shelf.ts says how many). What was taken is made
 * anew when its taker is served, because making takes CPU from it. At most `max`, and `memoryBytesMax`, on all shelves
 * together: the shelf that nobody has asked for longest gives way. Owns what stands in it.
 */
export class MicroVmPool implements AsyncDisposable {
  readonly #options: PoolOptions;
  readonly #floor: number;
  readonly #max: number;
  readonly #memoryBytesMax: number;
  readonly #clock: Clock;
  readonly #shelves: Map<string, Shelf> = new Map();
  readonly #makes: Set<Promise<unknown>> = new Set();
  readonly #sweep: Timer;
  /** Taken and not settled yet. */
  #held = 0;
  #closed = false;

  constructor(options: PoolOptions) {
    this.#options = options;
    this.#floor = options.floor ?? POOL_FLOOR;
    this.#max = options.max ?? POOL_MAX;
    this.#memoryBytesMax = options.memoryBytesMax ?? Number.MAX_SAFE_INTEGER;
    this.#clock = options.clock;
    this.#sweep = options.clock.every(POOL_SWEEP_MS, () => this.sweep());
  }

  /** How many stand ready, by what they have ready. */
  get ready(): Readonly<Record<"bare" | "prepared", number>> {
    const counts = { bare: 0, prepared: 0 };
    for (const { key, ready } of this.#shelves.values()) counts[kindOf(key)] += ready.length;
    return counts;
  }

  /** Lets the pool know that one of these may be wanted soon, so that the floor of it is made. */
  expect(key: ShelfKey): void {
    this.#shelf(key).expect(this.#clock.monotonicMs());
    this.#fill();
  }

  /**
   * The best that there is for a request: one whose runtime waits, one that is booted, one that is on its way to either,
   * or one that is booted now. Rejects with what `boot` rejects with.
   */
  async take(request: PoolRequest): Promise<Taken> {
    const { memoryMib, runtime, images } = request;
    const bare = this.#shelf({ memoryMib, runtime: null });
    const shelves = runtime === null ? [bare] : [this.#shelf({ memoryMib, runtime }), bare];
    shelves[0]?.asked(this.#clock.monotonicMs());
    const settled = this.#hold();
    try {
      for (const shelf of shelves) {
        const booted = shelf.ready.shift();
        if (booted !== undefined) return { booted, result: kindOf(shelf.key), settled };
      }
      // What is on its way will be here before what begins now.
      for (const shelf of shelves) {
        const [making] = shelf.unclaimed;
        if (making === undefined) continue;
        making.claimed = true;
        making.hurry();
        const booted = await making.made;
        if (booted !== null) return { booted, result: kindOf(shelf.key), settled };
      }
      return { booted: await this.#options.boot(memoryMib, images), result: "none", settled };
    } catch (error) {
      settled();
      throw error;
    }
  }

  /** Host memory of all that stand ready, as last measured. */
  get readyBytes(): number {
    let bytes = 0;
    for (const shelf of this.#shelves.values()) bytes += shelf.ready.length * shelf.bytesEach;
    return bytes;
  }

  /**
   * Ends ready microVMs until they give back `bytes`, those that take most first: memory is short. Returns what they
   * give back, and when it is back.
   */
  shed(bytes: number): { readonly bytes: number; readonly done: Promise<unknown> } {
    const shelves = [...this.#shelves.values()].sort((a, b) => b.bytesEach - a.bytesEach);
    const ends: Promise<unknown>[] = [];
    let shedBytes = 0;
    for (const shelf of shelves) {
      while (shedBytes < bytes) {
        const booted = shelf.ready.shift();
        if (booted === undefined) break;
        ends.push(booted.vm.kill("the host is short of memory"));
        shedBytes += shelf.bytesEach;
      }
    }
    return { bytes: shedBytes, done: Promise.all(ends) };
  }

  /** Ends what is not wanted any more, and makes what is missing. Called by itself every POOL_SWEEP_MS. */
  sweep(): void {
    const nowMs = this.#clock.monotonicMs();
    for (const [name, shelf] of this.#shelves) {
      for (const booted of shelf.surplus(nowMs, this.#floor)) void booted.vm.kill("nobody asks for it any more");
      if (shelf.target(nowMs, this.#floor) === 0 && shelf.standing === 0) this.#shelves.delete(name);
    }
    if (this.#held === 0) this.#fill();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed = true;
    this.#sweep[Symbol.dispose]();
    await Promise.all(this.#makes);
    const all = [...this.#shelves.values()].flatMap((shelf) => shelf.ready.splice(0));
    await Promise.all(all.map((booted) => booted[Symbol.asyncDispose]()));
  }

  #shelf(key: ShelfKey): Shelf {
    const name = `${key.memoryMib} ${key.runtime ?? ""}`;
    let shelf = this.#shelves.get(name);
    if (shelf === undefined) {
      shelf = new Shelf(key, this.#clock.monotonicMs(), key.runtime === null ? GUESS_BARE : GUESS_PREPARED);
      this.#shelves.set(name, shelf);
    }
    return shelf;
  }

  /** Somebody has one, and is served best when nothing else is made meanwhile. Not for ever, though. */
  #hold(): () => void {
    this.#held += 1;
    let isHeld = true;
    const settled = (): void => {
      if (!isHeld) return;
      isHeld = false;
      timer[Symbol.dispose]();
      // The answer goes out first.
      this.#clock.after(AFTER_ANSWER_MS, () => {
        this.#held -= 1;
        this.#fill();
      });
    };
    const timer = this.#clock.after(POOL_REFILL_MS_MAX, settled);
    return settled;
  }

  #fill(): void {
    if (this.#closed || this.#options.mayMake?.() === false) return;
    const nowMs = this.#clock.monotonicMs();
    while (this.#makes.size < this.#options.makesMax) {
      // The emptiest first, in relation to what it should have.
      const [emptiest] = [...this.#shelves.values()]
        .map((shelf) => ({ shelf, share: shelf.standing / shelf.target(nowMs, this.#floor) }))
        .filter(({ share }) => share < 1)
        .sort((a, b) => a.share - b.share);
      if (emptiest === undefined || !this.#hasRoom(emptiest.shelf)) return;
      this.#make(emptiest.shelf);
    }
  }

  /** Whether one more may stand on this shelf; one that was asked for less lately gives way. */
  #hasRoom(wanting: Shelf): boolean {
    const shelves = [...this.#shelves.values()];
    const count = shelves.reduce((sum, shelf) => sum + shelf.standing, 0);
    const bytes = shelves.reduce((sum, shelf) => sum + shelf.standing * shelf.bytesEach, 0);
    if (count < this.#max && bytes + wanting.bytesEach <= this.#memoryBytesMax) return true;
    const [oldest] = shelves
      .filter((shelf) => shelf.ready.length > 0 && shelf.askedAtMs < wanting.askedAtMs)
      .sort((a, b) => a.askedAtMs - b.askedAtMs);
    void oldest?.ready.shift()?.vm.kill("the pool needs its place");
    // Its memory is free only later; the next round sees.
    return oldest !== undefined && bytes + wanting.bytesEach - oldest.bytesEach <= this.#memoryBytesMax;
  }

  #make(shelf: Shelf): void {
    const startedAtMs = this.#clock.monotonicMs();
    const wanted = Promise.withResolvers<void>();
    const made = this.#options.make(shelf.key, wanted.promise).catch((error: unknown) => {
      this.#options.onError?.(error);
      return null;
    });
    const making: Making = { made, claimed: false, hurry: wanted.resolve };
    shelf.making.add(making);
    const work = made.then((booted) => {
      shelf.making.delete(making);
      this.#makes.delete(work);
      // A failure is not repeated at once: the next sweep is soon enough.
      if (booted === null) return;
      shelf.learn(this.#clock.monotonicMs() - startedAtMs);
      if (!making.claimed) this.#place(shelf, booted);
      if (this.#held === 0) this.#fill();
    });
    this.#makes.add(work);
  }

  #place(shelf: Shelf, booted: BootedMicroVm): void {
    shelf.ready.push(booted);
    booted.vm.stats().then(
      ({ memoryBytes }) => (shelf.bytesEach = memoryBytes),
      () => {},
    );
    void booted.vm.exited.then(() => {
      const index = shelf.ready.indexOf(booted);
      if (index !== -1) shelf.ready.splice(index, 1);
    });
  }
}

const kindOf = (key: ShelfKey): "bare" | "prepared" => (key.runtime === null ? "bare" : "prepared");
