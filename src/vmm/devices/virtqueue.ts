import { CHAIN_BYTES_MAX, QUEUE_ENTRIES_MAX } from "../limits.ts";
import { DeviceError } from "./device-error.ts";
import type { GuestMemory, Region } from "./guest-memory.ts";

/*
 * Split virtqueue, VIRTIO 1.2 section 2.7, the device's side. Knows guest memory as bytes and nothing of the transport.
 * Indirect descriptors and event indices are not offered, so neither may appear.
 */

const DESCRIPTOR_BYTES = 16;
const USED_ELEMENT_BYTES = 8;
const FLAG_NEXT = 1;
const FLAG_WRITE = 2;
const FLAG_INDIRECT = 4;
const AVAIL_NO_INTERRUPT = 1;
const USED_NO_NOTIFY = 1;
/** Beyond this the high half of a 64-bit address cannot be a JavaScript integer (2^53), nor anyone's memory. */
const ADDRESS_HIGH_MAX = 0x1f_ffff;

/** Where a queue lies, in guest addresses. */
export interface VirtqueueLayout {
  readonly entries: number;
  readonly descriptors: number;
  readonly available: number;
  readonly used: number;
}

/** One buffer of a chain, checked to be inside guest memory. */
export interface ChainBuffer {
  region: Region;
  /** Offset in the region. */
  offset: number;
  length: number;
}

/**
 * A descriptor chain: the buffers the device reads come first, then those it writes. Reused from one `pop` to the next;
 * a device that keeps one longer pops into its own.
 */
export class Chain {
  head = 0;
  readableCount = 0;
  readableBytes = 0;
  writableCount = 0;
  writableBytes = 0;
  /** Descriptors it is made of: what looking at it cost. */
  descriptors = 0;
  /** `readableCount` readable buffers, then `writableCount` writable ones; more may lie behind from earlier chains. */
  readonly buffers: ChainBuffer[] = [];
}

const checkAligned = (name: string, address: number, alignment: number): void => {
  if (address % alignment !== 0)
    throw new DeviceError(
      `The ${name} of a queue is at 0x${address.toString(16)}, not aligned to ${String(alignment)}`,
    );
};

export class Virtqueue {
  readonly entries: number;
  readonly #memory: GuestMemory;
  readonly #descriptors: DataView<ArrayBuffer>;
  /** flags, idx, ring[entries] */
  readonly #available: Uint16Array<ArrayBuffer>;
  /** flags, idx */
  readonly #used: Uint16Array<ArrayBuffer>;
  /** id, len pairs */
  readonly #usedRing: Uint32Array<ArrayBuffer>;
  readonly #chain = new Chain();
  #nextAvailable = 0;
  #nextUsed = 0;
  /** `nextUsed` when the driver was last told. */
  #signalled = 0;

