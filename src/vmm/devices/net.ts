import {
  DESCRIPTORS_PER_TURN_MAX,
  NET_BATCH_FRAMES,
  NET_FRAME_BYTES_MAX,
  NET_PACKETS_PER_TURN_MAX,
} from "../limits.ts";
import { DeviceError } from "./device-error.ts";
import { checkFrame, NET_HEADER_BYTES, setBuffers } from "./frame-header.ts";
import type { FrameBatch, FramePort } from "./frames.ts";
import { NetLimiter, type NetRate } from "./net-rate.ts";
import { FEATURE_VERSION_1, type DeviceDriver, type DeviceHost, type VirtioDevice } from "./virtio-device.ts";
import type { Chain, Virtqueue } from "./virtqueue.ts";

/*
 * A network card, VIRTIO 1.2 section 5.1: one queue each way. Checksums are left undone both ways, and what the guest
 * sends over TCP may be cut only by the host: a frame of 64 KiB costs little more than one of 1,500 bytes. Frames to the
 * guest are as short as on the wire, so that each fits one of its buffers. The card has no address of its own
 * (VIRTIO_NET_F_MAC): reading six bytes of configuration would cost the guest's boot six round trips, and its kernel
 * chooses one just as well.
 */

/** Device ID, VIRTIO 1.2 section 5. */
export const NET_DEVICE_TYPE = 1;
const RECEIVE_QUEUE = 0;
const TRANSMIT_QUEUE = 1;
/** VIRTIO_NET_F_MTU: the configuration says how long a packet may be. */
export const FEATURE_MTU: bigint = 1n << 3n;
/** VIRTIO_NET_F_CSUM and HOST_TSO4: what the host does for the guest; VIRTIO_NET_F_GUEST_CSUM the other way round. */
const FEATURE_CHECKSUM: bigint = 1n << 0n;
const FEATURE_GUEST_CHECKSUM: bigint = 1n << 1n;
const FEATURE_TCP_CUT: bigint = 1n << 11n;
const FEATURES: bigint = FEATURE_VERSION_1 | FEATURE_CHECKSUM | FEATURE_GUEST_CHECKSUM | FEATURE_TCP_CUT;
/** mac, status, max_virtqueue_pairs, mtu */
const CONFIG_BYTES = 12;
const CONFIG_MTU_OFFSET = 10;

/** The MTU that every guest takes for granted. */
export const MTU_DEFAULT = 1_500;

const configSpace = (mtu: number): Uint8Array => {
  const config = new Uint8Array(CONFIG_BYTES);
  new DataView(config.buffer).setUint16(CONFIG_MTU_OFFSET, mtu, true);
  return config;
};

