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
  /** By address. Neighbours may touch: a large memory comes in slices. */
  readonly #regions: readonly Region[];
  #last: Region;

  /** Throws `DeviceError` when regions overlap or there is none. */
  constructor(regions: readonly MemoryRegion[]) {
    this.#regions = regions.map((region) => new Region(region)).toSorted((a, b) => a.start - b.start);
    const [first] = this.#regions;
    if (first === undefined) throw new DeviceError("A guest without memory");
    this.#last = first;
    for (const [i, region] of this.#regions.entries()) {
      const next = this.#regions[i + 1];
      if (next !== undefined && next.start < region.end) throw new DeviceError("Regions of guest memory overlap");
    }
  }

  /** The region in which an address lies. Throws `DeviceError` when there is none. */
  regionOf(address: number): Region {
    const last = this.#last;
    if (address >= last.start && address < last.end) return last;
    let low = 0;
    let high = this.#regions.length - 1;
    while (low <= high) {
      const middle = (low + high) >> 1;
      const region = this.#regions[middle];
      if (region === undefined) break;
      if (address < region.start) high = middle - 1;
      else if (address >= region.end) low = middle + 1;
      else return (this.#last = region);
    }
    throw new DeviceError(`Address 0x${address.toString(16)} is outside of the guest's memory`);
  }

  /** The region that holds all of [address, address + length). Throws `DeviceError` when there is none. */
  locate(address: number, length: number): Region {
    const region = this.regionOf(address);
    if (address + length > region.end)
      throw new DeviceError(`Address 0x${address.toString(16)} + ${String(length)} leaves the guest's memory`);
    return region;
  }
}
