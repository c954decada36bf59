import { fstatSync } from "node:fs";

import type { MemoryRegion } from "../devices/guest-memory.ts";
import { MEMORY_SLICE_BYTES } from "../limits.ts";
import type { MemorySlice, MemorySlices } from "./memory-slices.ts";

/** A part of a guest's memory: where the guest has it, and where it lies in the file that came with it. */
export interface MemoryPart {
  readonly start: number;
  readonly offset: number;
  readonly bytes: number;
}

interface Mapping {
  readonly key: string;
  readonly regions: readonly MemoryRegion[];
}

/** One guest's memory, mapped once for all of its devices: each of them is told of the same file anew. */
export class MemoryMappings implements Disposable {
  readonly #mappings: Mapping[] = [];
  readonly #slices: MemorySlices;
  readonly #taken: MemorySlice[] = [];
  readonly #bytesMax: number;
  #bytes = 0;

  /** `bytesMax`: of all parts together. A process has only so many mappings, and one guest must not take them all. */
  constructor(slices: MemorySlices, bytesMax: number) {
    this.#slices = slices;
    this.#bytesMax = bytesMax;
  }

  /** Maps a part of the file, unless it is mapped already. Throws as `mapMemory` does, and when it is too much. */
  map(fd: number, part: MemoryPart): readonly MemoryRegion[] {
    const { dev, ino } = fstatSync(fd, { bigint: true });
    const key = [dev, ino, part.start, part.offset, part.bytes].join(" ");
    const known = this.#mappings.find((mapping) => mapping.key === key);
    if (known !== undefined) return known.regions;
    if (this.#bytes + part.bytes > this.#bytesMax)
      throw new Error(`${String(part.bytes)} bytes more of guest memory; ${String(this.#bytesMax)} may be`);
    this.#bytes += part.bytes;
    const regions: MemoryRegion[] = [];
    for (let done = 0; done < part.bytes; done += MEMORY_SLICE_BYTES) {
      const bytes = Math.min(MEMORY_SLICE_BYTES, part.bytes - done);
      const slice = this.#slices.map(fd, part.offset + done, bytes);
      this.#taken.push(slice);
      regions.push({ start: part.start + done, bytes: new Uint8Array(slice.reservation, slice.at, bytes) });
    }
    this.#mappings.push({ key, regions });
    return regions;
  }

  /**
   * Unmaps everything and frees it, a slice at a time so that the pool of threads is left to others between two; resolves
   * when that is done, never rejects. No device may use it any more.
   */
  async release(): Promise<void> {
    this.#mappings.length = 0;
    for (let slice = this.#taken.pop(); slice !== undefined; slice = this.#taken.pop()) await this.#slices.unmap(slice);
  }

  /** Begins to. */
  [Symbol.dispose](): void {
    void this.release();
  }
}
