/** A guest's driver for tests: queues in synthetic guest memory, well-formed unless told otherwise. */
import { systemClock } from "../../lib/clock.ts";
import type { Clock } from "../../lib/clock.ts";
import { DeviceError } from "./device-error.ts";
import { GuestMemory } from "./guest-memory.ts";
import type { DeviceDriver, DeviceHost } from "./virtio-device.ts";
import { Virtqueue, type VirtqueueLayout } from "./virtqueue.ts";
import {
  VSOCK_GUEST_CID,
  VSOCK_HEADER_BYTES,
  VSOCK_HOST_CID,
  VSOCK_TYPE_STREAM,
  type VsockHeader,
} from "./vsock-packet.ts";

export const MEMORY_START = 0x10_0000;
export const MEMORY_BYTES: number = 1024 * 1024;

/** The `soon` of a clock whose calls a test makes itself. */
export const putOff =
  (later: (() => void)[]): Clock["soon"] =>
  (callback) => {
    later.push(() => void callback());
    return { [Symbol.dispose]: () => {} };
  };

/** A guest without a microVM: tells of what a device found wrong, and leaves every other error loud. */
export const testHost = (
  onError: (error: DeviceError) => void = () => {},
  soon: Clock["soon"] = (callback) => systemClock.soon(callback),
): DeviceHost => {
  const run = (work: () => void): void => {
    try {
      work();
    } catch (error) {
      if (!(error instanceof DeviceError)) throw error;
      onError(error);
    }
  };
  return {
    run,
    clock: {
      ...systemClock,
      after: (delayMs, callback) => systemClock.after(delayMs, () => run(() => void callback())),
      soon: (callback) => soon(() => run(() => void callback())),
    },
  };
};

const GUARD_BYTES = 4096;
const GUARD = 0xa5;

export interface TestDescriptor {
  readonly address: number;
  readonly length: number;
  readonly flags: number;
  readonly next: number;
}

/** The driver's side of one queue. */
export class TestQueue {
  readonly layout: VirtqueueLayout;
  readonly #view: DataView;
  available = 0;
  usedSeen = 0;

  constructor(view: DataView, base: number, entries: number) {
    this.#view = view;
    this.layout = {
      entries,
      descriptors: MEMORY_START + base,
      available: MEMORY_START + base + entries * 16,
      used: MEMORY_START + base + entries * 16 + 4 + entries * 2 + ((4 - ((4 + entries * 2) % 4)) % 4),
    };
  }

  describe(index: number, { address, length, flags, next }: TestDescriptor): void {
    const at = this.layout.descriptors - MEMORY_START + index * 16;
    this.#view.setBigUint64(at, BigInt(address), true);
    this.#view.setUint32(at + 8, length, true);
    this.#view.setUint16(at + 12, flags, true);
    this.#view.setUint16(at + 14, next, true);
  }

  /** Makes the chain that begins at descriptor `head` available. */
  offer(head: number): void {
    const at = this.layout.available - MEMORY_START;
    this.#view.setUint16(at + 4 + 2 * (this.available % this.layout.entries), head, true);
    this.available = (this.available + 1) & 0xffff;
    this.#view.setUint16(at + 2, this.available, true);
  }

  setAvailable(index: number): void {
    this.#view.setUint16(this.layout.available - MEMORY_START + 2, index, true);
  }

  setFlags(flags: number): void {
    this.#view.setUint16(this.layout.available - MEMORY_START, flags, true);
  }