  /** Throws `DeviceError` when the layout is impossible or outside of memory. */
  constructor(memory: GuestMemory, layout: VirtqueueLayout) {
    const { entries } = layout;
    if (entries < 1 || entries > QUEUE_ENTRIES_MAX || (entries & (entries - 1)) !== 0)
      throw new DeviceError(
        `A queue of ${String(entries)} entries; a power of two up to ${String(QUEUE_ENTRIES_MAX)} may be`,
      );
    checkAligned("descriptor table", layout.descriptors, DESCRIPTOR_BYTES);
    checkAligned("available ring", layout.available, 2);
    checkAligned("used ring", layout.used, 4);
    this.entries = entries;
    this.#memory = memory;
    const table = memory.locate(layout.descriptors, entries * DESCRIPTOR_BYTES);
    this.#descriptors = new DataView(
      table.bytes.buffer,
      table.bytes.byteOffset + layout.descriptors - table.start,
      entries * DESCRIPTOR_BYTES,
    );
    const available = memory.locate(layout.available, 4 + 2 * entries);
    this.#available = new Uint16Array(
      available.bytes.buffer,
      available.bytes.byteOffset + layout.available - available.start,
      2 + entries,
    );
    const used = memory.locate(layout.used, 4 + USED_ELEMENT_BYTES * entries);
    const usedOffset = used.bytes.byteOffset + layout.used - used.start;
    this.#used = new Uint16Array(used.bytes.buffer, usedOffset, 2);
    this.#usedRing = new Uint32Array(used.bytes.buffer, usedOffset + 4, 2 * entries);
  }

  /** How many chains the driver has made available and `pop` has not yet taken. */
  available(): number {
    const count = (Atomics.load(this.#available, 1) - this.#nextAvailable) & 0xffff;
    if (count <= this.entries) return count;
    // A driver that lets go of its device takes back what it had offered (Linux: virtqueue_detach_unused_buf).
    if (0x1_0000 - count <= this.entries) return 0;
    throw new DeviceError(`${String(count)} buffers available in a queue of ${String(this.entries)} entries`);
  }

  /** Takes the next chain, or null when there is none. The chain is good until the next `pop`. */
  pop(chain: Chain = this.#chain): Chain | null {
    if (this.available() === 0) return null;
    const head = this.#available[2 + (this.#nextAvailable & (this.entries - 1))] ?? 0;
    this.#walk(head, chain);
    this.#nextAvailable = (this.#nextAvailable + 1) & 0xffff;
    return chain;
  }

  #walk(head: number, chain: Chain): void {
    chain.head = head;
    chain.readableCount = chain.readableBytes = chain.writableCount = chain.writableBytes = 0;
    let index = head;
    for (let count = 0; ; count++) {
      chain.descriptors = count + 1;
      // A chain cannot be longer than the table; a longer one is a loop.
      if (count === this.entries) throw new DeviceError("A descriptor chain loops");
      if (index >= this.entries)
        throw new DeviceError(`Descriptor ${String(index)} of a queue of ${String(this.entries)} entries`);
      const at = index * DESCRIPTOR_BYTES;
      const low = this.#descriptors.getUint32(at, true);
      const high = this.#descriptors.getUint32(at + 4, true);
      const length = this.#descriptors.getUint32(at + 8, true);
      const flags = this.#descriptors.getUint16(at + 12, true);
      const next = this.#descriptors.getUint16(at + 14, true);
      if ((flags & FLAG_INDIRECT) !== 0) throw new DeviceError("An indirect descriptor, which was not offered");
      if (high > ADDRESS_HIGH_MAX) throw new DeviceError("A descriptor's address is beyond any memory");
      this.#add(chain, high * 0x1_0000_0000 + low, length, (flags & FLAG_WRITE) !== 0);
      if ((flags & FLAG_NEXT) === 0) return;
      index = next;
    }
  }

  /** A descriptor's memory, as one buffer, or as several where it goes on in the next region. */
  #add(chain: Chain, address: number, length: number, writable: boolean): void {
    if (!writable && chain.writableCount > 0) throw new DeviceError("A readable descriptor after a writable one");
    // Before its memory is looked at: that takes a step for each slice of it.
    const bytes = chain.readableBytes + chain.writableBytes + length;
    if (bytes > CHAIN_BYTES_MAX)
      throw new DeviceError(
        `A descriptor chain must be at most ${String(CHAIN_BYTES_MAX)} bytes, got ${String(bytes)}`,
      );
    for (let at = address, left = length; left > 0;) {
      const region = this.#memory.regionOf(at);
      const take = Math.min(left, region.end - at);
      this.#addBuffer(chain, region, at - region.start, take);
      if (writable) chain.writableCount++;
      else chain.readableCount++;
      at += take;
      left -= take;
    }
    if (writable) chain.writableBytes += length;
    else chain.readableBytes += length;
  }

  #addBuffer(chain: Chain, region: Region, offset: number, length: number): void {
    const buffer = chain.buffers[chain.readableCount + chain.writableCount];
    if (buffer === undefined) {
      chain.buffers.push({ region, offset, length });
    } else {
      buffer.region = region;
      buffer.offset = offset;
      buffer.length = length;
    }
  }

  /** Gives a chain back with so many bytes written into it. The driver sees it at once, but is only told by a signal. */
  push(head: number, written: number): void {
    const slot = 2 * (this.#nextUsed & (this.entries - 1));
    this.#usedRing[slot] = head;
    this.#usedRing[slot + 1] = written;
    this.#nextUsed = (this.#nextUsed + 1) & 0xffff;
    Atomics.store(this.#used, 1, this.#nextUsed);
  }

  /** Whether the driver wants to be told of what was pushed since this was last asked. */
  takeSignal(): boolean {
    if (this.#signalled === this.#nextUsed) return false;
    this.#signalled = this.#nextUsed;
    return (Atomics.load(this.#available, 0) & AVAIL_NO_INTERRUPT) === 0;
  }

  /** Asks the driver not to kick while we are looking anyway. A hint: it may kick all the same. */
  suppressKicks(): void {
    Atomics.store(this.#used, 0, USED_NO_NOTIFY);
  }

  /** Asks for kicks again; returns true when something arrived meanwhile, which no kick will tell. */
  allowKicks(): boolean {
    // Atomics are sequentially consistent: the flag is visible before the index is read.
    Atomics.store(this.#used, 0, 0);
    return this.available() > 0;
  }
}
