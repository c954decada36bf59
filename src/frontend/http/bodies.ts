import { createHash } from "node:crypto";
import type { IncomingMessage } from "node:http";
import type { Clock } from "../../lib/clock.ts";
import { ServiceError } from "../../wire/errors.ts";
import { unavailable } from "../../wire/exhaustion.ts";
import {
  BODIES_BYTES_MAX,
  BODY_BYTES_PER_S_MIN,
  BODY_CHECK_MS,
  BODY_GRACE_MS,
  UNPROVEN_BODIES_BYTES_MAX,
} from "./limits.ts";

/*
 * Bodies of requests, read into memory within bounds. A body may come before its sender has proven a key: a signature
 * covers the body's hash, and a client that does not name the hash in a header (the AWS CLI, boto3) is known to be good
 * only when the last byte is there. All such bodies share one budget. It counts what has come, not what was announced, so
 * that announcing costs others nothing; and when it is used up, the body that comes slowest gives way, so that whoever
 * trickles cannot keep the budget from those who send. Bodies of proven senders share another budget, of which each
 * takes what it announced.
 */

const MS_PER_S = 1_000;
const EMPTY: Buffer = Buffer.alloc(0);

/** A body that is held, and counted as such until it is disposed of. */
export interface Body extends Disposable {
  readonly bytes: Buffer;
  /** SHA-256 in hexadecimal; empty when nobody asked for it. */
  readonly sha256: string;
  /** The sender has proven its key by this body. Throws 503 when bodies of proven senders take all they may. */
  prove(): void;
}

export interface BodyWish {
  /** Most bytes of it. */
  readonly bytesMax: number;
  /** The error for a longer one. */
  readonly tooLarge: () => ServiceError;
  /** Whether the sender has proven its key already. */
  readonly isProven: boolean;
  readonly needsHash: boolean;
}

/** One that is being read and whose sender is not proven. */
interface Unproven {
  bytes: number;
  readonly startedMs: number;
  readonly giveUp: (error: ServiceError) => void;
}

const noRoom = (): ServiceError =>
  unavailable(
    "The bodies of requests that Hearth is reading take all the memory that they may. Try again when fewer clients upload at once.",
  );

const tooSlow = (): ServiceError =>
  new ServiceError(
    "RequestTimeoutException",
    408,
    `The request's body must come at ${BODY_BYTES_PER_S_MIN} bytes a second or more, after the first ${BODY_GRACE_MS / MS_PER_S} seconds.`,
  );

const brokenOff = (): ServiceError => new ServiceError("BadRequestException", 400, "The request's body broke off.");

/** The announced length; null for a body in chunks. */
const announcedBytes = (incoming: IncomingMessage): number | null => {
  const text = incoming.headers["content-length"];
  return text === undefined ? null : Number(text);
};

/** Collects chunks: in place when the length is known, else doubling. */
class Collector {
  #buffer: Buffer;
  #length = 0;

  constructor(announced: number | null) {
    this.#buffer = announced === null || announced === 0 ? EMPTY : Buffer.allocUnsafeSlow(announced);
  }

  get length(): number {
    return this.#length;
  }

