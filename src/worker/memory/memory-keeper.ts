import type { Clock, Timer } from "../../lib/clock.ts";
import { unavailable } from "../../wire/exhaustion.ts";
import { MEMORY_READ_MS } from "../../wire/limits.ts";
import type { MemoryReading } from "./host-memory.ts";
import { MemoryBudget } from "./memory-budget.ts";
import type { MemoryStallWatch } from "./memory-stalls.ts";
import type { MicroVmPool } from "../pool.ts";
import { expectedBytes, mayFillPool, relief, reserveBytes } from "./pressure.ts";
import type { IdleSlot } from "./pressure.ts";

export interface MemoryKeeperParts {
  readonly clock: Clock;
  /** How much memory there is. Must not reject. */
  readonly read: () => Promise<MemoryReading>;
  /** Watches for stalls of memory from now on. */
  readonly stalls: (onStall: () => void) => MemoryStallWatch;
  readonly pool: Pick<MicroVmPool, "readyBytes" | "shed">;
  /** Slots that may be ended, longest idle first. */
  readonly idle: () => readonly IdleSlot[];
  /** Ends one of them; resolves when its memory is back. */
  readonly end: (slotId: string) => Promise<void>;
}

const inMib = (bytes: number): number => Math.floor(bytes / 2 ** 20);

/**
 * Keeps the worker's reserve of memory: looks at the host's every MEMORY_READ_MS and when the kernel tells of a stall, and
 * ends of the pool and of the idle slots what is needed to have the reserve again.
 */
export class MemoryKeeper implements Disposable {
  readonly #parts: MemoryKeeperParts;
  readonly #budget: MemoryBudget;
  readonly #stalls: MemoryStallWatch;
  readonly #timer: Timer;
  /** The look that is under way. */
  #looking: Promise<void> | null = null;
  #closed = false;

  constructor(parts: MemoryKeeperParts) {
    this.#parts = parts;
    this.#budget = new MemoryBudget(parts.read, parts.clock);
    this.#stalls = parts.stalls(() => {
      this.#budget.stalled();
      void this.look();
    });
    this.#timer = parts.clock.every(MEMORY_READ_MS, () => this.look());
    void this.look();
  }

  /** Whether there is memory for microVMs that nobody asked for yet. */
  get mayFillPool(): boolean {
    const { state } = this.#budget;
    return state === null || mayFillPool(state);
  }

  /** How much there is now. */
  read(): Promise<MemoryReading> {
    return this.#budget.refresh();
  }

  /**
   * Room for one more slot of `memoryMb`, beside what slots that just start will still take. Throws 503 when ending all
   * that is idle would not make it, and ends nothing then.
   */
  makeRoom(memoryMb: number, startingBytes: number): void {
    const { state } = this.#budget;
    if (state === null) return;
    const wantedBytes = startingBytes + expectedBytes(memoryMb);
    const reserve = reserveBytes(state);
    if (state.availableBytes >= reserve + wantedBytes) return;
    const { poolBytes, slots, missingBytes } = relief(
      state,
      wantedBytes,
      this.#parts.pool.readyBytes,
      this.#parts.idle(),
    );
    if (missingBytes > 0) {
      throw unavailable(
        `This worker is short of memory: ${inMib(state.availableBytes)} of ${inMib(state.totalBytes)} MB are available, of which it keeps ${inMib(reserve)} in reserve, and no slot is idle that could make room. Try again when fewer invocations run.`,
      );
    }
    this.#shed(poolBytes);
    this.end(slots);
  }

  /** Looks at the memory now, unless a look is under way. Never rejects. */
  look(): Promise<void> {
    this.#looking ??= this.#look().finally(() => (this.#looking = null));
    return this.#looking;
  }

  async #look(): Promise<void> {
    await Promise.all([this.#budget.refresh(), this.#stalls.look()]);
    const { state } = this.#budget;
    if (this.#closed || state === null || state.availableBytes >= reserveBytes(state)) return;
    const { poolBytes, slots } = relief(state, 0, this.#parts.pool.readyBytes, this.#parts.idle());
    this.#shed(poolBytes);
    this.end(slots);
  }

  /** Ends idle slots; what they give back counts as available from now on. */
  end(slots: readonly IdleSlot[]): void {
    for (const { slotId, memoryBytes } of slots) this.#budget.comesBack(memoryBytes, this.#parts.end(slotId));
  }

  #shed(bytes: number): void {
    if (bytes <= 0) return;
    const shed = this.#parts.pool.shed(bytes);
    this.#budget.comesBack(shed.bytes, shed.done);
  }

  [Symbol.dispose](): void {
    this.#closed = true;
    this.#timer[Symbol.dispose]();
    this.#stalls[Symbol.dispose]();
  }
}
