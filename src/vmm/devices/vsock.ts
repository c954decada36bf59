import type { Duplex } from "node:stream";

import type { Timer } from "../../lib/clock.ts";
import {
  DESCRIPTORS_PER_TURN_MAX,
  VSOCK_BYTES_PER_TURN_MAX,
  VSOCK_CONNECT_TIMEOUT_MS,
  VSOCK_PACKET_BYTES_MAX,
  VSOCK_PACKETS_PER_TURN_MAX,
  VSOCK_RESETS_PENDING_MAX,
  VSOCK_STREAMS_MAX,
  VSOCK_UNTOLD_BYTES_MAX,
  VSOCK_UNTOLD_MS_MAX,
  VSOCK_UNTOLD_PACKETS_MAX,
} from "../limits.ts";
import { DeviceError } from "./device-error.ts";
import { FEATURE_VERSION_1, type DeviceDriver, type DeviceHost, type VirtioDevice } from "./virtio-device.ts";
import type { Chain, Virtqueue } from "./virtqueue.ts";
import {
  emptyVsockHeader,
  readVsockHeader,
  VSOCK_DEVICE_TYPE,
  VSOCK_GUEST_CID,
  VSOCK_HEADER_BYTES,
  VSOCK_TYPE_STREAM,
  VsockOperation,
  writeVsockHeader,
} from "./vsock-packet.ts";
import { VsockStream, type VsockLink } from "./vsock-stream.ts";

/** Queues of the device, VIRTIO 1.2 section 5.10.2. */
const RECEIVE_QUEUE = 0;
const TRANSMIT_QUEUE = 1;
const QUEUES = 3;
/** Where the host's own ports begin when it connects to the guest. */
const EPHEMERAL_PORT_FIRST = 0x4000_0000;

const configSpace = (): Uint8Array => {
  const config = new Uint8Array(8);
  new DataView(config.buffer).setBigUint64(0, BigInt(VSOCK_GUEST_CID), true);
  return config;
};

/** Whether one guest has had as much as one turn of the loop has for it. */
const isTurnOver = (packets: number, bytes: number, descriptors: number): boolean =>
  packets >= VSOCK_PACKETS_PER_TURN_MAX || bytes >= VSOCK_BYTES_PER_TURN_MAX || descriptors >= DESCRIPTORS_PER_TURN_MAX;

/** Runs `later` when the current work is done: signals and packets of one turn go out together. */
type Defer = (later: () => void) => void;

/**
 * The host's side of a guest's vsock. Streams are `VsockStream`s. What waits for the guest's receive buffers is bounded
 * by back-pressure: data waits in the stream that wrote it, and resets beyond a limit stop the guest's transmit queue.
 */
export class VsockDevice implements VirtioDevice {
  readonly type: number = VSOCK_DEVICE_TYPE;
  readonly features: bigint = FEATURE_VERSION_1;
  readonly queues: number = QUEUES;
  readonly config: Uint8Array = configSpace();

