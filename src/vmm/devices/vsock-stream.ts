import { Duplex } from "node:stream";

import { VSOCK_CREDIT_UPDATE_BYTES, VSOCK_RECEIVE_BYTES_MAX } from "../limits.ts";
import type { Chain } from "./virtqueue.ts";
import {
  SHUTDOWN_BOTH,
  SHUTDOWN_RECEIVE,
  SHUTDOWN_SEND,
  VSOCK_HEADER_BYTES,
  VsockOperation,
  type VsockHeader,
} from "./vsock-packet.ts";

type Done = (error?: Error | null) => void;

/** What a stream asks of its device. */
export interface VsockLink {
  /** The stream has a packet to send. */
  wake(stream: VsockStream): void;
  /** Forget the stream; with RST when the guest does not know yet. */
  drop(stream: VsockStream, reset: boolean): void;
}

/** connecting → open → closing (both sides are done, the guest has yet to confirm) → closed */
type StreamState = "connecting" | "open" | "closing" | "closed";

const systemError = (code: string, message: string): NodeJS.ErrnoException =>
  Object.assign(new Error(message), { code });

/** An error as Node's sockets give it when the other side went away. */
export const connectionReset = (message: string): NodeJS.ErrnoException => systemError("ECONNRESET", message);

/**
 * One vsock connection as a byte stream. Back-pressure both ways is the protocol's credit: the guest sends no more than
 * we have read, we send no more than it has read and has buffers for.
 */
export class VsockStream extends Duplex {
  readonly hostPort: number;
  readonly guestPort: number;
  /** True while it is in the device's list of those with something to send. */
  queued = false;
  readonly #link: VsockLink;
  #state: StreamState;
  /** A bare packet to send as soon as possible: REQUEST or RESPONSE. */
  #handshake: number;
  #creditWanted = false;
  #shutdownWanted = 0;
  #shutdownSent = 0;
  #peerEnded = false;
  #peerDeaf = false;
  #chunks: Buffer[] = [];
  #chunkOffset = 0;
  #written: Done | null = null;
  /** Bytes sent, received, and told as forwarded: all modulo 2^32, as on the wire. */
  #sent = 0;
  #received = 0;
  #told = 0;
  #peerBuffer = 0;
  #peerForwarded = 0;

  constructor(link: VsockLink, hostPort: number, guestPort: number, direction: "in" | "out") {
    super({ allowHalfOpen: true, readableHighWaterMark: VSOCK_RECEIVE_BYTES_MAX });
    this.#link = link;
    this.hostPort = hostPort;
    this.guestPort = guestPort;
    this.#state = direction === "in" ? "open" : "connecting";
    this.#handshake = direction === "in" ? VsockOperation.Response : VsockOperation.Request;
    // A guest can reset a stream at any moment, also when nobody happens to listen for errors: never a crash.
    this.on("error", () => {});
  }

  get state(): StreamState {
    return this.#state;
  }