type Direction = "receive" | "transmit";

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
  readonly #mtu: number;
  readonly #host: DeviceHost;
  #driver: DeviceDriver | null = null;
  #port: FramePort | null = null;
  #watch: Disposable | null = null;
  /** Frames may wait at the port. */
  #readable = false;
  readonly #planned = { receive: false, transmit: false };
  readonly #limiters: Readonly<Record<Direction, NetLimiter>> | null;

  /** `mtu`: bytes of the longest IP packet on the wire, at most 1,500. `rate`: what it carries each way; null for all it can. */
  constructor(batch: FrameBatch, mtu: number, host: DeviceHost, rate: NetRate | null = null) {
    if (mtu > MTU_DEFAULT) throw new Error(`An MTU of ${String(mtu)}; ${String(MTU_DEFAULT)} may be`);
    this.#batch = batch;
    this.#mtu = mtu;
    // Said only where it matters: reading it costs the guest's boot a round trip.
    this.features = FEATURES | (mtu === MTU_DEFAULT ? 0n : FEATURE_MTU);
    this.config = configSpace(mtu);
    this.#host = host;
    const limiter = (each: NetRate): NetLimiter => new NetLimiter(each, host.clock);
    this.#limiters = rate === null ? null : { receive: limiter(rate), transmit: limiter(rate) };
  }

  /** Plugs the cable in. The port stays its owner's and must work until the device is disposed. Throws the second time. */
  bind(port: FramePort): void {
    if (this.#port !== null) throw new Error("The microVM's network device has a port already");
    this.#port = port;
    this.#watch = port.watch(this.#host, () => {
      this.#readable = true;
      this.#receive();
    });
    this.#readable = true;
    this.#host.run(() => {
      this.#transmit();
      this.#receive();
    });
  }

  activate(driver: DeviceDriver): void {
    // The port's frames may be without checksum; a driver that knows no such frames has no use for them.
    if ((driver.features & FEATURE_GUEST_CHECKSUM) === 0n)
      throw new DeviceError("The driver of the network device cannot receive without checksums");
    this.#driver = driver;
    this.#transmit();
    this.#receive();
  }

  kick(queue: number): void {
    if (queue === TRANSMIT_QUEUE) this.#transmit();
    else this.#receive();
  }

  detach(): void {
    this.#driver = null;
  }

  [Symbol.dispose](): void {
    this.detach();
    this.#watch?.[Symbol.dispose]();
    this.#watch = null;
  }

  #queue(driver: DeviceDriver, index: number): Virtqueue {
    const queue = driver.queues[index];
    if (queue === undefined) throw new DeviceError(`The network device has no queue ${String(index)}`);
    return queue;
  }

  /** Goes on in a later turn, or when its rate lets it: one guest's flood is not to hold up the others. */
  #plan(what: Direction): void {
    if (this.#planned[what]) return;
    this.#planned[what] = true;
    const goOn = (): void => {
      this.#planned[what] = false;
      if (what === "receive") this.#receive();
      else this.#transmit();
    };
    const waitMs = this.#waitMs(what);
    if (waitMs > 0) this.#host.clock.after(waitMs, goOn);
    else this.#host.clock.soon(goOn);
  }

  /** How long its rate makes the next frame wait; 0 for not at all. */
  #waitMs(what: Direction): number {
    return this.#limiters?.[what].waitMs() ?? 0;
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
    let descriptors = 0;
    for (let left = NET_PACKETS_PER_TURN_MAX; left > 0 && !drained;) {
      // What waits here waits in the guest's memory, and its kernel is told of a full queue.
      if (this.#waitMs("transmit") > 0) break;
      const chain = queue.pop();
      if (chain !== null) {
        descriptors += chain.descriptors;
        if (descriptors >= DESCRIPTORS_PER_TURN_MAX) left = 0;
        this.#limiters?.transmit.take(chain.readableBytes);
        const packets = this.#takeFrame(chain, frames);
        queue.push(chain.head, 0);
        left -= Math.max(1, packets);
        if (packets > 0) frames++;
      } else if (queue.allowKicks()) {
        queue.suppressKicks();
        left--;
      } else {
        drained = true;
      }
      if (frames === NET_BATCH_FRAMES || (frames > 0 && (drained || left <= 0))) {
        port.write(this.#batch, frames);
        frames = 0;
      }
    }
    if (frames > 0) port.write(this.#batch, frames);
    if (!drained) this.#plan("transmit");
    if (queue.takeSignal()) driver.signal(TRANSMIT_QUEUE);
  }

  /** Copies a frame of the guest's into the batch. Returns how many packets it is on the wire; 0 when it may not leave. */
  #takeFrame(chain: Chain, index: number): number {
    const length = chain.readableBytes;
    if (length < NET_HEADER_BYTES || chain.writableCount > 0)
      throw new DeviceError("A frame to be sent has no header, or something to be written");
    if (length > NET_FRAME_BYTES_MAX) return 0;
    const { bytes, lengths, view } = this.#batch;
    const start = index * NET_FRAME_BYTES_MAX;
    let at = start;
    for (let i = 0; i < chain.readableCount; i++) {
      const buffer = chain.buffers[i];
      if (buffer === undefined) break;
      bytes.set(buffer.region.bytes.subarray(buffer.offset, buffer.offset + buffer.length), at);
      at += buffer.length;
    }
    lengths[index] = length;
    return checkFrame(view, start, length, this.#mtu);
  }

  /** Fills the guest's receive buffers with what waits at the port, as far as one turn goes. */
  #receive(): void {
    const driver = this.#driver;
    const port = this.#port;
    if (driver === null || port === null || !this.#readable || this.#planned.receive) return;
    const queue = this.#queue(driver, RECEIVE_QUEUE);
    queue.suppressKicks();
    let left = NET_PACKETS_PER_TURN_MAX;
    let descriptors = 0;
    while (this.#readable && left > 0) {
      // The port's own queue is short: what does not fit in there is dropped, which slows down whoever sends it.
      if (this.#waitMs("receive") > 0) left = 0;
      if (left === 0) break;
      const room = Math.min(queue.available(), NET_BATCH_FRAMES, left);
      if (room === 0) {
        // Starved: only now is a kick for new buffers of use.
        if (queue.allowKicks()) continue;
        break;
      }
      const frames = port.read(this.#batch, room);
      this.#readable = frames === room;
      for (let i = 0; i < frames; i++) descriptors += this.#giveFrame(queue, i);
      left = descriptors >= DESCRIPTORS_PER_TURN_MAX ? 0 : left - frames;
    }
    if (queue.takeSignal()) driver.signal(RECEIVE_QUEUE);
    if (left === 0) this.#plan("receive");
  }

  /** Returns the number of descriptors it took. */
  #giveFrame(queue: Virtqueue, index: number): number {
    const chain = queue.pop();
    if (chain === null) throw new DeviceError("Receive buffers that were available are gone");
    const { bytes, lengths, view } = this.#batch;
    const length = lengths[index] ?? 0;
    this.#limiters?.receive.take(length);
    if ((chain.buffers[0]?.length ?? 0) < NET_HEADER_BYTES || chain.readableCount > 0)
      throw new DeviceError("A receive buffer has no room for a header in one piece");
    // 5.1.6.3.1: without merged buffers each one holds the longest frame there may be.
    if (chain.writableBytes < length)
      throw new DeviceError(`A receive buffer of ${String(chain.writableBytes)} bytes is too small for a frame`);
    let at = index * NET_FRAME_BYTES_MAX;
    const end = at + length;
    setBuffers(view, at, 1);
    for (let i = 0; i < chain.writableCount && at < end; i++) {
      const buffer = chain.buffers[i];
      if (buffer === undefined) break;
      const take = Math.min(buffer.length, end - at);
      buffer.region.bytes.set(bytes.subarray(at, at + take), buffer.offset);
      at += take;
    }
    queue.push(chain.head, length);
    return chain.descriptors;
  }
}
