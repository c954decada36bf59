import assert from "node:assert/strict";
import { Duplex } from "node:stream";
import { test } from "node:test";
import type { Clock } from "../lib/clock.ts";
import { systemClock } from "../lib/clock.ts";
import { encodeFrame } from "../wire/shim-codec.ts";
import { FromShim } from "../wire/shim-protocol.ts";
import { FRAMES_PER_TURN_MAX, ShimLink } from "./shim-link.ts";

/** Longest payload of one packet of a guest. */
const PACKET_BYTES = 64 * 1024;
const EMPTY = encodeFrame(FromShim.ResponseData, 0, new Uint8Array(0));

/** The host's end of a guest's stream, into which a test puts what the guest sends. */
const guestStream = (): Duplex => new Duplex({ read: () => {}, write: (_chunk, _encoding, done) => done() });

const turn = (): Promise<void> => new Promise((resolve) => void systemClock.soon(resolve));

interface Seen {
  frames: number;
  /** Since the link last gave way to others, and the most of those. */
  inTurn: number;
  mostInTurn: number;
  closed: string | null;
}

/** A link with an owner, and what that is told. */
const linkOf = (stream: Duplex): Seen => {
  const seen: Seen = { frames: 0, inTurn: 0, mostInTurn: 0, closed: null };
  const soon: Clock["soon"] = (callback) =>
    systemClock.soon(() => {
      seen.inTurn = 0;
      callback();
    });
  new ShimLink(stream, { soon }).own({
    frame: () => {
      seen.frames += 1;
      seen.inTurn += 1;
      seen.mostInTurn = Math.max(seen.mostInTurn, seen.inTurn);
    },
    closed: (detail) => (seen.closed = detail),
  });
  return seen;
};

const packetOf = (frame: Uint8Array): Buffer =>
  Buffer.concat(Array.from({ length: PACKET_BYTES / frame.length }, () => frame));

test("packets full of empty frames are delivered a bounded number in a turn, and all of them before the end", async () => {
  const stream = guestStream();
  const seen = linkOf(stream);
  const [packet, packets] = [packetOf(EMPTY), 4];
  for (let n = 0; n < packets; n += 1) stream.push(packet);
  stream.push(null);
  assert.equal(seen.closed, null);
  while (seen.closed === null) await turn();
  assert.equal(seen.frames, (packets * PACKET_BYTES) / EMPTY.length);
  assert.equal(seen.closed, "the shim ended its stream");
  assert.equal(seen.mostInTurn, FRAMES_PER_TURN_MAX);
});

test("many packets of few frames each count as one with many", async () => {
  const stream = guestStream();
  const seen = linkOf(stream);
  const packet = Buffer.concat([EMPTY, EMPTY, EMPTY]);
  for (let n = 0; n < FRAMES_PER_TURN_MAX; n += 1) stream.push(packet);
  while (seen.frames < 3 * FRAMES_PER_TURN_MAX) await turn();
  assert.equal(seen.mostInTurn, FRAMES_PER_TURN_MAX);
});

test("while others have their turn the guest is held back", async () => {
  const stream = guestStream();
  const seen = linkOf(stream);
  const [first, second] = [packetOf(EMPTY), packetOf(EMPTY)];
  stream.push(first);
  await turn();
  assert.ok(stream.isPaused() && seen.frames < first.length / EMPTY.length);
  stream.push(second);
  assert.equal(stream.readableLength, second.length);
  while (seen.frames < (first.length + second.length) / EMPTY.length) await turn();
  await turn();
  assert.equal(stream.isPaused(), false);
});

test("what was sent is delivered though the stream is destroyed, up to a frame that is none", async () => {
  const stream = guestStream();
  const seen = linkOf(stream);
  const frames = 3 * FRAMES_PER_TURN_MAX;
  const unknown = Uint8Array.of(0, 0, 0, 0, 0x99, 0, 0, 0);
  stream.push(Buffer.concat([...Array.from({ length: frames }, () => EMPTY), unknown, EMPTY]));
  await turn();
  stream.destroy();
  while (seen.closed === null) await turn();
  assert.equal(seen.frames, frames);
});
