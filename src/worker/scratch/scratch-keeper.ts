import type { Clock, Timer } from "../../lib/clock.ts";
import { unavailable } from "../../wire/exhaustion.ts";
import { makeScratchRoom, mayResume, scratchRelief, scratchRoom } from "./scratch-budget.ts";
import type { DiskReading, ScratchReading, ScratchSlot } from "./scratch-budget.ts";

const MIB = 1024 * 1024;
/** How often the disk is looked at: one system call. */
const LOOK_MS = 250;
/** With less room than a disk can take between two looks (a GiB a second, twice over) it is looked at more often. */
const NEAR_BYTES: number = 512 * MIB;
const LOOK_NEAR_MS = 10;
/** By the next look this many times what was taken since the last one may be gone: on a busy machine looks come late. */
const AHEAD_TIMES = 4;

export interface ScratchKeeperParts {
  readonly clock: Clock;
  /** Reads the disk that drives are on. */
  readonly disk: () => DiskReading;
  /** Most that all drives may take; null for all that the disk has beyond what is kept free. */
  readonly bytesMax: number | null;
  /** Measures what the drives of all slots take. Must not reject. */
  readonly measure: () => Promise<readonly ScratchSlot[]>;
  /** As measured last. */
  readonly slots: () => readonly ScratchSlot[];
  /** Ends an idle slot. */
  readonly end: (slotId: string) => Promise<void>;
  /** Lets a slot write to its drives, or not. */
  readonly setWritable: (slotId: string, writable: boolean) => void;
  readonly warn: (message: string, error: unknown) => void;
}

const used = (slots: readonly ScratchSlot[]): number => slots.reduce((sum, slot) => sum + slot.scratchBytes, 0);

/**
 * Keeps the `/tmp` of all functions within its budget of the disk, so that none of them takes the last of what the store, the code and
 * the logs need: refuses a start that has no room, ends idle slots, and at last stops the writing of those that took most.
 */
export class ScratchKeeper implements Disposable {
  readonly #parts: ScratchKeeperParts;
  readonly #stopped: Set<string> = new Set();
  #timer: Timer | null = null;
  #closed = false;
  #availableBytes = Number.POSITIVE_INFINITY;

  constructor(parts: ScratchKeeperParts) {
    this.#parts = parts;
    this.#lookIn(LOOK_MS);
  }

  /** The disk now, and what slots took when they were measured last. */
  read(): ScratchReading {
    return { ...this.#parts.disk(), usedBytes: used(this.#parts.slots()) };
  }

  /** Slots that may not write now. */
  get stopped(): number {
    return this.#stopped.size;
  }

  /** Room for one more slot with so much `/tmp`: idle slots give way. Throws 503, and ends nothing, when that would not do. */
  makeRoom(ephemeralMb: number): void {
    const { bytesMax, end } = this.#parts;
    const slots = this.#parts.slots();
    const reading = this.read();
    const room = makeScratchRoom(reading, bytesMax, slots, ephemeralMb);
    if (room.fits) {
      for (const { slotId } of room.end) void end(slotId);
      return;
    }
    const roomMb = Math.max(0, Math.floor(scratchRoom(reading, bytesMax) / MIB));
    const promisedMb = slots.reduce((sum, slot) => sum + slot.ephemeralMb, 0);
    const what = room.lacks === "room" ? `${roomMb} MB are left for it` : `${promisedMb} MB are promised already`;
    throw unavailable(
      `The /tmp of this function may take ${ephemeralMb} MB, and ${what} on the disk of this worker. Try again when fewer functions use theirs, free some of the disk, or raise the limit (\`--scratch\`).`,
    );
  }

  /** Looks at the disk now and does what is needed. Never rejects. */
  async look(): Promise<void> {
    const { bytesMax, measure, end, warn } = this.#parts;
    try {
      let reading = this.#ahead();
      const known = this.#parts.slots();
      // How much is taken is not seen at the disk where others take of it too.
      if (known.length > 0 && (scratchRoom(reading, bytesMax) < NEAR_BYTES || bytesMax !== null)) {
        // At once, by what is known: measuring takes its time, and the disk may be full by then.
        for (const { slotId } of scratchRelief(reading, bytesMax, known).stop) this.#stop(slotId);
        const slots = await measure();
        reading = { ...this.read(), usedBytes: used(slots) };
        const relief = scratchRelief(reading, bytesMax, slots);
        for (const { slotId } of relief.stop) this.#stop(slotId);
        for (const { slotId } of relief.end) void end(slotId);
      }
      if (this.#stopped.size > 0 && mayResume(reading, bytesMax)) this.#resume();
      const isNear = scratchRoom(reading, bytesMax) < NEAR_BYTES && known.length > 0;
      this.#lookIn(isNear ? LOOK_NEAR_MS : LOOK_MS);
    } catch (error) {
      warn("the disk that functions' /tmp is on could not be looked at", error);
      this.#lookIn(LOOK_MS);
    }
  }

  [Symbol.dispose](): void {
    this.#closed = true;
    this.#timer?.[Symbol.dispose]();
  }

  /** As it may be by the next look. */
  #ahead(): ScratchReading {
    const reading = this.read();
    const takenBytes = Math.max(0, this.#availableBytes - reading.availableBytes);
    this.#availableBytes = reading.availableBytes;
    if (!Number.isFinite(takenBytes)) return reading;
    return { ...reading, availableBytes: reading.availableBytes - AHEAD_TIMES * takenBytes };
  }

  #lookIn(delayMs: number): void {
    this.#timer?.[Symbol.dispose]();
    this.#timer = this.#closed ? null : this.#parts.clock.after(delayMs, () => this.look());
  }

  #stop(slotId: string): void {
    if (this.#stopped.has(slotId)) return;
    this.#stopped.add(slotId);
    this.#parts.setWritable(slotId, false);
    this.#parts.warn(
      `slot ${slotId} may write no more to its /tmp: the disk's room for it is used up (--scratch)`,
      null,
    );
  }

  #resume(): void {
    for (const slotId of this.#stopped) this.#parts.setWritable(slotId, true);
    this.#stopped.clear();
  }
}
