import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { decodeFields, encodeBody, encodeFields, encodeFrame, FrameDecoder, ShimProtocolError } from "./shim-codec.ts";
import { FLAG_LAST, FRAME_PAYLOAD_BYTES_MAX, FromShim, ToShim } from "./shim-protocol.ts";
import type { Frame } from "./shim-protocol.ts";

const HOST_TYPES: ReadonlySet<number> = new Set(Object.values(ToShim));

const concat = (pieces: readonly Uint8Array[]): Uint8Array => new Uint8Array(Buffer.concat(pieces));

const plain = (frames: readonly Frame[]): unknown[] => frames.map((f) => [f.type, f.flags, Buffer.from(f.payload)]);

const SAMPLE: readonly Frame[] = [
  { type: FromShim.Hello, flags: 0, payload: encodeFields([[1, 1]]) },
  { type: FromShim.Log, flags: 1, payload: new Uint8Array(300).map((_, i) => i & 0xff) },
  { type: FromShim.ResponseData, flags: 0, payload: new Uint8Array(0) },
  { type: FromShim.ResponseData, flags: 0, payload: new Uint8Array(1) },
  { type: FromShim.Done, flags: 0, payload: encodeFields([[4, 1]]) },
];
const SAMPLE_BYTES = concat(SAMPLE.map((f) => encodeFrame(f.type, f.flags, f.payload)));

describe("FrameDecoder", () => {
  test("yields the same frames however the stream is cut", () => {
    for (const size of [1, 2, 3, 7, 8, 9, 64, 301, SAMPLE_BYTES.length]) {
      const decoder = new FrameDecoder();
      const frames: Frame[] = [];
      for (let at = 0; at < SAMPLE_BYTES.length; at += size) {
        frames.push(...decoder.push(SAMPLE_BYTES.subarray(at, at + size)));
      }
      assert.deepEqual(plain(frames), plain(SAMPLE), `cut into pieces of ${size}`);
      assert.equal(decoder.atBoundary, true);
    }
  });

  test("says when a frame is unfinished", () => {
    const decoder = new FrameDecoder();
    decoder.push(SAMPLE_BYTES.subarray(0, SAMPLE_BYTES.length - 1));
    assert.equal(decoder.atBoundary, false);
    decoder.push(SAMPLE_BYTES.subarray(SAMPLE_BYTES.length - 1));
    assert.equal(decoder.atBoundary, true);
  });

  test("takes a payload of exactly the limit and refuses one byte more", () => {
    const whole = encodeFrame(FromShim.ResponseData, 0, new Uint8Array(FRAME_PAYLOAD_BYTES_MAX));
    assert.equal(new FrameDecoder().push(whole)[0]?.payload.length, FRAME_PAYLOAD_BYTES_MAX);
    const over = encodeFrame(FromShim.ResponseData, 0, new Uint8Array(0));
    new DataView(over.buffer).setUint32(0, FRAME_PAYLOAD_BYTES_MAX + 1, true);
    assert.throws(() => new FrameDecoder().push(over), /262145 bytes, over the limit of 262144/);
  });

  test("refuses a length with the top bit set", () => {
    assert.throws(
      () => new FrameDecoder().push(Uint8Array.of(0xff, 0xff, 0xff, 0xff, FromShim.Log, 0, 0, 0)),
      /4294967295/,
    );
  });

  test("refuses unknown types, types of the other direction and reserved bytes, and stays broken", () => {
    const decoder = new FrameDecoder();
    assert.throws(() => decoder.push(encodeFrame(0x99, 0, new Uint8Array(0))), ShimProtocolError);
    assert.throws(() => decoder.push(SAMPLE_BYTES), /0x99/);
    assert.throws(() => new FrameDecoder().push(encodeFrame(ToShim.Invoke, 0, new Uint8Array(0))), /0x02/);
    assert.equal(new FrameDecoder(HOST_TYPES).push(encodeFrame(ToShim.Invoke, 0, new Uint8Array(0))).length, 1);
    assert.throws(() => new FrameDecoder().push(Uint8Array.of(0, 0, 0, 0, FromShim.Log, 0, 1, 0)), /reserved/);
  });
});

