import { SLOT_MB_EXPECTED } from "../wire/limits.ts";

/*
 * What a worker ends when it has too little of something. Pure: readings in, decisions out.
 */

const MIB = 1024 * 1024;

/** A slot that may be ended: nothing runs in it. */
export interface IdleSlot {
  readonly slotId: string;
  /** Nominal. */
  readonly memoryMb: number;
  /** Of the host, as measured; 0 before it ever was. */
  readonly memoryBytes: number;
}

/** What a slot is reckoned to take that was not measured. */
export const expectedBytes = (memoryMb: number): number => Math.min(memoryMb, SLOT_MB_EXPECTED) * MIB;

/** Slots and their nominal memory: what may be, and what is. */
export interface NominalUse {
  readonly slotsMax: number;
  readonly memoryMbMax: number;
  readonly slots: number;
  readonly memoryMb: number;
}

export type NominalRoom =
  | { readonly fits: true; readonly end: readonly IdleSlot[] }
  /** Ending everything that is idle would not do. */
  | { readonly fits: false; readonly lacks: "slots" | "memory" };

/** Which idle slots, given longest idle first, make room for one more slot of `memoryMb`: as few as will do. */
export const nominalRoom = (use: NominalUse, memoryMb: number, idle: readonly IdleSlot[]): NominalRoom => {
  let { slots, memoryMb: usedMb } = use;
  const end: IdleSlot[] = [];
  for (const next of [...idle, null]) {
    const hasSlot = slots < use.slotsMax;
    if (hasSlot && usedMb + memoryMb <= use.memoryMbMax) return { fits: true, end };
    if (next === null) return { fits: false, lacks: hasSlot ? "memory" : "slots" };
    slots -= 1;
    usedMb -= next.memoryMb;
    end.push(next);
  }
  throw new Error("unreachable: the last round returns");
};
