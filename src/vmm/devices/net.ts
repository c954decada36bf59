import { NET_FRAME_BYTES_MAX, NET_FRAMES_PER_TURN_MAX } from "../limits.ts";
import { DeviceError } from "./device-error.ts";
import type { FrameBatch, FramePort } from "./frames.ts";
import { FEATURE_VERSION_1, type DeviceDriver, type VirtioDevice } from "./virtio-device.ts";
import type { Chain, Virtqueue } from "./virtqueue.ts";

/*
 * A network card, VIRTIO 1.2 section 5.1: one queue each way and no offloads, so that a frame is a frame and nothing in
 * its header matters. It has no address of its own (VIRTIO_NET_F_MAC): reading six bytes of configuration would cost
 * the guest's boot six round trips, and its kernel chooses one just as well.
 */

/** Device ID, VIRTIO 1.2 section 5. */
export const NET_DEVICE_TYPE = 1;
const RECEIVE_QUEUE = 0;
const TRANSMIT_QUEUE = 1;
/** VIRTIO_NET_F_MTU: the configuration says how long a packet may be. */
export const FEATURE_MTU: bigint = 1n << 3n;
/** struct virtio_net_hdr, before every frame; `num_buffers` is at its end. */
export const NET_HEADER_BYTES = 12;
const HEADER_BUFFERS_OFFSET = 10;
/** mac, status, max_virtqueue_pairs, mtu */
const CONFIG_BYTES = 12;
const CONFIG_MTU_OFFSET = 10;

export const ETHERNET_HEADER_BYTES = 14;
const ETHERNET_TYPE_OFFSET = 12;
const ETHERNET_TYPE_IPV4 = 0x0800;
const ETHERNET_TYPE_ARP = 0x0806;
/** The MTU that every guest takes for granted. */
export const MTU_DEFAULT = 1_500;

const configSpace = (mtu: number): Uint8Array => {
  const config = new Uint8Array(CONFIG_BYTES);
  new DataView(config.buffer).setUint16(CONFIG_MTU_OFFSET, mtu, true);
  return config;
};

/** Runs `later` after what else is waiting for this process had its turn. */
type Later = (later: () => void) => void;

/**
 * The host's side of a guest's network card. Without a port it is a card without a cable: nothing is taken from the
 * guest and nothing given. Frames other than IPv4 and ARP do not leave the guest.
 */
export class NetDevice implements VirtioDevice {
  readonly type: number = NET_DEVICE_TYPE;
  readonly features: bigint;
  readonly queues: number = 2;
  readonly config: Uint8Array;

  readonly #batch: FrameBatch;
  readonly #frameBytesMax: number;
  readonly #onError: (error: DeviceError) => void;
  readonly #later: Later;
  #driver: DeviceDriver | null = null;
  #port: FramePort | null = null;
  #watch: Disposable | null = null;
  /** Frames may wait at the port. */
  #readable = false;
  readonly #planned = { receive: false, transmit: false };