describe("encodeBody", () => {
  test("cuts at the limit and marks the last frame, also of an empty body", () => {
    for (const length of [0, 1, FRAME_PAYLOAD_BYTES_MAX, FRAME_PAYLOAD_BYTES_MAX + 1, 2 * FRAME_PAYLOAD_BYTES_MAX]) {
      const body = new Uint8Array(length).fill(7);
      const frames = new FrameDecoder(HOST_TYPES).push(concat(encodeBody(ToShim.Payload, body)));
      assert.equal(frames.length, Math.max(1, Math.ceil(length / FRAME_PAYLOAD_BYTES_MAX)));
      assert.deepEqual(
        frames.map((f) => f.flags),
        frames.map((_, i) => (i === frames.length - 1 ? FLAG_LAST : 0)),
      );
      assert.equal(Buffer.compare(concat(frames.map((f) => f.payload)), body), 0);
    }
  });

  test("encodeFrame refuses a payload over the limit", () => {
    assert.throws(() => encodeFrame(1, 0, new Uint8Array(FRAME_PAYLOAD_BYTES_MAX + 1)), RangeError);
  });
});

describe("fields", () => {
  test("come back as they were given", () => {
    const reader = decodeFields(
      encodeFields([
        [1, 0],
        [2, Number.MAX_SAFE_INTEGER],
        [3, "grün ☂"],
        [4, Uint8Array.of(0, 255)],
        [5, "a"],
        [5, "b"],
        [6, 2n ** 32n],
        [65_535, ""],
      ]),
    );
    assert.equal(reader.number(1), 0);
    assert.equal(reader.number(2), Number.MAX_SAFE_INTEGER);
    assert.equal(reader.text(3), "grün ☂");
    assert.deepEqual(reader.bytes(4), Uint8Array.of(0, 255));
    assert.equal(reader.text(5), "a");
    assert.deepEqual(
      reader.all(5).map((b) => Buffer.from(b).toString()),
      ["a", "b"],
    );
    assert.equal(reader.number(6), 2 ** 32);
    assert.equal(reader.text(65_535), "");
    assert.equal(reader.number(7), null);
    assert.equal(reader.text(7), null);
    assert.equal(reader.bytes(7), null);
    assert.deepEqual(reader.all(7), []);
  });

  test("refuse a cut header, a length past the end, reserved bytes and numbers that are none", () => {
    const good = encodeFields([[1, "abc"]]);
    for (let length = 1; length < good.length; length++) {
      assert.throws(() => decodeFields(good.subarray(0, length)), ShimProtocolError);
    }
    const huge = Uint8Array.from(good);
    new DataView(huge.buffer).setUint32(4, 0xffff_ffff, true);
    assert.throws(() => decodeFields(huge), /field 1 announces 4294967295 bytes where 3 are left/);
    const reserved = Uint8Array.from(good);
    reserved[2] = 1;
    assert.throws(() => decodeFields(reserved), /reserved/);
    assert.throws(() => decodeFields(good).number(1), /3 bytes long, a number has 8/);
    assert.throws(() => decodeFields(encodeFields([[1, 2n ** 53n]])).number(1), /over 2\^53-1/);
  });

  test("replace broken UTF-8 and do not throw", () => {
    assert.equal(decodeFields(encodeFields([[1, Uint8Array.of(0x61, 0xff)]])).text(1), "a\ufffd");
  });

  test("refuse what cannot be encoded", () => {
    assert.throws(() => encodeFields([[65_536, 1]]), RangeError);
    assert.throws(() => encodeFields([[1, -1]]), RangeError);
    assert.throws(() => encodeFields([[1, 1.5]]), RangeError);
    assert.throws(() => encodeFields([[1, 2n ** 64n]]), RangeError);
    assert.throws(() => encodeFields([[1, new Uint8Array(FRAME_PAYLOAD_BYTES_MAX)]]), RangeError);
  });
});