  /** Takes the credit every packet of the guest carries. False when it claims to have got what was never sent. */
  takeCredit(header: VsockHeader): boolean {
    const advance = (header.forwarded - this.#peerForwarded) >>> 0;
    if (advance > (this.#sent - this.#peerForwarded) >>> 0) return false;
    this.#peerForwarded = header.forwarded;
    this.#peerBuffer = header.bufferBytes;
    if (this.#chunks.length > 0) this.#link.wake(this);
    return true;
  }

  /** The guest accepted our connection. False when it was not asked. */
  opened(): boolean {
    if (this.#state !== "connecting") return false;
    this.#state = "open";
    this.emit("connect");
    this.#link.wake(this);
    return true;
  }

  /** Whether so many further bytes are within the credit we gave. */
  mayReceive(bytes: number): boolean {
    return !this.#peerEnded && ((this.#received - this.#told) >>> 0) + bytes <= VSOCK_RECEIVE_BYTES_MAX;
  }

  /** Bytes of the guest, already copied out of its memory. */
  deliver(bytes: Buffer): void {
    this.#received = (this.#received + bytes.length) >>> 0;
    if (this.#state === "closing" || this.destroyed) return;
    this.push(bytes);
    this.#checkCredit();
  }

  /** The guest will send no more (SEND), or take no more (RECEIVE), or has closed (both). */
  peerShutdown(flags: number): void {
    if ((flags & SHUTDOWN_SEND) !== 0 && !this.#peerEnded) {
      this.#peerEnded = true;
      if (!this.destroyed) this.push(null);
    }
    if ((flags & SHUTDOWN_RECEIVE) !== 0) this.#peerDeaf = true;
    if (this.#peerEnded && this.#peerDeaf) {
      // Confirms an orderly close: the guest's socket lingers until this arrives.
      this.#state = "closed";
      this.#link.drop(this, true);
    }
    if (this.#peerDeaf) this.#failWrite();
  }

  /** The guest reset the connection, or the device is gone. */
  peerReset(message: string): void {
    const orderly = this.#state === "closing" || (this.#peerEnded && this.writableFinished);
    this.#state = "closed";
    this.#link.drop(this, false);
    this.#peerDeaf = true;
    if (orderly) {
      this.#failWrite();
    } else {
      this.destroy(connectionReset(message));
    }
  }

  creditRequested(): void {
    this.#creditWanted = true;
    this.#link.wake(this);
  }

  #credit(): number {
    const inFlight = (this.#sent - this.#peerForwarded) >>> 0;
    return inFlight >= this.#peerBuffer ? 0 : this.#peerBuffer - inFlight;
  }

  /** Whether `fill` has something to put into a packet. */
  hasPacket(): boolean {
    if (this.#handshake !== 0) return true;
    if (this.#state !== "open" && this.#state !== "closing") return false;
    if (this.#creditWanted) return true;
    if (this.#chunks.length > 0) return this.#state === "open" && this.#credit() > 0;
    return (this.#shutdownWanted & ~this.#shutdownSent) !== 0;
  }

  /** Puts the next packet into the writable buffers of `chain`; only when `hasPacket`. Sets all of `header` but its type. */
  fill(chain: Chain, header: VsockHeader): void {
    header.sourcePort = this.hostPort;
    header.destinationPort = this.guestPort;
    header.length = 0;
    header.flags = 0;
    if (this.#handshake !== 0) {
      header.operation = this.#handshake;
      this.#handshake = 0;
    } else if (this.#chunks.length > 0 && this.#state === "open" && this.#credit() > 0) {
      header.operation = VsockOperation.ReadWrite;
      header.length = this.#fillData(chain);
    } else if (this.#creditWanted || this.#chunks.length > 0) {
      header.operation = VsockOperation.CreditUpdate;
    } else {
      header.operation = VsockOperation.Shutdown;
      header.flags = this.#shutdownSent = this.#shutdownWanted;
    }
    this.#creditWanted = false;
    this.#told = (this.#received - this.readableLength) >>> 0;
    header.bufferBytes = VSOCK_RECEIVE_BYTES_MAX;
    header.forwarded = this.#told;
  }

  #fillData(chain: Chain): number {
    let credit = this.#credit();
    let total = 0;
    let skip = VSOCK_HEADER_BYTES;
    for (let i = 0; i < chain.writableCount && credit > 0; i++) {
      const buffer = chain.buffers[chain.readableCount + i];
      if (buffer === undefined) break;
      const { bytes } = buffer.region;
      const end = buffer.offset + Math.min(buffer.length, skip + credit);
      let at = buffer.offset + skip;
      skip = 0;
      while (at < end) {
        const [chunk] = this.#chunks;
        if (chunk === undefined) break;
        const length = Math.min(end - at, chunk.length - this.#chunkOffset);
        bytes.set(length === chunk.length ? chunk : chunk.subarray(this.#chunkOffset, this.#chunkOffset + length), at);
        at += length;
        total += length;
        credit -= length;
        this.#chunkOffset += length;
        if (this.#chunkOffset === chunk.length) {
          this.#chunks.shift();
          this.#chunkOffset = 0;
        }
      }
    }
    this.#sent = (this.#sent + total) >>> 0;
    if (this.#chunks.length === 0) this.#finishWrite(null);
    return total;
  }

  #finishWrite(error: Error | null): void {
    const written = this.#written;
    this.#written = null;
    written?.(error);
  }

  #failWrite(): void {
    this.#chunks = [];
    this.#chunkOffset = 0;
    if (this.#written !== null) this.#finishWrite(systemError("EPIPE", "The guest has closed its side of the stream"));
  }

  #checkCredit(): void {
    if (this.#creditWanted || this.#state !== "open" || this.#peerEnded) return;
    const untold = (this.#received - this.readableLength - this.#told) >>> 0;
    if (untold >= VSOCK_CREDIT_UPDATE_BYTES) this.creditRequested();
  }

  /** `_read` is not called while the guest is out of credit, so consumption is seen here. */
  override read(size?: number): unknown {
    const chunk: unknown = super.read(size);
    this.#checkCredit();
    return chunk;
  }

  override _read(): void {}

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: Done): void {
    this.#send([chunk], done);
  }

  override _writev(chunks: { chunk: Buffer }[], done: Done): void {
    this.#send(
      chunks.map(({ chunk }) => chunk),
      done,
    );
  }

  #send(chunks: Buffer[], done: Done): void {
    if (this.#peerDeaf || this.#state === "closed") {
      done(systemError("EPIPE", "The guest has closed its side of the stream"));
      return;
    }
    this.#chunks = chunks.filter((chunk) => chunk.length > 0);
    this.#chunkOffset = 0;
    if (this.#chunks.length === 0) {
      done();
      return;
    }
    this.#written = done;
    this.#link.wake(this);
  }

  override _final(done: Done): void {
    this.#shutdownWanted |= SHUTDOWN_SEND;
    this.#link.wake(this);
    done();
  }

  override _destroy(error: Error | null, done: (error: Error | null) => void): void {
    if (this.#state === "open" && error === null && this.#peerEnded && this.writableFinished) {
      this.#state = "closing";
      this.#shutdownWanted = SHUTDOWN_BOTH;
      this.#link.wake(this);
    } else if (this.#state !== "closed" && this.#state !== "closing") {
      const known = this.#handshake !== VsockOperation.Request;
      this.#state = "closed";
      this.#handshake = 0;
      this.#link.drop(this, known);
    }
    this.#failWrite();
    done(error);
  }
}
