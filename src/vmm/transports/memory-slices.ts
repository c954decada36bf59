import { MEMORY_RESERVATION_BYTES, MEMORY_SLICE_BYTES } from "../limits.ts";
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
  /** The one that was given back first is used again first. */
  readonly #free: MemorySlice[] = [];
  /** Given back, but with memory of their guest in them still: to be tried again. */
  readonly #stuck: MemorySlice[] = [];

  /** Maps up to MEMORY_SLICE_BYTES of a file. Throws as `mapMemory` does. */
  map(fd: number, offset: number, bytes: number): MemorySlice {
    if (this.#free.length === 0) this.#reserve();
    const [slice] = this.#free;
    if (slice === undefined) throw new Error("A reservation without slices");
    mapMemory(slice.reservation, slice.at, fd, offset, bytes);
    this.#free.shift();
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

  #reserve(): void {
    const reservation = reserveMemory(MEMORY_RESERVATION_BYTES);
    for (let at = 0; at < MEMORY_RESERVATION_BYTES; at += MEMORY_SLICE_BYTES) this.#free.push({ reservation, at });
  }
}
