/** For tests of the network device: a guest's driver, and a port that is a list of frames. */
import { NET_FRAME_BYTES_MAX } from "../limits.ts";
import type { WatchOwner } from "../poller.ts";
import type { FrameBatch, FramePort } from "./frames.ts";
import { NET_HEADER_BYTES } from "./frame-header.ts";
import type { DeviceDriver } from "./virtio-device.ts";
import { MEMORY_START, TestGuestMemory } from "./testing.ts";

const NEXT = 1;
const WRITE = 2;
const RECEIVE = 0;
const TRANSMIT = 1;
const RECEIVE_BUFFER_BYTES = 2048;
/** VERSION_1, CSUM, GUEST_CSUM, HOST_TSO4. */
const TAKEN_FEATURES = (1n << 32n) | (1n << 11n) | 3n;

/** An Ethernet frame of `bytes` bytes in all, IPv4 unless told otherwise; the rest counts up from `first`. */
export const frameOf = (bytes: number, first = 0, type = 0x0800): Buffer => {
  const frame = Buffer.from(Array.from({ length: bytes }, (_, i) => (first + i) & 0xff));
  if (bytes >= 14) frame.writeUInt16BE(type, 12);
  return frame;
};

/** A virtio header that wants nothing. */
export const PLAIN: Buffer = Buffer.alloc(NET_HEADER_BYTES);

export class TestPort implements FramePort {
  /** What left, apart from the headers that came with it. */
  readonly sent: Buffer[] = [];
  readonly headers: Buffer[] = [];
  /** With their headers. */
  readonly waiting: Buffer[] = [];
  watchers = 0;
  #onReadable: () => void = () => {};

  read(batch: FrameBatch, count: number): number {
    const frames = this.waiting.splice(0, count);
    for (const [i, frame] of frames.entries()) {
      batch.bytes.set(frame, i * NET_FRAME_BYTES_MAX);
      batch.lengths[i] = frame.length;
    }
    return frames.length;
  }

  write(batch: FrameBatch, count: number): void {
    for (let i = 0; i < count; i++) {
      const start = i * NET_FRAME_BYTES_MAX;
      const all = Buffer.from(batch.bytes.subarray(start, start + (batch.lengths[i] ?? 0)));
      this.headers.push(all.subarray(0, NET_HEADER_BYTES));
      this.sent.push(all.subarray(NET_HEADER_BYTES));
    }
  }

  watch(_owner: WatchOwner, onReadable: () => void): Disposable {
    this.#onReadable = onReadable;
    this.watchers++;
    return {
      [Symbol.dispose]: () => {
        this.#onReadable = () => {};
        this.watchers--;
      },
    };
  }

  /** Frames come from outside. */
  arrive(...frames: readonly Buffer[]): void {
    this.waiting.push(...frames.map((frame) => Buffer.concat([PLAIN, frame])));
    this.#onReadable();
  }
}

/** A guest's driver of a network card: 16 entries a queue, two of them for a frame. */
export class TestNetDriver extends TestGuestMemory {
  readonly #entries: number;

  constructor(entries = 16) {
    super(entries);
    this.#entries = entries;
  }

  #address(slot: number): number {
    return MEMORY_START + 0x1_0000 + (slot >> 1) * RECEIVE_BUFFER_BYTES;
  }

  /** Offers receive buffers, each as one piece or with the header's room apart. */
  fillReceive(count: number, split = 0): void {
    const queue = this.queue(RECEIVE);
    for (let i = 0; i < count; i++) {
      const head = 2 * (queue.available % (this.#entries / 2));
      const address = this.#address(head);
      const first = split === 0 ? RECEIVE_BUFFER_BYTES : NET_HEADER_BYTES + split;
      queue.describe(head, { address, length: first, flags: WRITE | (split === 0 ? 0 : NEXT), next: head + 1 });
      queue.describe(head + 1, {
        address: address + first,
        length: RECEIVE_BUFFER_BYTES - first,
        flags: WRITE,
        next: 0,
      });
      queue.offer(head);
    }
  }

  override driver(): DeviceDriver {
    return { ...super.driver(), features: TAKEN_FEATURES };
  }

  /** Puts a frame into the transmit queue, in one piece or with the first `split` bytes behind the header apart; the test kicks. */
  send(frame: Uint8Array, split = 0, header: Uint8Array = PLAIN): void {
    const queue = this.queue(TRANSMIT);
    const head = 2 * (queue.available % (this.#entries / 2));
    const address = this.#address(this.#entries + head);
    const at = address - MEMORY_START;
    this.bytes.set(header, at);
    this.bytes.set(frame, at + NET_HEADER_BYTES);
    const length = NET_HEADER_BYTES + frame.length;
    const first = split === 0 ? length : NET_HEADER_BYTES + split;
    queue.describe(head, { address, length: first, flags: split === 0 ? 0 : NEXT, next: head + 1 });
    queue.describe(head + 1, { address: address + first, length: length - first, flags: 0, next: 0 });
    queue.offer(head);
  }

  /** Frames that the device has put into receive buffers, with their headers. */
  receive(): { readonly header: Buffer; readonly frame: Buffer }[] {
    return this.queue(RECEIVE)
      .takeUsed()
      .map(({ head, length }) => {
        const at = this.#address(head) - MEMORY_START;
        const all = Buffer.from(this.bytes.subarray(at, at + length));
        return { header: all.subarray(0, NET_HEADER_BYTES), frame: all.subarray(NET_HEADER_BYTES) };
      });
  }
}