  /** What the device gave back since this was last asked. */
  takeUsed(): { head: number; length: number }[] {
    const at = this.layout.used - MEMORY_START;
    const used: { head: number; length: number }[] = [];
    while (this.usedSeen !== this.#view.getUint16(at + 2, true)) {
      const element = at + 4 + 8 * (this.usedSeen % this.layout.entries);
      used.push({ head: this.#view.getUint32(element, true), length: this.#view.getUint32(element + 4, true) });
      this.usedSeen = (this.usedSeen + 1) & 0xffff;
    }
    return used;
  }

  get flags(): number {
    return this.#view.getUint16(this.layout.used - MEMORY_START, true);
  }
}

/** Synthetic guest memory with three queues at its beginning. */
export class TestGuestMemory {
  /** More than the guest has: what is around its memory must never change. */
  readonly #arena = new Uint8Array(MEMORY_BYTES + 2 * GUARD_BYTES).fill(GUARD);
  readonly bytes: Uint8Array<ArrayBuffer> = this.#arena.subarray(GUARD_BYTES, GUARD_BYTES + MEMORY_BYTES).fill(0);
  readonly view: DataView<ArrayBuffer> = new DataView(this.#arena.buffer, GUARD_BYTES, MEMORY_BYTES);
  readonly memory: GuestMemory;
  readonly queues: TestQueue[];
  readonly signals: number[] = [];

  constructor(entries = 8, slices = 1) {
    const slice = MEMORY_BYTES / slices;
    this.memory = new GuestMemory(
      Array.from({ length: slices }, (_, i) => ({
        start: MEMORY_START + i * slice,
        bytes: this.bytes.subarray(i * slice, (i + 1) * slice),
      })),
    );
    this.queues = [0, 1, 2].map((i) => new TestQueue(this.view, i * 0x2000, entries));
  }

  /** True while nothing was written outside of the guest's memory. */
  guardsIntact(): boolean {
    const guards = [this.#arena.subarray(0, GUARD_BYTES), this.#arena.subarray(GUARD_BYTES + MEMORY_BYTES)];
    return guards.every((guard) => guard.every((byte) => byte === GUARD));
  }

  queue(index: number): TestQueue {
    const queue = this.queues[index];
    if (queue === undefined) throw new Error(`no queue ${String(index)}`);
    return queue;
  }

  driver(): DeviceDriver {
    return {
      features: 1n << 32n,
      queues: this.queues.map(({ layout }) => new Virtqueue(this.memory, layout)),
      signal: (queue) => this.signals.push(queue),
    };
  }
}

export type TestPacket = Pick<VsockHeader, "sourcePort" | "destinationPort" | "operation"> &
  Partial<VsockHeader> & { readonly payload?: Uint8Array };

const RECEIVE_BUFFER_BYTES = 4096;
/** Of 64 KiB each, in the second half of the memory. */
const SEND_BUFFERS = 8;

/** A guest's vsock driver: sends packets one by one, keeps receive buffers filled, returns what arrived. */
export class TestVsockDriver extends TestGuestMemory {
  readonly #entries: number;

  constructor(entries = 8) {
    super(entries);
    this.#entries = entries;
  }

  #receiveAddress(index: number): number {
    return MEMORY_START + 0x1_0000 + index * RECEIVE_BUFFER_BYTES;
  }

  /** Offers all receive buffers. */
  fillReceive(count: number = this.#entries): void {
    for (let i = 0; i < count; i++) {
      this.queue(0).describe(i, { address: this.#receiveAddress(i), length: RECEIVE_BUFFER_BYTES, flags: 2, next: 0 });
      this.queue(0).offer(i);
    }
  }

  /** Puts a packet into the transmit queue; the test kicks. */
  send(packet: TestPacket, slot: number = this.queue(1).available % Math.min(this.#entries >> 1, SEND_BUFFERS)): void {
    const address = MEMORY_START + 0x8_0000 + slot * 0x1_0000;
    const at = address - MEMORY_START;
    const payload = packet.payload ?? new Uint8Array();
    this.view.setBigUint64(at, BigInt(VSOCK_GUEST_CID), true);
    this.view.setBigUint64(at + 8, BigInt(VSOCK_HOST_CID), true);
    this.view.setUint32(at + 16, packet.sourcePort, true);
    this.view.setUint32(at + 20, packet.destinationPort, true);
    this.view.setUint32(at + 24, packet.length ?? payload.length, true);
    this.view.setUint16(at + 28, packet.type ?? VSOCK_TYPE_STREAM, true);
    this.view.setUint16(at + 30, packet.operation, true);
    this.view.setUint32(at + 32, packet.flags ?? 0, true);
    this.view.setUint32(at + 36, packet.bufferBytes ?? 65_536, true);
    this.view.setUint32(at + 40, packet.forwarded ?? 0, true);
    this.bytes.set(payload, at + VSOCK_HEADER_BYTES);
    const queue = this.queue(1);
    const head = 2 * slot;
    queue.describe(head, { address, length: VSOCK_HEADER_BYTES, flags: payload.length > 0 ? 1 : 0, next: head + 1 });
    queue.describe(head + 1, { address: address + VSOCK_HEADER_BYTES, length: payload.length, flags: 0, next: 0 });
    queue.offer(head);
  }

  /** Packets the device has put into receive buffers, which are offered again. */
  receive(): (Pick<VsockHeader, "sourcePort" | "destinationPort" | "operation" | "flags" | "forwarded"> & {
    readonly payload: Buffer;
  })[] {
    return this.queue(0)
      .takeUsed()
      .filter(({ head }) => head < this.#entries)
      .map(({ head, length }) => {
        const at = this.#receiveAddress(head) - MEMORY_START;
        const packet = {
          sourcePort: this.view.getUint32(at + 16, true),
          destinationPort: this.view.getUint32(at + 20, true),
          operation: this.view.getUint16(at + 30, true),
          flags: this.view.getUint32(at + 32, true),
          forwarded: this.view.getUint32(at + 40, true),
          payload: Buffer.from(this.bytes.subarray(at + VSOCK_HEADER_BYTES, at + length)),
        };
        this.queue(0).offer(head);
        return packet;
      });
  }
}