  /**
   * `mtu`: bytes of the longest IP packet, at most 1,500. `onError`: the guest broke the protocol while no call of the
   * transport was under way.
   */
  constructor(batch: FrameBatch, mtu: number, onError: (error: DeviceError) => void, later: Later = setImmediate) {
    this.#batch = batch;
    // Said only where it matters: reading it costs the guest's boot a round trip.
    this.features = FEATURE_VERSION_1 | (mtu === MTU_DEFAULT ? 0n : FEATURE_MTU);
    this.config = configSpace(mtu);
    this.#frameBytesMax = mtu + ETHERNET_HEADER_BYTES;
    if (this.#frameBytesMax > NET_FRAME_BYTES_MAX)
      throw new Error(`An MTU of ${String(mtu)} is more than a frame holds`);
    this.#onError = onError;
    this.#later = later;
  }

  /** Plugs the cable in. The port stays its owner's and must work until the device is disposed. Throws the second time. */
  bind(port: FramePort): void {
    if (this.#port !== null) throw new Error("The microVM's network device has a port already");
    this.#port = port;
    this.#watch = port.watch(() => {
      this.#readable = true;
      this.#guard(() => this.#receive());
    });
    this.#readable = true;
    this.#guard(() => {
      this.#transmit();
      this.#receive();
    });
  }

  activate(driver: DeviceDriver): void {
    this.#driver = driver;
    this.#transmit();
    this.#receive();
  }

  kick(queue: number): void {
    if (queue === TRANSMIT_QUEUE) this.#transmit();
    else this.#receive();
  }

  [Symbol.dispose](): void {
    this.#watch?.[Symbol.dispose]();
    this.#watch = null;
    this.#driver = null;
  }

  #queue(driver: DeviceDriver, index: number): Virtqueue {
    const queue = driver.queues[index];
    if (queue === undefined) throw new DeviceError(`The network device has no queue ${String(index)}`);
    return queue;
  }

  /** For work that no call of the transport's is waiting for. What is not the guest's fault stays a crash of ours. */
  #guard(work: () => void): void {
    try {
      work();
    } catch (error) {
      if (!(error instanceof DeviceError)) throw error;
      this.#onError(error);
    }
  }

  /** Goes on in a later turn: one guest's flood is not to hold up the others. */
  #plan(what: "receive" | "transmit"): void {
    if (this.#planned[what]) return;
    this.#planned[what] = true;
    this.#later(() => {
      this.#planned[what] = false;
      this.#guard(() => (what === "receive" ? this.#receive() : this.#transmit()));
    });
  }

  /** Sends what the guest has made available, as far as one turn goes. */
  #transmit(): void {
    const driver = this.#driver;
    const port = this.#port;
    if (driver === null || port === null || this.#planned.transmit) return;
    const queue = this.#queue(driver, TRANSMIT_QUEUE);
    queue.suppressKicks();
    let frames = 0;
    let drained = false;
    for (let taken = 0; taken < NET_FRAMES_PER_TURN_MAX && !drained; taken++) {
      const chain = queue.pop();
      if (chain !== null) {
        if (this.#takeFrame(chain, frames)) frames++;
        queue.push(chain.head, 0);
      } else if (queue.allowKicks()) {
        queue.suppressKicks();
      } else {
        drained = true;
      }
    }
    if (frames > 0) port.write(this.#batch, frames);
    if (!drained) this.#plan("transmit");
    if (queue.takeSignal()) driver.signal(TRANSMIT_QUEUE);
  }

  /** Copies a frame of the guest's into the batch; false when it is none that may leave. */
  #takeFrame(chain: Chain, index: number): boolean {
    const length = chain.readableBytes - NET_HEADER_BYTES;
    if (length < 0 || chain.writableCount > 0)
      throw new DeviceError("A frame to be sent has no header, or something to be written");
    if (length < ETHERNET_HEADER_BYTES || length > this.#frameBytesMax) return false;
    const { bytes, lengths } = this.#batch;
    const start = index * NET_FRAME_BYTES_MAX;
    let at = start;
    let skip = NET_HEADER_BYTES;
    for (let i = 0; i < chain.readableCount; i++) {
      const buffer = chain.buffers[i];
      if (buffer === undefined) break;
      const skipped = Math.min(skip, buffer.length);
      skip -= skipped;
      const from = buffer.offset + skipped;
      bytes.set(buffer.region.bytes.subarray(from, buffer.offset + buffer.length), at);
      at += buffer.length - skipped;
    }
    lengths[index] = length;
    const type = ((bytes[start + ETHERNET_TYPE_OFFSET] ?? 0) << 8) | (bytes[start + ETHERNET_TYPE_OFFSET + 1] ?? 0);
    return type === ETHERNET_TYPE_IPV4 || type === ETHERNET_TYPE_ARP;
  }

  /** Fills the guest's receive buffers with what waits at the port, as far as one turn goes. */
  #receive(): void {
    const driver = this.#driver;
    const port = this.#port;
    if (driver === null || port === null || !this.#readable || this.#planned.receive) return;
    const queue = this.#queue(driver, RECEIVE_QUEUE);
    queue.suppressKicks();
    // Starved: only now is a kick for new buffers of use.
    if (queue.available() === 0 && !queue.allowKicks()) return;
    const room = Math.min(queue.available(), NET_FRAMES_PER_TURN_MAX);
    const frames = port.read(this.#batch, room);
    this.#readable = frames === room;
    for (let i = 0; i < frames; i++) this.#giveFrame(queue, i);
    if (queue.takeSignal()) driver.signal(RECEIVE_QUEUE);
    if (this.#readable && (queue.available() > 0 || queue.allowKicks())) this.#plan("receive");
  }

  #giveFrame(queue: Virtqueue, index: number): void {
    const chain = queue.pop();
    if (chain === null) throw new DeviceError("Receive buffers that were available are gone");
    const length = this.#batch.lengths[index] ?? 0;
    const [first] = chain.buffers;
    if (first === undefined || chain.readableCount > 0 || first.length < NET_HEADER_BYTES)
      throw new DeviceError("A receive buffer has no room for a header in one piece");
    // 5.1.6.3.1: without merged buffers each one holds the longest frame there may be.
    if (chain.writableBytes < NET_HEADER_BYTES + length)
      throw new DeviceError(`A receive buffer of ${String(chain.writableBytes)} bytes is too small for a frame`);
    first.region.bytes.fill(0, first.offset, first.offset + NET_HEADER_BYTES);
    first.region.view.setUint16(first.offset + HEADER_BUFFERS_OFFSET, 1, true);
    let at = index * NET_FRAME_BYTES_MAX;
    const end = at + length;
    let skip = NET_HEADER_BYTES;
    for (let i = 0; i < chain.writableCount && at < end; i++) {
      const buffer = chain.buffers[i];
      if (buffer === undefined) break;
      const take = Math.min(buffer.length - skip, end - at);
      buffer.region.bytes.set(this.#batch.bytes.subarray(at, at + take), buffer.offset + skip);
      at += take;
      skip = 0;
    }
    queue.push(chain.head, NET_HEADER_BYTES + length);
  }
}
