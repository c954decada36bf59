import assert from "node:assert/strict";
import { test } from "node:test";

import { checkFrame, ETHERNET_HEADER_BYTES, NET_HEADER_BYTES } from "./frame-header.ts";
import { seededBelow } from "../../lib/random.ts";

const MTU = 1500;
const TCP = 6;
const UDP = 17;

interface Wishes {
  readonly flags?: number;
  readonly segmentation?: number;
  readonly segmentBytes?: number;
  /** The rest of the header, which is not to be believed. */
  readonly garbage?: number;
}

interface Packet {
  readonly protocol?: number;
  /** Of the IPv4 header, in words. */
  readonly headerWords?: number;
  readonly tcpWords?: number;
  readonly payload: number;
  readonly change?: (frame: Buffer) => void;
}

/** A frame with an IPv4 packet and the virtio header before it, somewhere in a larger buffer. */
const build = (wishes: Wishes, packet: Packet): { view: DataView; at: number; length: number; bytes: Buffer } => {
  const { protocol = TCP, headerWords = 5, tcpWords = 5, payload } = packet;
  const transport = protocol === TCP ? 4 * tcpWords : 8;
  const frame = Buffer.alloc(ETHERNET_HEADER_BYTES + 4 * headerWords + transport + payload, 0x11);
  frame.writeUInt16BE(0x0800, 12);
  frame[14] = 0x40 | headerWords;
  frame.writeUInt16BE(frame.length - ETHERNET_HEADER_BYTES, 16);
  frame.writeUInt16BE(0x4000, 20);
  frame[23] = protocol;
  if (protocol === TCP) frame[14 + 4 * headerWords + 12] = tcpWords << 4;
  packet.change?.(frame);
  const header = Buffer.alloc(NET_HEADER_BYTES, wishes.garbage ?? 0);
  header[0] = wishes.flags ?? 0;
  header[1] = wishes.segmentation ?? 0;
  header.writeUInt16LE(wishes.segmentBytes ?? 0, 4);
  const at = 32;
  const bytes = Buffer.concat([Buffer.alloc(at, 0xee), header, frame, Buffer.alloc(32, 0xee)]);
  const length = header.length + frame.length;
  return { bytes, at, length, view: new DataView(bytes.buffer, bytes.byteOffset, bytes.length) };
};

/** The header after the check: flags, kind of segmentation, then the numbers. */
const check = (wishes: Wishes, packet: Packet): { packets: number; header: number[] } => {
  const { bytes, view, at, length } = build(wishes, packet);
  const frame = Buffer.from(bytes.subarray(at + NET_HEADER_BYTES, at + length));
  const packets = checkFrame(view, at, length, MTU);
  assert.deepEqual(bytes.subarray(at + NET_HEADER_BYTES, at + length), frame, "the frame itself was changed");
  assert.deepEqual([...bytes.subarray(0, at)], Array<number>(at).fill(0xee));
  assert.deepEqual([...bytes.subarray(at + length)], Array<number>(32).fill(0xee));
  const numbers = [2, 4, 6, 8, 10].map((offset) => view.getUint16(at + offset, true));
  return { packets, header: [view.getUint8(at), view.getUint8(at + 1), ...numbers] };
};

const CUT = { flags: 1, segmentation: 1, segmentBytes: 1448, garbage: 0xff } as const;

test("a plain frame leaves with a plain header, whatever else stood in it", () => {
  assert.deepEqual(check({ garbage: 0xff, segmentBytes: 77 }, { payload: 100 }), {
    packets: 1,
    header: [0, 0, 0, 0, 0, 0, 0],
  });
  assert.equal(check({}, { payload: MTU - 40 }).packets, 1);
  assert.equal(check({}, { payload: MTU - 39 }).packets, 0);
});

test("a checksum is filled in where the packet's own headers say, not where the guest says", () => {
  const wish = { flags: 1, garbage: 0xff };
  assert.deepEqual(check(wish, { payload: 10 }).header, [1, 0, 0, 0, 34, 16, 0]);
  assert.deepEqual(check(wish, { payload: 10, protocol: UDP }).header, [1, 0, 0, 0, 34, 6, 0]);
  assert.deepEqual(check(wish, { payload: 10, headerWords: 15 }).header, [1, 0, 0, 0, 74, 16, 0]);
  assert.equal(check(wish, { payload: MTU - 39 }).packets, 0);
});

test("TCP is cut into segments that fit", () => {
  assert.deepEqual(check(CUT, { payload: 64_000, tcpWords: 8 }), {
    packets: Math.ceil(64_000 / 1448),
    header: [1, 1, 66, 1448, 34, 16, 0],
  });
  assert.equal(check({ ...CUT, segmentBytes: 88 }, { payload: 8_800 }).packets, 100);
  assert.equal(check({ ...CUT, segmentBytes: 87 }, { payload: 8_800 }).packets, 0);
  assert.equal(check({ ...CUT, segmentBytes: 0 }, { payload: 8_800 }).packets, 0);
  assert.equal(check({ ...CUT, segmentBytes: MTU - 40 }, { payload: 8_800 }).packets, 7);
  assert.equal(check({ ...CUT, segmentBytes: MTU - 39 }, { payload: 8_800 }).packets, 0);
});

