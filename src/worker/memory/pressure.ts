import {
  POOL_RESERVES_MIN,
  SLOT_MB_EXPECTED,
  WORKER_MEMORY_RESERVE_BYTES,
  WORKER_MEMORY_RESERVE_SHARE,
} from "../../wire/limits.ts";

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

/** What there is of memory, in bytes, and whether the host's tasks wait for it. */
export interface MemoryState {
  readonly totalBytes: number;
  readonly availableBytes: number;
  readonly isStalled: boolean;
}

/** What is to stay available. A host that stalls has less than it says: files in use count as available, and are read anew. */
export const reserveBytes = ({ totalBytes, isStalled }: Pick<MemoryState, "totalBytes" | "isStalled">): number =>
  Math.min(WORKER_MEMORY_RESERVE_BYTES, totalBytes * WORKER_MEMORY_RESERVE_SHARE) * (isStalled ? 2 : 1);

/** Whether there is so much that microVMs may be made which nobody asked for yet. */
export const mayFillPool = (state: MemoryState): boolean =>
  state.availableBytes >= POOL_RESERVES_MIN * reserveBytes(state);

export interface Relief {
  /** Of the pool, which is nobody's yet. */
  readonly poolBytes: number;
  readonly slots: readonly IdleSlot[];
  /** What is still missing then. */
  readonly missingBytes: number;
}

/** What to end so that `wantedBytes` can be had beside the reserve: of the pool first, then slots in the order given. */
export const relief = (
  state: MemoryState,
  wantedBytes: number,
  poolBytes: number,
  idle: readonly IdleSlot[],
): Relief => {
  let missingBytes = Math.max(0, reserveBytes(state) + wantedBytes - state.availableBytes);
  const fromPool = Math.min(poolBytes, missingBytes);
  missingBytes -= fromPool;
  const slots: IdleSlot[] = [];
  for (const slot of idle) {
    if (missingBytes <= 0) break;
    slots.push(slot);
    missingBytes -= slot.memoryBytes === 0 ? expectedBytes(slot.memoryMb) : slot.memoryBytes;
  }
  return { poolBytes: fromPool, slots, missingBytes: Math.max(0, missingBytes) };
};
