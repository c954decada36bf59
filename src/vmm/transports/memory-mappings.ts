import { fstatSync } from "node:fs";

import type { MemoryRegion } from "../devices/guest-memory.ts";
import { mapMemory, MEMORY_SLICE_BYTES, native } from "../native.ts";

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
  readonly #buffers: ArrayBuffer[] = [];
  readonly #bytesMax: number;
  #bytes = 0;

  /** `bytesMax`: of all parts together. A process has only so many mappings, and one guest must not take them all. */
  constructor(bytesMax: number) {
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
      const buffer = mapMemory(fd, part.offset + done, Math.min(MEMORY_SLICE_BYTES, part.bytes - done));
      this.#buffers.push(buffer);
      regions.push({ start: part.start + done, bytes: new Uint8Array(buffer) });
    }
    this.#mappings.push({ key, regions });
    return regions;
  }

  /** Unmaps everything: no device may use it any more. */
  [Symbol.dispose](): void {
    for (const buffer of this.#buffers.splice(0)) native().unmapMemory(buffer);
    this.#mappings.length = 0;
  }
}
