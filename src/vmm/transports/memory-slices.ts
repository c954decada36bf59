import { MEMORY_RESERVATION_BYTES, MEMORY_SLICE_BYTES } from "../limits.ts";
import { checked, mapMemory, native, reserveMemory } from "../native.ts";

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

  /** Maps up to MEMORY_SLICE_BYTES of a file. Throws as `mapMemory` does. */
  map(fd: number, offset: number, bytes: number): MemorySlice {
    if (this.#free.length === 0) this.#reserve();
    const [slice] = this.#free;
    if (slice === undefined) throw new Error("A reservation without slices");
    mapMemory(slice.reservation, slice.at, fd, offset, bytes);
    this.#free.shift();
    return slice;
  }

  /** Takes a guest's memory out of a slice: whoever still looks there sees zeros. */
  unmap(slice: MemorySlice): void {
    checked("Unmap guest memory", native().unmapMemory(slice.reservation, slice.at, MEMORY_SLICE_BYTES));
    this.#free.push(slice);
  }

  #reserve(): void {
    const reservation = reserveMemory(MEMORY_RESERVATION_BYTES);
    for (let at = 0; at < MEMORY_RESERVATION_BYTES; at += MEMORY_SLICE_BYTES) this.#free.push({ reservation, at });
  }
}