const REFUSED: readonly (readonly [what: string, wishes: Wishes, packet: Packet])[] = [
  ["cutting without a checksum", { ...CUT, flags: 0 }, { payload: 9_000 }],
  ["cutting UDP", CUT, { payload: 9_000, protocol: UDP }],
  ["another kind of cutting: UDP", { ...CUT, segmentation: 3 }, { payload: 9_000 }],
  ["another kind of cutting: IPv6", { ...CUT, segmentation: 4 }, { payload: 9_000 }],
  ["a kind with a congestion mark, which was not offered", { ...CUT, segmentation: 0x81 }, { payload: 9_000 }],
  ["nothing to cut", CUT, { payload: 0 }],
  ["a TCP header that is too short", CUT, { payload: 9_000, tcpWords: 4 }],
  [
    "a TCP header that is longer than the frame",
    CUT,
    { payload: 1, tcpWords: 5, change: (frame) => (frame[46] = 0xf0) },
  ],
  ["an IP header that is too short", { flags: 1 }, { payload: 40, change: (frame) => (frame[14] = 0x44) }],
  ["an IP header that leaves no room for TCP", { flags: 1 }, { payload: 0, change: (frame) => (frame[14] = 0x4f) }],
  ["another version of IP", { flags: 1 }, { payload: 40, change: (frame) => (frame[14] = 0x65) }],
  ["a packet longer than its frame", { flags: 1 }, { payload: 40, change: (frame) => frame.writeUInt16BE(2000, 16) }],
  ["a checksum in a fragment", { flags: 1 }, { payload: 40, change: (frame) => frame.writeUInt16BE(0x2000, 20) }],
  ["a checksum in a later fragment", { flags: 1 }, { payload: 40, change: (frame) => frame.writeUInt16BE(9, 20) }],
  ["a checksum of another protocol", { flags: 1 }, { payload: 40, protocol: 47 }],
  ["a checksum of ARP", { flags: 1 }, { payload: 40, change: (frame) => frame.writeUInt16BE(0x0806, 12) }],
];

for (const [what, wishes, packet] of REFUSED) {
  test(`refused: ${what}`, () => {
    assert.equal(check(wishes, packet).packets, 0);
  });
}

test("whatever bytes come, what leaves fits the packet", () => {
  const below = seededBelow(7);
  const seen = { refused: 0, plain: 0, checksum: 0, cut: 0 };
  for (let round = 0; round < 20_000; round++) {
    const length = NET_HEADER_BYTES + below(120);
    const bytes = Buffer.from(Array.from({ length }, () => below(256)));
    // Mostly what comes far.
    if (length > 26 && below(8) > 0) bytes.writeUInt16BE(0x0800, 24);
    if (below(2) === 0) bytes[0] = 1;
    if (below(2) === 0) bytes[1] = below(3);
    if (below(2) === 0) bytes.writeUInt16LE(80 + below(200), 4);
    if (length > 58 && below(2) === 0) bytes[58] = 0x50;
    if (length > 45 && below(4) > 0) bytes.set([0x40 | (5 + below(3)), 0, 0, length - 26 - below(3)], 26);
    if (length > 45 && below(4) > 0) bytes.set([0, 0, 64, below(4) > 0 ? TCP : UDP], 32);
    const view = new DataView(bytes.buffer, bytes.byteOffset, length);
    const packets = checkFrame(view, 0, length, MTU);
    if (packets === 0) seen.refused++;
    else if (view.getUint8(1) === 1) seen.cut++;
    else if (view.getUint8(0) === 1) seen.checksum++;
    else seen.plain++;
    if (packets === 0) continue;
    const frameBytes = length - NET_HEADER_BYTES;
    const [headers, segment, start, offset] = [2, 4, 6, 8].map((at) => view.getUint16(at, true));
    assert.ok(headers !== undefined && segment !== undefined && start !== undefined && offset !== undefined);
    if (view.getUint8(0) === 1) assert.ok(start >= 34 && start + offset + 2 <= frameBytes);
    else assert.deepEqual([...bytes.subarray(0, NET_HEADER_BYTES)], Array<number>(NET_HEADER_BYTES).fill(0));
    if (view.getUint8(1) === 1) assert.ok(headers > start && headers < frameBytes && segment >= 88);
  }
  assert.ok(
    Object.values(seen).every((count) => count > 20),
    JSON.stringify(seen),
  );
});
