/**
 * Bytes ↔ frames of the shim's protocol (`shim-protocol.ts`). Pure: no sockets, no clocks. What is decoded
 * comes from a guest and is hostile, so every length is checked before anything is allocated or sliced.
 */
import { FLAG_LAST, FRAME_HEADER_BYTES, FRAME_PAYLOAD_BYTES_MAX, FromShim } from "./shim-protocol.ts";
import type { Field, Frame } from "./shim-protocol.ts";

const FIELD_HEADER_BYTES = 8;
const NUMBER_BYTES = 8;
const NOTHING: Uint8Array = new Uint8Array(0);

const utf8Encoder = new TextEncoder();
/** Not fatal: a runtime may put any byte into a header, and a broken text must not end the microVM. */
const utf8Decoder = new TextDecoder("utf-8", { ignoreBOM: true });

/** The guest broke the protocol. Its microVM is to be ended; nothing else is affected. */
export class ShimProtocolError extends Error {
  override readonly name = "ShimProtocolError";
}

const FROM_SHIM_TYPES: ReadonlySet<number> = new Set(Object.values(FromShim));

/**
 * Cuts a byte stream into frames. Payloads are views: of the pushed chunk where a frame lies whole in it, else of
 * a buffer made for that frame. So a chunk must not be written to after it was pushed.
 * After an error the decoder stays broken and throws the same error for every further chunk.
 */
export class FrameDecoder {
  readonly #types: ReadonlySet<number>;
  readonly #header = new Uint8Array(FRAME_HEADER_BYTES);
  #headerBytes = 0;
  /** The bytes that `next` reads, from `at` on. */
  #chunk: Uint8Array = NOTHING;
  #at = 0;
  /** The frame that is being put together from several chunks, once its header is whole. */
  #partial: { type: number; flags: number; payload: Uint8Array; filled: number } | null = null;
  #failure: ShimProtocolError | null = null;

  /** `types`: frame types that may come; all others are an error. The shim's own by default. */
  constructor(types: ReadonlySet<number> = FROM_SHIM_TYPES) {
    this.#types = types;
  }

  /** Whether the stream may end here: no frame has begun that is not whole. */
  get atBoundary(): boolean {
    return this.#headerBytes === 0 && this.#partial === null;
  }

  /**
   * Takes the next bytes of the stream; returns the frames that became whole, in order.
   * Throws `ShimProtocolError` on an unknown type, a payload over the limit or reserved bytes that are not zero.
   */
  push(chunk: Uint8Array): readonly Frame[] {
    this.feed(chunk);
    const frames: Frame[] = [];
    for (;;) {
      const frame = this.next();
      if (frame === null) return frames;
      frames.push(frame);
    }
  }

  /** Takes the next bytes of the stream, once `next` has answered null for those before. */
  feed(chunk: Uint8Array): void {
    this.#chunk = chunk;
    this.#at = 0;
  }

