import { unlinkSync } from "node:fs";

import { DeviceError } from "../devices/device-error.ts";
import { GuestMemory, type MemoryRegion } from "../devices/guest-memory.ts";
import type { VirtioDevice } from "../devices/virtio-device.ts";
import { Virtqueue, type VirtqueueLayout } from "../devices/virtqueue.ts";
import {
  GUEST_MEMORY_MIB_MAX,
  MEMORY_REGIONS_MAX,
  VHOST_USER_MESSAGES_MAX,
  VHOST_USER_PAYLOAD_BYTES_MAX,
} from "../limits.ts";
import {
  checked,
  FILE_TYPE_ANONYMOUS,
  FILE_TYPE_FIFO,
  FILE_TYPE_SOCKET,
  native,
  NativeError,
  RECEIVE_DESCRIPTORS_LENGTH,
  WOULD_BLOCK,
} from "../native.ts";
import { Watch, type WatchOwner } from "../poller.ts";
import type { MemoryMappings } from "./memory-mappings.ts";

/*
 * The back-end of the vhost-user protocol (QEMU's docs/interop/vhost-user.rst), as far as a UML guest speaks it
 * (arch/um/drivers/virtio_uml.c). The other end is a process that a guest may have taken over: nothing is believed.
 *
 * Of the protocol features only CONFIG is offered. Without REPLY_ACK the guest's kernel does not wait for an answer to
 * each of the two dozen messages of its boot: a fault is answered by ending the microVM anyway.
 */

const Request = {
  GetFeatures: 1,
  SetFeatures: 2,
  SetOwner: 3,
  SetMemTable: 5,
  SetVringNum: 8,
  SetVringAddr: 9,
  SetVringBase: 10,
  SetVringKick: 12,
  SetVringCall: 13,
  SetVringErr: 14,
  GetProtocolFeatures: 15,
  SetProtocolFeatures: 16,
  SetVringEnable: 18,
  GetConfig: 24,
  SetConfig: 25,
} as const;

const HEADER_BYTES = 12;
const VERSION = 1;
const VERSION_MASK = 3;
const FLAG_REPLY = 4;
const FLAG_NEED_REPLY = 8;
const FEATURE_PROTOCOL_FEATURES = 1n << 30n;
const PROTOCOL_FEATURE_CONFIG = 1n << 9n;
const VRING_NO_DESCRIPTOR = 0x100;
const REGION_BYTES = 32;
const PAGE_BYTES = 4096n;
/** Of addresses, sizes and offsets of guest memory. */
const REGION_BYTES_MAX = BigInt(GUEST_MEMORY_MIB_MAX) << 21n;

/** What interrupts may go through: a pipe by the protocol, in fact UML gives one end of a socket pair. */
const SIGNAL_TYPES: ReadonlySet<number> = new Set([FILE_TYPE_ANONYMOUS, FILE_TYPE_FIFO, FILE_TYPE_SOCKET]);

interface Ring {
  entries: number;
  layout: VirtqueueLayout | null;
  kick: number | null;
  kickWatch: Watch | null;
  call: number | null;
  callIsSocket: 0 | 1;
  enabled: boolean;
}

/**
 * How the other end went when it did not break a protocol: `stopped` when the driver let go of its rings (power-off),
 * `closed` when the connection ended (its process died).
 */
export type BackendEnd = "stopped" | "closed";

export interface VhostUserOptions {
  /** Where to listen: at most 107 bytes. */
  readonly path: string;
  readonly device: VirtioDevice;
  /** Holds the guest's memory for all of its devices, and outlives the backend. */
  readonly mappings: MemoryMappings;
  /** Does the work, and gets what it throws: a `DeviceError` for what the guest did, anything else for what we could not. */
  readonly owner: WatchOwner;
  /** How the other end went; the owner disposes the backend then. */
  readonly onEnd: (end: BackendEnd) => void;
}

/** Serves one device on one Unix socket, to the first who connects and to nobody after. */
export class VhostUserBackend implements Disposable {
  readonly #device: VirtioDevice;
  readonly #mappings: MemoryMappings;
  readonly #path: string;
  readonly #owner: WatchOwner;
  readonly #onEnd: (end: BackendEnd) => void;
  readonly #rings: Ring[];
  readonly #headerBytes = new Uint8Array(HEADER_BYTES);
  readonly #payloadBytes = new Uint8Array(VHOST_USER_PAYLOAD_BYTES_MAX);
  readonly #received = new Int32Array(RECEIVE_DESCRIPTORS_LENGTH);
  #headerLength = 0;
  #payloadLength = 0;
  #messages = 0;
  #descriptors: number[] = [];
  #socket: number;
  #watch: Watch;
  #connected = false;
  #closed = false;
  #features = 0n;
  #memory: GuestMemory | null = null;
  #active = false;

