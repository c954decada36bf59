import { MEMORY_RESERVATION_BYTES, MEMORY_RESERVATION_BYTES_MIN, MEMORY_SLICE_BYTES } from "../limits.ts";
import { mapMemory, reserveMemory, unmapMemory } from "../native.ts";

/** A stretch of address space of MEMORY_SLICE_BYTES. */
export interface MemorySlice {
  readonly reservation: ArrayBuffer;
  readonly at: number;
}

/**
 * Address space for the memory of a monitor's guests, in slices that are used again: a guest's memory costs V8 a view,
 * not an ArrayBuffer, of which each would bring the next garbage collection nearer (native/binding/memory.c).
 */
export class MemorySlices {
  /** What was never used yet begins at `unusedAt` of it. */
  #reservation: ArrayBuffer;
  #unusedAt = 0;
  /** The one that was given back first is used again first. */
  readonly #free: MemorySlice[] = [];
  /** Given back, but with memory of their guest in them still: to be tried again. */
  readonly #stuck: MemorySlice[] = [];

  /** Throws a `NativeError` when the host has no address space to give. */
  constructor() {
    this.#reservation = reserve();
  }

  /** Maps up to MEMORY_SLICE_BYTES of a file. Throws as `mapMemory` does. */
  map(fd: number, offset: number, bytes: number): MemorySlice {
    const [slice = this.#unused()] = this.#free;
    mapMemory(slice.reservation, slice.at, fd, offset, bytes);
    if (this.#free.shift() === undefined) this.#unusedAt += MEMORY_SLICE_BYTES;
    return slice;
  }

  /**
   * Takes a guest's memory out of a slice and frees its pages, off the loop; resolves when that is done, never rejects. No
   * device may use it any more.
   */
  async unmap(slice: MemorySlice): Promise<void> {
    const stuck = this.#stuck.pop();
    for (const each of stuck === undefined ? [slice] : [slice, stuck]) {
      try {
        await unmapMemory(each.reservation, each.at, MEMORY_SLICE_BYTES);
        this.#free.push(each);
      } catch {
        // The process has as many mappings as it may (vm.max_map_count). It will have fewer when other guests end.
        this.#stuck.push(each);
      }
    }
  }

  #unused(): MemorySlice {
    if (this.#unusedAt === this.#reservation.byteLength) {
      this.#reservation = reserve();
      this.#unusedAt = 0;
    }
    return { reservation: this.#reservation, at: this.#unusedAt };
  }
}

/** As much address space as the host lets this process have: its limit on it (RLIMIT_AS) may be lower. */
const reserve = (): ArrayBuffer => {
  for (let bytes = MEMORY_RESERVATION_BYTES; ; bytes /= 2) {
    try {
      return reserveMemory(bytes);
    } catch (error) {
      if (bytes <= MEMORY_RESERVATION_BYTES_MIN) throw error;
    }
  }
};
