import { MEMORY_REGIONS_MAX } from "../limits.ts";
import { DeviceError } from "./device-error.ts";

/** A stretch of guest memory: `bytes` holds the guest's addresses from `start` on. */
export interface MemoryRegion {
  readonly start: number;
  readonly bytes: Uint8Array<ArrayBuffer>;
}

/** A region with its views; offsets into them are relative to the region's start. */
export class Region implements MemoryRegion {
  readonly start: number;
  readonly end: number;
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly view: DataView<ArrayBuffer>;

  constructor({ start, bytes }: MemoryRegion) {
    this.start = start;
    this.end = start + bytes.length;
    this.bytes = bytes;
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  }
}

/**
 * Guest memory as bytes. Other processes (the guest) change it while we look: whoever reads a value that matters
 * reads it once, into a local variable.
 */
export class GuestMemory {
  readonly regions: readonly Region[];
  #last: Region;

  constructor(regions: readonly MemoryRegion[]) {
    const [first] = regions;
    if (first === undefined || regions.length > MEMORY_REGIONS_MAX)
      throw new DeviceError(
        `Guest memory has ${String(regions.length)} regions; 1 to ${String(MEMORY_REGIONS_MAX)} may be`,
      );
    this.regions = regions.map((region) => new Region(region));
    this.#last = this.regions[0] ?? new Region(first);
    const sorted = this.regions.toSorted((a, b) => a.start - b.start);
    for (const [i, region] of sorted.entries()) {
      const next = sorted[i + 1];
      if (next !== undefined && next.start < region.end) throw new DeviceError("Regions of guest memory overlap");
    }
  }

  /** The region that holds all of [address, address + length). Throws `DeviceError` when there is none. */
  locate(address: number, length: number): Region {
    const last = this.#last;
    if (address >= last.start && address + length <= last.end) return last;
    for (const region of this.regions) {
      if (address >= region.start && address + length <= region.end) {
        this.#last = region;
        return region;
      }
    }
    throw new DeviceError(`Address 0x${address.toString(16)} + ${String(length)} is outside of the guest's memory`);
  }
}
