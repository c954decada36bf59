/*
 * What may be taken of the disk by the `/tmp` of all functions, and what is done when it is taken. Pure: readings in, decisions out.
 * Drives are sparse and promised many times over, as memory is: functions seldom fill what they are given. So a start is
 * refused only where its own `/tmp` has no room now, or where far too much is promised; and what is really taken is watched.
 */

const MIB = 1024 * 1024;

/** Nominal `/tmp` of all slots together, as a multiple of the room there is: as memory (OVERCOMMIT_DEFAULT). */
export const SCRATCH_OVERCOMMIT = 20;
/** Share of its file system that scratch leaves free for what is stored beside it, and bounds of that. */
const KEEP_FREE_SHARE = 0.1;
const KEEP_FREE_BYTES_MIN: number = 16 * MIB;
const KEEP_FREE_BYTES_MAX: number = 4_096 * MIB;
/** Writing is allowed again when so much of what is to be kept free is free on top. */
const RESUME_SHARE = 0.25;

/** One reading of a disk, in bytes. */
export interface DiskReading {
  readonly totalBytes: number;
  readonly availableBytes: number;
}

/** One of the disk that drives are on. */
export interface ScratchReading extends DiskReading {
  /** What all drives take. */
  readonly usedBytes: number;
}

export interface ScratchSlot {
  readonly slotId: string;
  readonly ephemeralMb: number;
  /** As measured. */
  readonly scratchBytes: number;
  /** Nothing runs in it: it may be ended. */
  readonly isIdle: boolean;
}

/** What is left free for the store, the code and the logs, where drives are on the same file system. */
export const keepFreeBytes = (totalBytes: number): number =>
  Math.min(KEEP_FREE_BYTES_MAX, Math.max(KEEP_FREE_BYTES_MIN, totalBytes * KEEP_FREE_SHARE));

/** What drives may still take: below 0 when it is too much already. `bytesMax`: a limit of its own, or null. */
export const scratchRoom = (reading: ScratchReading, bytesMax: number | null): number => {
  const onDisk = reading.availableBytes - keepFreeBytes(reading.totalBytes);
  return bytesMax === null ? onDisk : Math.min(onDisk, bytesMax - reading.usedBytes);
};

const bySize = (slots: readonly ScratchSlot[]): ScratchSlot[] =>
  slots.toSorted((a, b) => b.scratchBytes - a.scratchBytes);

export type ScratchRoom =
  /** Room is there once these idle slots have ended. */
  | { readonly fits: true; readonly end: readonly ScratchSlot[] }
  /** Ending everything that is idle would not do: there is too little room, or too much is promised already. */
  | { readonly fits: false; readonly lacks: "room" | "promise" };

/** Which idle slots, the largest first, make room for one more slot of `ephemeralMb`: as few as will do. */
export const makeScratchRoom = (
  reading: ScratchReading,
  bytesMax: number | null,
  slots: readonly ScratchSlot[],
  ephemeralMb: number,
): ScratchRoom => {
  let promisedMb = slots.reduce((sum, slot) => sum + slot.ephemeralMb, ephemeralMb);
  let roomBytes = scratchRoom(reading, bytesMax);
  const promiseMbMax = ((roomBytes + reading.usedBytes) * SCRATCH_OVERCOMMIT) / MIB;
  const end: ScratchSlot[] = [];
  for (const next of [...bySize(slots.filter(({ isIdle }) => isIdle)), null]) {
    const hasRoom = roomBytes >= ephemeralMb * MIB;
    if (hasRoom && promisedMb <= promiseMbMax) return { fits: true, end };
    if (next === null) return { fits: false, lacks: hasRoom ? "promise" : "room" };
    roomBytes += next.scratchBytes;
    promisedMb -= next.ephemeralMb;
    end.push(next);
  }
  throw new Error("unreachable: the last round returns");
};

export interface ScratchRelief {
  /** Idle slots to end, the largest first. */
  readonly end: readonly ScratchSlot[];
  /** Slots that may write no more, until there is room again. */
  readonly stop: readonly ScratchSlot[];
}

/**
 * What to do when there is no room: idle slots give theirs back first; if that is not enough, slots that have taken more than their
 * part may write no more, and when half of what is to be kept free is gone too nobody may.
 */
export const scratchRelief = (
  reading: ScratchReading,
  bytesMax: number | null,
  slots: readonly ScratchSlot[],
): ScratchRelief => {
  let missing = -scratchRoom(reading, bytesMax);
  if (missing < 0) return { end: [], stop: [] };
  const end: ScratchSlot[] = [];
  for (const slot of bySize(slots.filter(({ isIdle }) => isIdle))) {
    if (missing < 0) break;
    end.push(slot);
    missing -= slot.scratchBytes;
  }
  const busy = slots.filter(({ isIdle }) => !isIdle);
  if (reading.availableBytes < keepFreeBytes(reading.totalBytes) / 2) return { end, stop: busy };
  const part = reading.usedBytes / Math.max(1, slots.length);
  return { end, stop: busy.filter(({ scratchBytes }) => scratchBytes >= part) };
};

/** Whether those that were stopped may write again. */
export const mayResume = (reading: ScratchReading, bytesMax: number | null): boolean =>
  scratchRoom(reading, bytesMax) >
  Math.min(keepFreeBytes(reading.totalBytes), bytesMax ?? Number.POSITIVE_INFINITY) * RESUME_SHARE;