  readonly #host: DeviceHost;
  readonly #listeners = new Map<number, (stream: Duplex) => void>();
  /** By host port, then by guest port. */
  readonly #streams = new Map<number, Map<number, VsockStream>>();
  #streamCount = 0;
  #lastStream: VsockStream | null = null;
  #sending: VsockStream[] = [];
  readonly #resets: { hostPort: number; guestPort: number }[] = [];
  #nextPort = EPHEMERAL_PORT_FIRST;
  #driver: DeviceDriver | null = null;
  #closed = false;
  #held = false;
  #flushPlanned = false;
  #transmitStopped = false;
  /** Set while the rest of what the guest sent, or gets, waits for a later turn. */
  #transmitPlanned: Timer | null = null;
  #flushLater: Timer | null = null;
  /** What the guest sent and was not yet told that it can have it back. */
  #untoldPackets = 0;
  #untoldBytes = 0;
  #tellTimer: Timer | null = null;
  readonly #header = emptyVsockHeader();
  readonly #outHeader = emptyVsockHeader();
  readonly #defer: Defer;
  readonly #link: VsockLink = {
    wake: (stream) => {
      if (!stream.queued) {
        stream.queued = true;
        this.#sending.push(stream);
      }
      this.#planFlush();
    },
    drop: (stream, reset) => this.#drop(stream, reset),
  };

  constructor(host: DeviceHost, defer: Defer = queueMicrotask) {
    this.#host = host;
    this.#defer = defer;
  }

  /** Serves a port on the host's side. Throws when it is taken. */
  listen(port: number, accept: (stream: Duplex) => void): void {
    if (this.#listeners.has(port)) throw new Error(`vsock port ${String(port)} is already served`);
    this.#listeners.set(port, accept);
  }

  /** Opens a stream to a port of the guest. Rejects when nobody listens there or no answer comes in time. */
  connect(guestPort: number): Promise<Duplex> {
    return new Promise((resolve, reject) => {
      if (this.#closed) throw new Error("The microVM is gone");
      if (this.#streamCount >= VSOCK_STREAMS_MAX)
        throw new Error(`The microVM has ${String(VSOCK_STREAMS_MAX)} vsock streams, which is the limit`);
      const stream = new VsockStream(this.#link, this.#freePort(), guestPort, "out");
      this.#add(stream);
      const timeout = this.#host.clock.after(VSOCK_CONNECT_TIMEOUT_MS, () => {
        stream.destroy(new Error(`The guest did not answer on vsock port ${String(guestPort)}`));
      });
      stream.once("error", (error) => {
        timeout[Symbol.dispose]();
        reject(error);
      });
      stream.once("connect", () => {
        timeout[Symbol.dispose]();
        resolve(stream);
      });
      this.#link.wake(stream);
    });
  }

  /** Takes nothing from the guest until `open`. For who makes the microVM and cannot listen before it runs. */
  hold(): void {
    this.#held = true;
  }

  open(): void {
    this.#held = false;
    this.#host.run(() => this.kick(TRANSMIT_QUEUE));
  }

  activate(driver: DeviceDriver): void {
    this.#driver = driver;
    this.#queue(RECEIVE_QUEUE).suppressKicks();
    this.kick(TRANSMIT_QUEUE);
  }

  kick(queue: number): void {
    if (this.#driver === null || this.#held) return;
    if (queue === TRANSMIT_QUEUE || this.#transmitStopped) this.#transmit();
    this.#flush();
  }

  detach(): void {
    this.#closed = true;
    this.#driver = null;
  }

  [Symbol.dispose](): void {
    this.detach();
    for (const timer of [this.#tellTimer, this.#transmitPlanned, this.#flushLater]) timer?.[Symbol.dispose]();
    // Maps may lose entries while they are walked.
    for (const byPort of this.#streams.values())
      for (const stream of byPort.values()) stream.peerReset("The microVM is gone");
    this.#sending = [];
  }

  #queue(index: number): Virtqueue {
    const queue = this.#driver?.queues[index];
    if (queue === undefined) throw new DeviceError(`The vsock device has no queue ${String(index)}`);
    return queue;
  }

  #freePort(): number {
    for (;;) {
      this.#nextPort = this.#nextPort >= 0xffff_fffe ? EPHEMERAL_PORT_FIRST : this.#nextPort + 1;
      if (!this.#streams.has(this.#nextPort)) return this.#nextPort;
    }
  }

  #find(hostPort: number, guestPort: number): VsockStream | undefined {
    const last = this.#lastStream;
    if (last?.guestPort === guestPort && last.hostPort === hostPort) return last;
    const stream = this.#streams.get(hostPort)?.get(guestPort);
    if (stream !== undefined) this.#lastStream = stream;
    return stream;
  }

  #add(stream: VsockStream): void {
    const byPort = this.#streams.get(stream.hostPort) ?? new Map<number, VsockStream>();
    byPort.set(stream.guestPort, stream);
    this.#streams.set(stream.hostPort, byPort);
    this.#streamCount++;
  }

  #drop(stream: VsockStream, reset: boolean): void {
    const byPort = this.#streams.get(stream.hostPort);
    if (byPort?.get(stream.guestPort) !== stream) return;
    byPort.delete(stream.guestPort);
    if (byPort.size === 0) this.#streams.delete(stream.hostPort);
    this.#streamCount--;
    if (this.#lastStream === stream) this.#lastStream = null;
    if (reset) this.#reset(stream.hostPort, stream.guestPort);
  }

  #reset(hostPort: number, guestPort: number): void {
    if (this.#closed) return;
    this.#resets.push({ hostPort, guestPort });
    this.#planFlush();
  }

  #planFlush(): void {
    if (this.#flushPlanned || this.#driver === null) return;
    this.#flushPlanned = true;
    this.#defer(() => {
      this.#flushPlanned = false;
      this.#host.run(() => this.#flush());
    });
  }

  /** Handles what the guest sent. */
  #transmit(): void {
    if (this.#transmitPlanned !== null) return;
    const queue = this.#queue(TRANSMIT_QUEUE);
    this.#transmitStopped = false;
    queue.suppressKicks();
    let bytes = 0;
    let descriptors = 0;
    for (let handled = 0; this.#driver !== null; handled++) {
      if (this.#resets.length >= VSOCK_RESETS_PENDING_MAX) {
        this.#transmitStopped = true;
        return;
      }
      if (isTurnOver(handled, bytes, descriptors)) return this.#planTransmit();
      const chain = queue.pop();
      if (chain === null) {
        if (queue.allowKicks()) {
          queue.suppressKicks();
          continue;
        }
        return;
      }
      descriptors += chain.descriptors;
      bytes += chain.readableBytes;
      this.#receivePacket(queue, chain);
    }
  }

  /** Goes on in a later turn, whatever kicks come before it. */
  #planTransmit(): void {
    this.#signal();
    if (this.#transmitPlanned !== null) return;
    this.#transmitPlanned = this.#host.clock.soon(() => {
      this.#transmitPlanned = null;
      this.kick(TRANSMIT_QUEUE);
    });
  }

  #receivePacket(queue: Virtqueue, chain: Chain): void {
    const [first] = chain.buffers;
    if (first === undefined || chain.readableCount === 0 || first.length < VSOCK_HEADER_BYTES)
      throw new DeviceError("A vsock packet does not begin with its header in one piece");
    const header = this.#header;
    readVsockHeader(first.region.view, first.offset, header);
    const { length } = header;
    if (length > VSOCK_PACKET_BYTES_MAX || length > chain.readableBytes - VSOCK_HEADER_BYTES)
      throw new DeviceError(`A vsock packet of ${String(length)} bytes, more than there are or may be`);
    const payload = header.operation === VsockOperation.ReadWrite && length > 0 ? copyPayload(chain, length) : null;
    queue.push(chain.head, 0);
    this.#untoldPackets++;
    this.#untoldBytes += chain.readableBytes;
    this.#handle(payload);
  }

  /** Acts on the packet in `#header`. */
  #handle(payload: Buffer | null): void {
    const header = this.#header;
    const { operation, sourcePort: guestPort, destinationPort: hostPort } = header;
    if (!header.addressed || header.type !== VSOCK_TYPE_STREAM) {
      if (operation !== VsockOperation.Reset) this.#reset(hostPort, guestPort);
      return;
    }
    const stream = this.#find(hostPort, guestPort);
    if (stream === undefined) {
      if (operation === VsockOperation.Request) this.#accept(hostPort, guestPort);
      else if (operation !== VsockOperation.Reset) this.#reset(hostPort, guestPort);
      return;
    }
    if (operation === VsockOperation.Reset) {
      stream.peerReset(
        stream.state === "connecting"
          ? `Nobody in the guest listens on vsock port ${String(guestPort)}`
          : "The guest reset the connection",
      );
      return;
    }
    if (!stream.takeCredit(header) || !this.#apply(stream, operation, payload)) {
      this.#drop(stream, true);
      stream.peerReset("The guest broke the vsock protocol");
    }
  }

  /** False when the packet breaks the rules of its stream, which costs the guest that stream. */
  #apply(stream: VsockStream, operation: number, payload: Buffer | null): boolean {
    switch (operation) {
      case VsockOperation.Response:
        return stream.opened();
      case VsockOperation.ReadWrite:
        if (stream.state === "connecting") return false;
        if (payload === null) return true;
        if (!stream.mayReceive(payload.length)) return false;
        stream.deliver(payload);
        return true;
      case VsockOperation.Shutdown:
        stream.peerShutdown(this.#header.flags);
        return true;
      case VsockOperation.CreditUpdate:
        return true;
      case VsockOperation.CreditRequest:
        stream.creditRequested();
        return true;
      default:
        return false;
    }
  }

  #accept(hostPort: number, guestPort: number): void {
    const listener = this.#listeners.get(hostPort);
    if (listener === undefined || this.#streamCount >= VSOCK_STREAMS_MAX) {
      this.#reset(hostPort, guestPort);
      return;
    }
    const stream = new VsockStream(this.#link, hostPort, guestPort, "in");
    stream.takeCredit(this.#header);
    this.#add(stream);
    this.#link.wake(stream);
    listener(stream);
  }

  /** Fills the guest's receive buffers with what is to be sent, then tells the guest once. */
  #flush(): void {
    if (this.#driver === null || this.#flushLater !== null) return;
    const queue = this.#queue(RECEIVE_QUEUE);
    let bytes = 0;
    let descriptors = 0;
    for (let sent = 0; this.#hasPacket(); sent++) {
      if (isTurnOver(sent, bytes, descriptors)) {
        this.#flushLater = this.#host.clock.soon(() => {
          this.#flushLater = null;
          this.#flush();
        });
        break;
      }
      const chain = queue.pop();
      if (chain === null) {
        // Starved: only now is a kick for new buffers of use.
        if (queue.allowKicks()) continue;
        break;
      }
      bytes += this.#sendPacket(queue, chain);
      descriptors += chain.descriptors;
    }
    if (!this.#hasPacket()) queue.suppressKicks();
    if (this.#transmitStopped && this.#resets.length < VSOCK_RESETS_PENDING_MAX) this.#transmit();
    this.#signal();
  }

  #hasPacket(): boolean {
    if (this.#resets.length > 0) return true;
    for (;;) {
      const [stream] = this.#sending;
      if (stream === undefined) return false;
      if (stream.hasPacket()) return true;
      this.#sending.shift();
      stream.queued = false;
    }
  }

  /** Returns the bytes of its payload. */
  #sendPacket(queue: Virtqueue, chain: Chain): number {
    const [first] = chain.buffers;
    if (first === undefined || chain.readableCount > 0 || first.length < VSOCK_HEADER_BYTES)
      throw new DeviceError("A vsock receive buffer has no room for a header in one piece");
    const header = this.#outHeader;
    const reset = this.#resets.shift();
    if (reset === undefined) {
      const stream = this.#sending.shift();
      if (stream === undefined) return 0;
      stream.fill(chain, header);
      // Behind the others: a stream with much to send does not starve them.
      if (stream.hasPacket()) this.#sending.push(stream);
      else stream.queued = false;
    } else {
      header.sourcePort = reset.hostPort;
      header.destinationPort = reset.guestPort;
      header.operation = VsockOperation.Reset;
      header.length = header.flags = header.bufferBytes = header.forwarded = 0;
    }
    writeVsockHeader(first.region.view, first.offset, header);
    queue.push(chain.head, VSOCK_HEADER_BYTES + header.length);
    return header.length;
  }

  #signal(): void {
    const driver = this.#driver;
    if (driver === null) return;
    if (this.#queue(RECEIVE_QUEUE).takeSignal()) driver.signal(RECEIVE_QUEUE);
    // A packet may take several entries of the queue.
    const packetsMax = Math.min(VSOCK_UNTOLD_PACKETS_MAX, this.#queue(TRANSMIT_QUEUE).entries >> 2);
    if (this.#untoldPackets >= packetsMax || this.#untoldBytes >= VSOCK_UNTOLD_BYTES_MAX) this.#tell();
    else if (this.#untoldPackets > 0)
      this.#tellTimer ??= this.#host.clock.after(VSOCK_UNTOLD_MS_MAX, () => this.#tell());
  }

  /** Tells the guest that it can have back what it sent. */
  #tell(): void {
    this.#tellTimer?.[Symbol.dispose]();
    this.#tellTimer = null;
    this.#untoldPackets = this.#untoldBytes = 0;
    const driver = this.#driver;
    if (driver !== null && this.#queue(TRANSMIT_QUEUE).takeSignal()) driver.signal(TRANSMIT_QUEUE);
  }
}

/** The payload behind the header, as bytes of our own: the guest may change its memory at any moment. */
const copyPayload = (chain: Chain, length: number): Buffer => {
  const payload = Buffer.allocUnsafe(length);
  let skip = VSOCK_HEADER_BYTES;
  let at = 0;
  for (let i = 0; i < chain.readableCount && at < length; i++) {
    const buffer = chain.buffers[i];
    if (buffer === undefined) break;
    const take = Math.min(buffer.length - skip, length - at);
    const start = buffer.offset + skip;
    payload.set(buffer.region.bytes.subarray(start, start + take), at);
    at += take;
    skip = 0;
  }
  return payload;
};