  add(chunk: Buffer): void {
    const needed = this.#length + chunk.byteLength;
    if (needed > this.#buffer.byteLength) {
      const larger = Buffer.allocUnsafeSlow(Math.max(needed, 2 * this.#buffer.byteLength));
      this.#buffer.copy(larger, 0, 0, this.#length);
      this.#buffer = larger;
    }
    chunk.copy(this.#buffer, this.#length);
    this.#length = needed;
  }

  take(): Buffer {
    return this.#buffer.subarray(0, this.#length);
  }
}

/** What one proven body takes of the budget. */
class Share implements Disposable {
  readonly #bodies: Bodies;
  #bytes = 0;

  constructor(bodies: Bodies) {
    this.#bodies = bodies;
  }

  /** Makes it so large at least. Throws 503 when there is no room. */
  grow(bytes: number): void {
    if (bytes <= this.#bytes) return;
    this.#bodies.take(bytes - this.#bytes);
    this.#bytes = bytes;
  }

  [Symbol.dispose](): void {
    this.#bodies.take(-this.#bytes);
    this.#bytes = 0;
  }
}

export class Bodies {
  readonly #clock: Clock;
  readonly #unprovenBytesMax: number;
  readonly #bytesMax: number;
  readonly #unproven = new Set<Unproven>();
  #unprovenBytes = 0;
  #bytes = 0;

  constructor(clock: Clock, unprovenBytesMax: number = UNPROVEN_BODIES_BYTES_MAX, bytesMax: number = BODIES_BYTES_MAX) {
    this.#clock = clock;
    this.#unprovenBytesMax = unprovenBytesMax;
    this.#bytesMax = bytesMax;
  }

  /** Bytes held of bodies whose senders are not proven, and of all others. */
  get held(): { readonly unprovenBytes: number; readonly bytes: number } {
    return { unprovenBytes: this.#unprovenBytes, bytes: this.#bytes };
  }

  /**
   * Reads a body whole. Rejects with `tooLarge`, with 408 for one that comes too slowly, with 503 when the bodies being
   * read take all they may, and with 400 when it breaks off; the rest of it is then still to be read.
   */
  async read(incoming: IncomingMessage, wish: BodyWish): Promise<Body> {
    const announced = announcedBytes(incoming);
    if (announced !== null && announced > wish.bytesMax) throw wish.tooLarge();
    return wish.isProven ? this.#readProven(incoming, wish, announced) : this.#readUnproven(incoming, wish, announced);
  }

  async #readProven(incoming: IncomingMessage, wish: BodyWish, announced: number | null): Promise<Body> {
    const share = new Share(this);
    try {
      share.grow(announced ?? 0);
      const read = await this.#collect(incoming, wish, announced, (length) => share.grow(length));
      return { ...read, prove: () => undefined, [Symbol.dispose]: () => share[Symbol.dispose]() };
    } catch (error) {
      share[Symbol.dispose]();
      throw error;
    }
  }

  /** Counts bytes of proven senders in (or out, below 0). Throws 503 when there is no room for so many. */
  take(bytes: number): void {
    if (bytes > 0 && this.#bytes + bytes > this.#bytesMax) throw noRoom();
    this.#bytes += bytes;
  }

  async #readUnproven(incoming: IncomingMessage, wish: BodyWish, announced: number | null): Promise<Body> {
    const given = Promise.withResolvers<never>();
    given.promise.catch(() => undefined);
    const entry: Unproven = { bytes: 0, startedMs: this.#clock.monotonicMs(), giveUp: given.reject };
    const release = (): void => {
      if (this.#unproven.delete(entry)) this.#unprovenBytes -= entry.bytes;
    };
    this.#unproven.add(entry);
    try {
      const count = (length: number): void => {
        if (!this.#unproven.has(entry)) return;
        this.#unprovenBytes += length - entry.bytes;
        entry.bytes = length;
        while (this.#unprovenBytes > this.#unprovenBytesMax) this.#giveWay();
      };
      const read = await this.#collect(incoming, wish, announced, count, given.promise);
      const share = new Share(this);
      const prove = (): void => {
        release();
        share.grow(read.bytes.byteLength);
      };
      const dispose = (): void => {
        release();
        share[Symbol.dispose]();
      };
      return { ...read, prove, [Symbol.dispose]: dispose };
    } catch (error) {
      release();
      throw error;
    }
  }

  /** The slowest of the unproven bodies is refused. */
  #giveWay(): void {
    const nowMs = this.#clock.monotonicMs();
    let slowest: Unproven | null = null;
    let rateMin = Number.POSITIVE_INFINITY;
    for (const entry of this.#unproven) {
      const rate = entry.bytes / (nowMs - entry.startedMs + MS_PER_S);
      if (entry.bytes > 0 && rate < rateMin) [slowest, rateMin] = [entry, rate];
    }
    if (slowest === null) return;
    this.#unproven.delete(slowest);
    this.#unprovenBytes -= slowest.bytes;
    slowest.giveUp(noRoom());
  }

  /** Reads until the end, the limit, `count` throwing, or `given` rejecting. */
  #collect(
    incoming: IncomingMessage,
    wish: BodyWish,
    announced: number | null,
    count: (length: number) => void,
    given?: Promise<never>,
  ): Promise<{ readonly bytes: Buffer; readonly sha256: string }> {
    const startedMs = this.#clock.monotonicMs();
    const hash = wish.needsHash ? createHash("sha256") : null;
    const collector = new Collector(announced);
    return new Promise((resolve, reject) => {
      let stopped = false;
      const stop = (settle: () => void): void => {
        if (stopped) return;
        stopped = true;
        timer[Symbol.dispose]();
        incoming.off("data", onData).off("end", onEnd).off("error", onBroken).off("close", onBroken);
        incoming.pause();
        settle();
      };
      const fail = (error: unknown): void => stop(() => reject(error instanceof Error ? error : noRoom()));
      const onData = (chunk: Buffer): void => {
        if (collector.length + chunk.byteLength > wish.bytesMax) return fail(wish.tooLarge());
        try {
          count(collector.length + chunk.byteLength);
        } catch (error) {
          return fail(error);
        }
        collector.add(chunk);
        hash?.update(chunk);
      };
      const onEnd = (): void =>
        stop(() => resolve({ bytes: collector.take(), sha256: hash === null ? "" : hash.digest("hex") }));
      const onBroken = (): void => fail(brokenOff());
      const timer = this.#clock.every(BODY_CHECK_MS, () => {
        const overMs = this.#clock.monotonicMs() - startedMs - BODY_GRACE_MS;
        if (overMs > 0 && collector.length < (overMs / MS_PER_S) * BODY_BYTES_PER_S_MIN) fail(tooSlow());
      });
      given?.catch(fail);
      incoming.on("data", onData).on("end", onEnd).on("error", onBroken).on("close", onBroken);
      incoming.resume();
    });
  }
}
