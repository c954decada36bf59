import type { Clock } from "../../lib/clock.ts";
import { MEMORY_STALLED_MS } from "../../wire/limits.ts";
import type { MemoryReading } from "./host-memory.ts";
import type { MemoryState } from "./pressure.ts";

/** Memory of microVMs that are being ended. */
interface Coming {
  readonly bytes: number;
  isBack: boolean;
}

/**
 * What there is of memory between one reading and the next: what microVMs give back that are just ending is not counted as
 * missing, or more of them would be ended for the same need.
 */
export class MemoryBudget {
  readonly #read: () => Promise<MemoryReading>;
  readonly #clock: Clock;
  readonly #coming: Set<Coming> = new Set();
  #reading: MemoryReading | null = null;
  #stalledAtMs = Number.NEGATIVE_INFINITY;

  constructor(read: () => Promise<MemoryReading>, clock: Clock) {
    this.#read = read;
    this.#clock = clock;
  }

  /** null before the first reading. */
  get state(): MemoryState | null {
    if (this.#reading === null) return null;
    const { totalBytes, availableBytes } = this.#reading;
    let comingBytes = 0;
    for (const { bytes } of this.#coming) comingBytes += bytes;
    const isStalled = this.#clock.monotonicMs() - this.#stalledAtMs < MEMORY_STALLED_MS;
    return { totalBytes, availableBytes: availableBytes + comingBytes, isStalled };
  }

  /** The kernel says that tasks wait for memory. */
  stalled(): void {
    this.#stalledAtMs = this.#clock.monotonicMs();
  }

  /** So much comes back once `done` has settled. */
  comesBack(bytes: number, done: Promise<unknown>): void {
    const coming: Coming = { bytes, isBack: false };
    this.#coming.add(coming);
    const settled = (): void => void (coming.isBack = true);
    done.then(settled, settled);
  }

  async refresh(): Promise<MemoryReading> {
    // What is back before the reading is in it.
    const back = [...this.#coming].filter(({ isBack }) => isBack);
    this.#reading = await this.#read();
    for (const coming of back) this.#coming.delete(coming);
    return this.#reading;
  }
}