  /** Listens. Throws a `NativeError` when that is not possible. */
  constructor({ path, device, mappings, owner, onEnd }: VhostUserOptions) {
    this.#path = path;
    this.#mappings = mappings;
    this.#device = device;
    this.#owner = owner;
    this.#onEnd = onEnd;
    this.#rings = Array.from({ length: device.queues }, () => ({
      entries: 0,
      layout: null,
      kick: null,
      kickWatch: null,
      call: null,
      callIsSocket: 0,
      enabled: false,
    }));
    this.#socket = checked(`Listen on ${path}`, native().listen(path));
    try {
      this.#watch = new Watch(this.#socket, owner, () => this.#accept());
    } catch (error) {
      native().close(this.#socket);
      unlinkSync(path);
      throw error;
    }
  }

  /** Releases descriptors and socket. The device is its owner's and is to be disposed before. */
  [Symbol.dispose](): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#watch[Symbol.dispose]();
    native().close(this.#socket);
    if (!this.#connected) unlinkSync(this.#path);
    this.#closeDescriptors();
    for (const ring of this.#rings) {
      ring.kickWatch?.[Symbol.dispose]();
      if (ring.kick !== null) native().close(ring.kick);
      if (ring.call !== null) native().close(ring.call);
      ring.kick = ring.call = null;
    }
  }

  #accept(): void {
    const connection = native().accept(this.#socket);
    if (connection === WOULD_BLOCK) return;
    checked("Accept a vhost-user connection", connection);
    this.#watch[Symbol.dispose]();
    native().close(this.#socket);
    this.#connected = true;
    this.#socket = connection;
    unlinkSync(this.#path);
    this.#watch = new Watch(connection, this.#owner, () => this.#read());
  }

  #read(): void {
    while (!this.#closed) {
      const header = this.#headerLength < HEADER_BYTES;
      const target = header
        ? this.#headerBytes.subarray(this.#headerLength)
        : this.#payloadBytes.subarray(this.#payloadLength, this.#payloadSize());
      if (target.length > 0) {
        const count = native().receive(this.#socket, target, this.#received);
        if (count === WOULD_BLOCK) return;
        if (count === 0) return this.#onEnd("closed");
        if (count < 0) throw new DeviceError(`vhost-user: receiving failed with errno ${String(-count)}`);
        this.#takeDescriptors();
        if (header) this.#headerLength += count;
        else this.#payloadLength += count;
      }
      if (this.#headerLength === HEADER_BYTES && this.#payloadLength === this.#payloadSize()) this.#dispatch();
    }
  }

  #takeDescriptors(): void {
    const [count = 0] = this.#received;
    for (let i = 1; i <= count; i++) this.#descriptors.push(this.#received[i] ?? -1);
    if (this.#descriptors.length > MEMORY_REGIONS_MAX) {
      this.#closeDescriptors();
      throw new DeviceError("vhost-user: too many descriptors with one message");
    }
  }

  #closeDescriptors(): void {
    for (const fd of this.#descriptors) native().close(fd);
    this.#descriptors = [];
  }

  #payloadSize(): number {
    const size = new DataView(this.#headerBytes.buffer).getUint32(8, true);
    if (size > VHOST_USER_PAYLOAD_BYTES_MAX)
      throw new DeviceError(
        `vhost-user: a message of ${String(size)} bytes; ${String(VHOST_USER_PAYLOAD_BYTES_MAX)} may be`,
      );
    return size;
  }

  #dispatch(): void {
    // Bounds what the other end can have done in one go as well.
    if (++this.#messages > VHOST_USER_MESSAGES_MAX)
      throw new DeviceError(`vhost-user: more than ${String(VHOST_USER_MESSAGES_MAX)} messages`);
    const header = new DataView(this.#headerBytes.buffer);
    const request = header.getUint32(0, true);
    const flags = header.getUint32(4, true);
    const payload = new DataView(this.#payloadBytes.buffer, 0, this.#payloadLength);
    this.#headerLength = this.#payloadLength = 0;
    if ((flags & VERSION_MASK) !== VERSION || (flags & FLAG_REPLY) !== 0)
      throw new DeviceError(`vhost-user: message flags 0x${flags.toString(16)}`);
    try {
      this.#handle(request, payload, (flags & FLAG_NEED_REPLY) !== 0);
    } catch (error) {
      // A RangeError of the DataView: the payload is shorter than its type says.
      if (error instanceof RangeError)
        throw new DeviceError(`vhost-user: request ${String(request)} is malformed`, { cause: error });
      throw error;
    } finally {
      this.#closeDescriptors();
    }
  }

  #handle(request: number, payload: DataView<ArrayBuffer>, needReply: boolean): void {
    switch (request) {
      case Request.GetFeatures:
        this.#reply(request, uint64(this.#device.features | FEATURE_PROTOCOL_FEATURES));
        return;
      case Request.GetProtocolFeatures:
        this.#reply(request, uint64(PROTOCOL_FEATURE_CONFIG));
        return;
      case Request.GetConfig:
        this.#reply(request, this.#readConfig(payload));
        return;
      case Request.SetProtocolFeatures:
        if ((payload.getBigUint64(0, true) & ~PROTOCOL_FEATURE_CONFIG) !== 0n)
          throw new DeviceError("vhost-user: protocol features that were not offered");
        break;
      case Request.SetFeatures:
        this.#setFeatures(payload.getBigUint64(0, true));
        break;
      case Request.SetMemTable:
        this.#setMemory(payload);
        break;
      case Request.SetOwner:
        break;
      default:
        this.#handleRing(request, payload);
    }
    // Only for REPLY_ACK, which is not offered: whoever asks all the same would wait for ever.
    if (needReply) throw new DeviceError("vhost-user: an acknowledgement is asked for, which was not offered");
  }

  #handleRing(request: number, payload: DataView<ArrayBuffer>): void {
    switch (request) {
      case Request.SetVringNum:
        this.#idleRing(payload).entries = payload.getUint32(4, true);
        break;
      case Request.SetVringBase:
        this.#idleRing(payload);
        if (payload.getUint32(4, true) !== 0) throw new DeviceError("vhost-user: a ring that does not begin at 0");
        break;
      case Request.SetVringAddr:
        this.#setAddresses(this.#idleRing(payload), payload);
        break;
      case Request.SetVringKick:
        this.#setKick(payload);
        break;
      case Request.SetVringCall:
        this.#setCall(payload);
        break;
      case Request.SetVringErr:
        break;
      case Request.SetVringEnable:
        this.#enable(payload);
        break;
      default:
        throw new DeviceError(`vhost-user: request ${String(request)} is not supported`);
    }
  }

  #reply(request: number, payload: Uint8Array): void {
    const message = new Uint8Array(HEADER_BYTES + payload.length);
    const view = new DataView(message.buffer);
    view.setUint32(0, request, true);
    view.setUint32(4, VERSION | FLAG_REPLY, true);
    view.setUint32(8, payload.length, true);
    message.set(payload, HEADER_BYTES);
    if (native().write(this.#socket, message) !== message.length)
      throw new DeviceError("vhost-user: the other end does not take its replies");
  }

  /** Payload: u32 offset, u32 size, u32 flags, then `size` bytes to be filled. */
  #readConfig(payload: DataView<ArrayBuffer>): Uint8Array {
    const offset = payload.getUint32(0, true);
    const size = payload.getUint32(4, true);
    if (size !== payload.byteLength - 12 || offset + size > this.#device.config.length)
      throw new DeviceError("vhost-user: a read beyond the configuration space");
    const reply = new Uint8Array(payload.buffer.slice(0, payload.byteLength));
    reply.set(this.#device.config.subarray(offset, offset + size), 12);
    return reply;
  }

  #setFeatures(features: bigint): void {
    const offered = this.#device.features | FEATURE_PROTOCOL_FEATURES;
    if (this.#active) throw new DeviceError("vhost-user: features are changed while active");
    if ((features & ~offered) !== 0n) throw new DeviceError("vhost-user: features that were not offered");
    this.#features = features & this.#device.features;
  }

  #setMemory(payload: DataView<ArrayBuffer>): void {
    const count = payload.getUint32(0, true);
    if (this.#memory !== null) throw new DeviceError("vhost-user: guest memory is set twice");
    if (count < 1 || count > MEMORY_REGIONS_MAX || count !== this.#descriptors.length)
      throw new DeviceError(
        `vhost-user: ${String(count)} memory regions with ${String(this.#descriptors.length)} descriptors`,
      );
    const regions: MemoryRegion[] = [];
    for (let i = 0; i < count; i++) this.#mapRegion(payload, 8 + i * REGION_BYTES, this.#descriptors[i] ?? -1, regions);
    this.#memory = new GuestMemory(regions);
  }

  /** A region: u64 guest address, u64 size, u64 user address, u64 offset in the file. */
  #mapRegion(payload: DataView<ArrayBuffer>, at: number, fd: number, regions: MemoryRegion[]): void {
    const start = payload.getBigUint64(at, true);
    const size = payload.getBigUint64(at + 8, true);
    const offset = payload.getBigUint64(at + 24, true);
    const pages = [start, size, offset].every((value) => value % PAGE_BYTES === 0n && value <= REGION_BYTES_MAX);
    if (!pages || size === 0n) throw new DeviceError("vhost-user: an impossible memory region");
    try {
      regions.push(...this.#mappings.map(fd, { start: Number(start), offset: Number(offset), bytes: Number(size) }));
    } catch (error) {
      if (error instanceof NativeError) throw error;
      throw new DeviceError(`vhost-user: ${error instanceof Error ? error.message : "memory"}`, { cause: error });
    }
  }

  #ring(index: number): Ring {
    const ring = this.#rings[index];
    if (ring === undefined) throw new DeviceError(`vhost-user: ring ${String(index)} does not exist`);
    return ring;
  }

  #idleRing(payload: DataView<ArrayBuffer>): Ring {
    if (this.#active) throw new DeviceError("vhost-user: a ring is changed while active");
    return this.#ring(payload.getUint32(0, true));
  }

  /** Payload: u32 index, u32 flags, u64 descriptors, u64 used, u64 available, u64 log. */
  #setAddresses(ring: Ring, payload: DataView<ArrayBuffer>): void {
    const [descriptors, used, available] = [8, 16, 24].map((at) => payload.getBigUint64(at, true));
    ring.layout = {
      entries: ring.entries,
      descriptors: safeAddress(descriptors),
      used: safeAddress(used),
      available: safeAddress(available),
    };
  }

  #takeOne(payload: DataView<ArrayBuffer>): { readonly ring: Ring; readonly index: number; readonly fd: number } {
    const value = Number(payload.getBigUint64(0, true));
    const [fd] = this.#descriptors;
    if (this.#active || (value & VRING_NO_DESCRIPTOR) !== 0 || fd === undefined || this.#descriptors.length !== 1)
      throw new DeviceError("vhost-user: a ring needs exactly one descriptor for each direction, before it is enabled");
    return { ring: this.#ring(value), index: value, fd };
  }

  #setKick(payload: DataView<ArrayBuffer>): void {
    const { ring, index, fd } = this.#takeOne(payload);
    if (ring.kick !== null) throw new DeviceError("vhost-user: a kick descriptor is set twice");
    // Never read, only watched: whatever it is, it cannot make us wait.
    try {
      ring.kickWatch = new Watch(fd, this.#owner, () => this.#kick(index));
    } catch (error) {
      // EPERM: a kind of file that cannot be. Anything else is ours.
      if (!(error instanceof NativeError && error.code === "EPERM")) throw error;
      throw new DeviceError("vhost-user: a kick descriptor that cannot be watched", { cause: error });
    }
    ring.kick = fd;
    this.#descriptors = [];
  }

  #setCall(payload: DataView<ArrayBuffer>): void {
    const { ring, fd } = this.#takeOne(payload);
    const type = native().fileType(fd);
    if (ring.call !== null || !SIGNAL_TYPES.has(type))
      throw new DeviceError("vhost-user: a call descriptor is no pipe, socket or eventfd, or is set twice");
    ring.callIsSocket = type === FILE_TYPE_SOCKET ? 1 : 0;
    ring.call = fd;
    this.#descriptors = [];
  }

  #enable(payload: DataView<ArrayBuffer>): void {
    const ring = this.#ring(payload.getUint32(0, true));
    ring.enabled = payload.getUint32(4, true) === 1;
    if (!ring.enabled && this.#active) {
      // The guest's driver goes away (power-off): nothing will follow that matters.
      this.#onEnd("stopped");
      return;
    }
    if (this.#rings.every(({ enabled }) => enabled)) this.#activate();
  }

  #activate(): void {
    const memory = this.#memory;
    if (this.#active || memory === null) throw new DeviceError("vhost-user: rings are enabled twice or without memory");
    const queues = this.#rings.map(({ layout, kick, call }) => {
      if (layout === null || kick === null || call === null)
        throw new DeviceError("vhost-user: a ring is enabled half set up");
      return new Virtqueue(memory, layout);
    });
    this.#active = true;
    this.#device.activate({ features: this.#features, queues, signal: (queue) => this.#signal(queue) });
  }

  #kick(index: number): void {
    if (this.#active) this.#device.kick(index);
  }

  #signal(index: number): void {
    const { call, callIsSocket } = this.#ring(index);
    // A full pipe (EAGAIN) holds signals enough; a broken one means that the guest is gone, which shows elsewhere.
    if (call !== null) native().signal(call, callIsSocket);
  }
}

const safeAddress = (value: bigint | undefined): number => {
  if (value === undefined || value > BigInt(Number.MAX_SAFE_INTEGER))
    throw new DeviceError("vhost-user: a ring's address is beyond any memory");
  return Number(value);
};

const uint64 = (value: bigint): Uint8Array => {
  const bytes = new Uint8Array(8);
  new DataView(bytes.buffer).setBigUint64(0, value, true);
  return bytes;
};