  /** The next frame that is whole, or null when that takes more bytes. Throws as `push` does. */
  next(): Frame | null {
    if (this.#failure !== null) throw this.#failure;
    while (this.#at < this.#chunk.length) {
      const frame = this.#partial === null ? this.#begin(this.#chunk) : this.#continue(this.#partial, this.#chunk);
      if (frame !== null) return frame;
    }
    this.#chunk = NOTHING;
    this.#at = 0;
    return null;
  }

  /** At a frame's header. Returns the frame if the chunk has all of it. */
  #begin(chunk: Uint8Array): Frame | null {
    let header = chunk;
    let headerAt = this.#at;
    if (this.#headerBytes > 0 || chunk.length - this.#at < FRAME_HEADER_BYTES) {
      const take = Math.min(FRAME_HEADER_BYTES - this.#headerBytes, chunk.length - this.#at);
      this.#header.set(chunk.subarray(this.#at, this.#at + take), this.#headerBytes);
      this.#headerBytes += take;
      this.#at += take;
      if (this.#headerBytes < FRAME_HEADER_BYTES) return null;
      header = this.#header;
      headerAt = 0;
      this.#headerBytes = 0;
    } else {
      this.#at += FRAME_HEADER_BYTES;
    }
    const length = readU32(header, headerAt);
    const type = header[headerAt + 4] ?? 0;
    const flags = header[headerAt + 5] ?? 0;
    this.#check(length, type, readU16(header, headerAt + 6));
    const at = this.#at;
    if (chunk.length - at >= length) {
      this.#at = at + length;
      return { type, flags, payload: length === 0 ? NOTHING : chunk.subarray(at, at + length) };
    }
    const partial = { type, flags, payload: new Uint8Array(length), filled: 0 };
    this.#partial = partial;
    return this.#continue(partial, chunk);
  }

  #continue(
    partial: { type: number; flags: number; payload: Uint8Array; filled: number },
    chunk: Uint8Array,
  ): Frame | null {
    const take = Math.min(partial.payload.length - partial.filled, chunk.length - this.#at);
    partial.payload.set(chunk.subarray(this.#at, this.#at + take), partial.filled);
    partial.filled += take;
    this.#at += take;
    if (partial.filled < partial.payload.length) return null;
    this.#partial = null;
    return { type: partial.type, flags: partial.flags, payload: partial.payload };
  }

  #check(length: number, type: number, reserved: number): void {
    if (!this.#types.has(type)) this.#fail(`frame type 0x${type.toString(16).padStart(2, "0")} is not known`);
    if (length > FRAME_PAYLOAD_BYTES_MAX) {
      this.#fail(
        `frame 0x${type.toString(16)} announces ${length} bytes, over the limit of ${FRAME_PAYLOAD_BYTES_MAX}`,
      );
    }
    if (reserved !== 0) this.#fail(`frame 0x${type.toString(16)} has ${reserved} in its reserved bytes, not 0`);
  }

  #fail(detail: string): never {
    this.#failure = new ShimProtocolError(`shim protocol: ${detail}`);
    throw this.#failure;
  }
}

/** A frame's header alone, for who writes a payload without copying it. Throws `RangeError` over the limit. */
export const encodeFrameHeader = (type: number, flags: number, payloadBytes: number): Uint8Array => {
  const header = new Uint8Array(FRAME_HEADER_BYTES);
  writeFrameHeader(header, type, flags, payloadBytes);
  return header;
};

/** One whole frame. The payload is copied. Throws `RangeError` when it is over FRAME_PAYLOAD_BYTES_MAX. */
export const encodeFrame = (type: number, flags: number, payload: Uint8Array): Uint8Array => {
  const frame = new Uint8Array(FRAME_HEADER_BYTES + payload.length);
  writeFrameHeader(frame, type, flags, payload.length);
  frame.set(payload, FRAME_HEADER_BYTES);
  return frame;
};

/**
 * A body of any length as frames of `type`, FLAG_LAST on the last one; an empty body is one empty frame.
 * The pieces are to be written in order; payloads are views of `body`.
 */
export const encodeBody = (type: number, body: Uint8Array): Uint8Array[] => {
  const pieces: Uint8Array[] = [];
  let at = 0;
  do {
    const end = Math.min(at + FRAME_PAYLOAD_BYTES_MAX, body.length);
    pieces.push(encodeFrameHeader(type, end === body.length ? FLAG_LAST : 0, end - at));
    if (end > at) pieces.push(body.subarray(at, end));
    at = end;
  } while (at < body.length);
  return pieces;
};

/**
 * A list of fields as a frame's payload. Throws `RangeError` for a key outside 0..65535, a number that is not
 * a whole one in 0..2^64-1, or when all together are over FRAME_PAYLOAD_BYTES_MAX.
 */
export const encodeFields = (fields: readonly Field[]): Uint8Array => {
  let total = 0;
  const values: Uint8Array[] = [];
  for (const [key, value] of fields) {
    if (!Number.isInteger(key) || key < 0 || key > 0xffff) throw new RangeError(`field key ${key} is not in 0..65535`);
    const bytes = fieldValue(key, value);
    values.push(bytes);
    total += FIELD_HEADER_BYTES + bytes.length;
  }
  if (total > FRAME_PAYLOAD_BYTES_MAX) {
    throw new RangeError(`fields take ${total} bytes, over the limit of ${FRAME_PAYLOAD_BYTES_MAX} for one frame`);
  }
  const payload = new Uint8Array(total);
  let at = 0;
  for (const [index, value] of values.entries()) {
    writeU16(payload, at, fields[index]?.[0] ?? 0);
    writeU32(payload, at + 4, value.length);
    payload.set(value, at + FIELD_HEADER_BYTES);
    at += FIELD_HEADER_BYTES + value.length;
  }
  return payload;
};

/** The fields of one payload. The first of several with the same key counts, except for `all`. */
export class FieldReader {
  readonly #keys: readonly number[];
  readonly #values: readonly Uint8Array[];

  constructor(keys: readonly number[], values: readonly Uint8Array[]) {
    this.#keys = keys;
    this.#values = values;
  }

  /** A u64le, or null when the field is absent. Throws when it is not 8 bytes or over 2^53-1. */
  number(key: number): number | null {
    const value = this.bytes(key);
    if (value === null) return null;
    if (value.length !== NUMBER_BYTES) {
      throw new ShimProtocolError(`shim protocol: field ${key} is ${value.length} bytes long, a number has 8`);
    }
    const number = readU32(value, 4) * 2 ** 32 + readU32(value, 0);
    if (number > Number.MAX_SAFE_INTEGER) {
      throw new ShimProtocolError(`shim protocol: field ${key} is over 2^53-1`);
    }
    return number;
  }

  /** UTF-8 text (broken sequences become U+FFFD), or null when the field is absent. */
  text(key: number): string | null {
    const value = this.bytes(key);
    return value === null ? null : utf8Decoder.decode(value);
  }

  /** The value as it came, a view of the payload, or null when the field is absent. */
  bytes(key: number): Uint8Array | null {
    const index = this.#keys.indexOf(key);
    return index === -1 ? null : (this.#values[index] ?? null);
  }

  /** Every value of a repeated field, in order; views of the payload. */
  all(key: number): Uint8Array[] {
    return this.#values.filter((_, index) => this.#keys[index] === key);
  }
}

/** Reads a payload of fields. Throws `ShimProtocolError` when a length points past the end. */
export const decodeFields = (payload: Uint8Array): FieldReader => {
  const keys: number[] = [];
  const values: Uint8Array[] = [];
  let at = 0;
  while (at < payload.length) {
    if (payload.length - at < FIELD_HEADER_BYTES) {
      throw new ShimProtocolError(`shim protocol: ${payload.length - at} bytes left where a field's header has 8`);
    }
    const key = readU16(payload, at);
    const length = readU32(payload, at + 4);
    if (readU16(payload, at + 2) !== 0) {
      throw new ShimProtocolError(`shim protocol: field ${key} has reserved bytes that are not 0`);
    }
    at += FIELD_HEADER_BYTES;
    if (length > payload.length - at) {
      throw new ShimProtocolError(
        `shim protocol: field ${key} announces ${length} bytes where ${payload.length - at} are left`,
      );
    }
    keys.push(key);
    values.push(payload.subarray(at, at + length));
    at += length;
  }
  return new FieldReader(keys, values);
};

const fieldValue = (key: number, value: Field[1]): Uint8Array => {
  if (typeof value === "string") return utf8Encoder.encode(value);
  if (typeof value === "object") return value;
  const bytes = new Uint8Array(NUMBER_BYTES);
  if (typeof value === "bigint") {
    if (value < 0n || value >= 2n ** 64n) throw new RangeError(`field ${key}: ${value} is not in 0..2^64-1`);
    new DataView(bytes.buffer).setBigUint64(0, value, true);
    return bytes;
  }
  if (!Number.isSafeInteger(value) || value < 0) {
    throw new RangeError(`field ${key}: ${value} is not a whole number in 0..2^53-1`);
  }
  writeU32(bytes, 0, value % 2 ** 32);
  writeU32(bytes, 4, Math.floor(value / 2 ** 32));
  return bytes;
};

const writeFrameHeader = (into: Uint8Array, type: number, flags: number, payloadBytes: number): void => {
  if (payloadBytes > FRAME_PAYLOAD_BYTES_MAX) {
    throw new RangeError(`a frame's payload of ${payloadBytes} bytes is over the limit of ${FRAME_PAYLOAD_BYTES_MAX}`);
  }
  writeU32(into, 0, payloadBytes);
  into[4] = type;
  into[5] = flags;
};

const readU16 = (from: Uint8Array, at: number): number => (from[at] ?? 0) | ((from[at + 1] ?? 0) << 8);

const readU32 = (from: Uint8Array, at: number): number => (readU16(from, at) | (readU16(from, at + 2) << 16)) >>> 0;

const writeU16 = (into: Uint8Array, at: number, value: number): void => {
  into[at] = value & 0xff;
  into[at + 1] = value >>> 8;
};

const writeU32 = (into: Uint8Array, at: number, value: number): void => {
  into[at] = value & 0xff;
  into[at + 1] = (value >>> 8) & 0xff;
  into[at + 2] = (value >>> 16) & 0xff;
  into[at + 3] = (value >>> 24) & 0xff;
};
