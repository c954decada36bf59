import assert from "node:assert/strict";
import { test } from "node:test";

import { NET_PACKETS_PER_TURN_MAX } from "../limits.ts";
import { DeviceError } from "./device-error.ts";
import { FrameBatch } from "./frames.ts";
import { frameOf, PLAIN, TestNetDriver, TestPort } from "./net-testing.ts";
import { FEATURE_MTU, MTU_DEFAULT, NetDevice } from "./net.ts";
import { MEMORY_START, putOff, testHost } from "./testing.ts";

const RECEIVE = 0;
const TRANSMIT = 1;
const NEXT = 1;
const WRITE = 2;
const FRAME_BYTES_MAX = 1514;

interface Setup {
  readonly guest: TestNetDriver;
  readonly device: NetDevice;
  readonly port: TestPort;
  readonly errors: DeviceError[];
  /** What the device put off to a later turn. */
  readonly later: (() => void)[];
}

/** A device with its driver ready and its port bound. */
const setUp = (entries?: number): Setup => {
  const guest = new TestNetDriver(entries);
  const errors: DeviceError[] = [];
  const later: (() => void)[] = [];
  const host = testHost((error) => errors.push(error), putOff(later));
  const device = new NetDevice(new FrameBatch(), MTU_DEFAULT, host);
  const port = new TestPort();
  device.activate(guest.driver());
  device.bind(port);
  return { guest, device, port, errors, later };
};

test("frames leave as the guest wrote them, in one piece or in two, without their header", () => {
  const { guest, device, port } = setUp();
  const frames = [frameOf(60, 1), frameOf(FRAME_BYTES_MAX, 7), frameOf(14, 3)];
  guest.send(frames[0] ?? frameOf(0));
  guest.send(frames[1] ?? frameOf(0), 14);
  guest.send(frames[2] ?? frameOf(0));
  device.kick(TRANSMIT);
  assert.deepEqual(port.sent, frames);
  assert.deepEqual(
    guest
      .queue(TRANSMIT)
      .takeUsed()
      .map(({ length }) => length),
    [0, 0, 0],
  );
  assert.deepEqual(guest.signals, [TRANSMIT]);
});

test("a header of its own, or a piece of nothing, is no trouble", () => {
  const { guest, device, port } = setUp();
  const queue = guest.queue(TRANSMIT);
  const frame = frameOf(100, 9);
  guest.bytes.set(frame, 0x2_0000);
  queue.describe(0, { address: MEMORY_START + 0x3_0000, length: 5, flags: NEXT, next: 1 });
  queue.describe(1, { address: MEMORY_START + 0x3_0100, length: 7, flags: NEXT, next: 2 });
  queue.describe(2, { address: MEMORY_START + 0x3_0200, length: 0, flags: NEXT, next: 3 });
  queue.describe(3, { address: MEMORY_START + 0x2_0000, length: frame.length, flags: 0, next: 0 });
  queue.offer(0);
  device.kick(TRANSMIT);
  assert.deepEqual(port.sent, [frame]);
});

test("frames arrive with an empty header that says one buffer", () => {
  for (const split of [0, 14]) {
    const { guest, port } = setUp();
    guest.fillReceive(2, split);
    const frames = [frameOf(60, 1), frameOf(FRAME_BYTES_MAX, 7)];
    port.arrive(...frames);
    const received = guest.receive();
    assert.deepEqual(
      received.map(({ frame }) => frame),
      frames,
    );
    for (const { header } of received) assert.deepEqual([...header], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0]);
    assert.deepEqual(guest.signals, [RECEIVE]);
  }
});

test("nothing but IPv4 and ARP leaves, and no frame that is too short or too long", () => {
  const { guest, device, port } = setUp();
  const arp = frameOf(42, 0, 0x0806);
  const refused = [
    frameOf(60, 0, 0x86dd),
    frameOf(60, 0, 0x8100),
    frameOf(60, 0, 0x88cc),
    frameOf(13),
    frameOf(0),
    frameOf(FRAME_BYTES_MAX + 1),
  ];
  for (const frame of [...refused, arp]) guest.send(frame);
  device.kick(TRANSMIT);
  assert.deepEqual(port.sent, [arp]);
  assert.equal(guest.queue(TRANSMIT).takeUsed().length, refused.length + 1);
});

test("without a port the guest's frames stay where they are until there is one", () => {
  const guest = new TestNetDriver();
  using device = new NetDevice(new FrameBatch(), MTU_DEFAULT, testHost(assert.fail));
  device.activate(guest.driver());
  guest.send(frameOf(60));
  device.kick(TRANSMIT);
  device.kick(RECEIVE);
  assert.deepEqual(guest.queue(TRANSMIT).takeUsed(), []);
  const port = new TestPort();
  port.arrive(frameOf(70));
  guest.fillReceive(1);
  device.bind(port);
  assert.equal(port.sent.length, 1);
  assert.equal(guest.receive().length, 1);
  assert.throws(() => device.bind(port), /has a port already/);
});

test("a port may come before the driver", () => {
  const guest = new TestNetDriver();
  using device = new NetDevice(new FrameBatch(), MTU_DEFAULT, testHost(assert.fail));
  const port = new TestPort();
  device.bind(port);
  port.arrive(frameOf(60));
  guest.fillReceive(1);
  guest.send(frameOf(60));
  device.activate(guest.driver());
  assert.equal(port.sent.length, 1);
  assert.equal(guest.receive().length, 1);
});

test("a flood is taken in turns, and everything comes in the end", () => {
  const { guest, device, port, later } = setUp(256);
  const total = 2 * NET_PACKETS_PER_TURN_MAX - 10;
  for (let i = 0; i < total; i++) guest.send(frameOf(60, i));
  device.kick(TRANSMIT);
  assert.equal(port.sent.length, NET_PACKETS_PER_TURN_MAX);
  // Kicks meanwhile do not give it more than its turn.
  device.kick(TRANSMIT);
  assert.equal(port.sent.length, NET_PACKETS_PER_TURN_MAX);
  assert.equal(later.length, 1);
  later.shift()?.();
  assert.equal(port.sent.length, total);
  assert.equal(later.length, 0);
  assert.deepEqual(port.sent[total - 1], frameOf(60, total - 1));

  guest.fillReceive(128);
  port.arrive(...Array.from({ length: total }, (_, i) => frameOf(60, i)));
  assert.equal(guest.receive().length, NET_PACKETS_PER_TURN_MAX);
  device.kick(RECEIVE);
  port.arrive(frameOf(80));
  assert.equal(guest.receive().length, 0);
  later.shift()?.();
  assert.equal(guest.receive().length, total + 1 - NET_PACKETS_PER_TURN_MAX);
  assert.equal(later.length, 0);
});

test("an endless stream of new frames never takes more than a turn", () => {
  const { guest, device, port, later } = setUp();
  // A guest that makes its last chain available anew as fast as it is taken.
  guest.send(frameOf(60));
  const take = port.write.bind(port);
  port.write = (batch, count) => {
    take(batch, count);
    for (let i = 0; i < 8; i++) guest.send(frameOf(60));
  };
  for (let i = 0; i < 7; i++) guest.send(frameOf(60));
  device.kick(TRANSMIT);
  assert.ok(port.sent.length <= NET_PACKETS_PER_TURN_MAX);
  assert.ok(later.length <= 1);
});

test("frames wait outside until the guest has buffers, which it is asked to tell of", () => {
  const { guest, device, port } = setUp();
  port.arrive(frameOf(60, 1), frameOf(60, 2), frameOf(60, 3));
  assert.equal(port.waiting.length, 3);
  assert.equal(guest.queue(RECEIVE).flags, 0);
  guest.fillReceive(2);
  device.kick(RECEIVE);
  assert.equal(guest.receive().length, 2);
  assert.equal(port.waiting.length, 1);
  guest.fillReceive(2);
  device.kick(RECEIVE);
  assert.deepEqual(
    guest.receive().map(({ frame }) => frame),
    [frameOf(60, 3)],
  );
  // As long as there are buffers, a kick for more is of no use.
  assert.equal(guest.queue(RECEIVE).flags, 1);
});

/** 8,000 bytes over TCP, to be cut at 1,000. */
const longTcp = (): { frame: Buffer; header: Buffer } => {
  const frame = Buffer.concat([frameOf(54), Buffer.alloc(8000, 5)]);
  frame[14] = 0x45;
  frame.writeUInt16BE(frame.length - 14, 16);
  frame.writeUInt16BE(0, 20);
  frame[23] = 6;
  frame[46] = 0x50;
  const header = Buffer.from([1, 1, 99, 99, 0, 0, 99, 99, 99, 99, 99, 99]);
  header.writeUInt16LE(1000, 4);
  return { frame, header };
};

test("TCP that is still to be cut leaves in one piece, and counts as what it becomes", () => {
  const { guest, device, port, later } = setUp(16);
  const { frame, header } = longTcp();
  // In the driver's memory a frame lies over its neighbours' places, so all chains are the same one.
  guest.send(frame, 0, header);
  for (let i = 0; i < 11; i++) guest.queue(TRANSMIT).offer(0);
  device.kick(TRANSMIT);
  assert.equal(port.sent.length, NET_PACKETS_PER_TURN_MAX / 8);
  assert.deepEqual(port.sent[0], frame);
  assert.deepEqual([...(port.headers[0] ?? [])], [1, 1, 54, 0, 1000 & 0xff, 1000 >> 8, 34, 0, 16, 0, 0, 0]);
  later.shift()?.();
  assert.equal(port.sent.length, 12);
});

test("what the port says of a frame reaches the guest", () => {
  const { guest, port } = setUp();
  guest.fillReceive(1);
  port.waiting.push(Buffer.concat([Buffer.from([1, 0, 0, 0, 0, 0, 34, 0, 16, 0, 0, 0]), frameOf(60)]));
  port.arrive();
  assert.deepEqual([...(guest.receive()[0]?.header ?? [])], [1, 0, 0, 0, 0, 0, 34, 0, 16, 0, 1, 0]);
});

test("a driver that cannot do without checksums is refused", () => {
  const guest = new TestNetDriver();
  using device = new NetDevice(new FrameBatch(), MTU_DEFAULT, testHost(assert.fail));
  const driver = { ...guest.driver(), features: 1n << 32n };
  assert.throws(() => device.activate(driver), DeviceError);
});

test("a driver that wants no interrupts gets none", () => {
  const { guest, device, port } = setUp();
  guest.queue(TRANSMIT).setFlags(1);
  guest.queue(RECEIVE).setFlags(1);
  guest.fillReceive(1);
  guest.send(frameOf(60));
  device.kick(TRANSMIT);
  port.arrive(frameOf(60));
  assert.deepEqual(guest.signals, []);
});

test("the MTU stands in the configuration, and is offered where it is not the usual one", () => {
  const usual = new NetDevice(new FrameBatch(), MTU_DEFAULT, testHost(assert.fail));
  assert.equal(usual.features & FEATURE_MTU, 0n);
  const small = new NetDevice(new FrameBatch(), 1400, testHost(assert.fail));
  assert.equal(small.features & FEATURE_MTU, FEATURE_MTU);
  assert.deepEqual([...small.config], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x78, 0x05]);
  assert.throws(() => new NetDevice(new FrameBatch(), 9000, testHost(assert.fail)), /MTU of 9000/);
  const { guest, port, device } = setUp();
  device[Symbol.dispose]();
  small.activate(guest.driver());
  small.bind(port);
  guest.send(frameOf(1415));
  guest.send(frameOf(1414));
  small.kick(TRANSMIT);
  assert.deepEqual(
    port.sent.map(({ length }) => length),
    [1414],
  );
});

test("a disposed device lets go of its port", () => {
  const { guest, device, port } = setUp();
  assert.equal(port.watchers, 1);
  device[Symbol.dispose]();
  assert.equal(port.watchers, 0);
  guest.fillReceive(1);
  port.arrive(frameOf(60));
  device.kick(RECEIVE);
  assert.deepEqual(guest.receive(), []);
});

interface Attack {
  readonly what: string;
  readonly queue: number;
  readonly reason: RegExp;
  readonly play: (setup: Setup) => void;
}

const ATTACKS: readonly Attack[] = [
  {
    what: "a frame without room for its header",
    queue: TRANSMIT,
    reason: /no header/,
    play: ({ guest }) => {
      guest.queue(TRANSMIT).describe(0, { address: MEMORY_START + 0x2_0000, length: 11, flags: 0, next: 0 });
      guest.queue(TRANSMIT).offer(0);
    },
  },
  {
    what: "an empty chain to send",
    queue: TRANSMIT,
    reason: /no header/,
    play: ({ guest }) => {
      guest.queue(TRANSMIT).describe(0, { address: MEMORY_START, length: 0, flags: 0, next: 0 });
      guest.queue(TRANSMIT).offer(0);
    },
  },
  {
    what: "a frame to send with a buffer to be written",
    queue: TRANSMIT,
    reason: /something to be written/,
    play: ({ guest }) => {
      const queue = guest.queue(TRANSMIT);
      queue.describe(0, { address: MEMORY_START + 0x2_0000, length: 72, flags: NEXT, next: 1 });
      queue.describe(1, { address: MEMORY_START + 0x3_0000, length: 72, flags: WRITE, next: 0 });
      queue.offer(0);
    },
  },
  {
    what: "a frame longer than memory",
    queue: TRANSMIT,
    reason: /must be at most 1048576 bytes, got 4294967295/,
    play: ({ guest }) => {
      guest.queue(TRANSMIT).describe(0, { address: MEMORY_START, length: 0xffff_ffff, flags: 0, next: 0 });
      guest.queue(TRANSMIT).offer(0);
    },
  },
  {
    what: "a frame from outside of memory",
    queue: TRANSMIT,
    reason: /outside of the guest's memory/,
    play: ({ guest }) => {
      guest.queue(TRANSMIT).describe(0, { address: 0, length: 100, flags: 0, next: 0 });
      guest.queue(TRANSMIT).offer(0);
    },
  },
  {
    what: "a chain that loops",
    queue: TRANSMIT,
    reason: /loops/,
    play: ({ guest }) => {
      guest.queue(TRANSMIT).describe(0, { address: MEMORY_START + 0x2_0000, length: 100, flags: NEXT, next: 0 });
      guest.queue(TRANSMIT).offer(0);
    },
  },
  {
    what: "more available than the queue holds",
    queue: RECEIVE,
    reason: /buffers available/,
    play: ({ guest, port }) => {
      port.waiting.push(Buffer.concat([PLAIN, frameOf(60)]));
      guest.queue(RECEIVE).setAvailable(999);
    },
  },
  {
    what: "a receive buffer that is to be read",
    queue: RECEIVE,
    reason: /no room for a header/,
    play: ({ guest, port }) => {
      port.waiting.push(Buffer.concat([PLAIN, frameOf(60)]));
      guest.queue(RECEIVE).describe(0, { address: MEMORY_START + 0x2_0000, length: 2048, flags: 0, next: 0 });
      guest.queue(RECEIVE).offer(0);
    },
  },
  {
    what: "a receive buffer too small for a header",
    queue: RECEIVE,
    reason: /no room for a header/,
    play: ({ guest, port }) => {
      port.waiting.push(Buffer.concat([PLAIN, frameOf(60)]));
      guest.queue(RECEIVE).describe(0, { address: MEMORY_START + 0x2_0000, length: 11, flags: WRITE, next: 0 });
      guest.queue(RECEIVE).offer(0);
    },
  },
  {
    what: "a receive buffer too small for the frame",
    queue: RECEIVE,
    reason: /too small for a frame/,
    play: ({ guest, port }) => {
      port.waiting.push(Buffer.concat([PLAIN, frameOf(1000)]));
      guest.queue(RECEIVE).describe(0, { address: MEMORY_START + 0x2_0000, length: 1011, flags: WRITE, next: 0 });
      guest.queue(RECEIVE).offer(0);
    },
  },
];

for (const { what, queue, reason, play } of ATTACKS) {
  test(`refused: ${what}`, () => {
    const setup = setUp();
    setup.port.arrive();
    play(setup);
    assert.throws(
      () => {
        if (queue === RECEIVE) setup.port.arrive();
        const [error] = setup.errors;
        if (error !== undefined) throw error;
        setup.device.kick(queue);
      },
      (error) => error instanceof DeviceError && reason.test(error.message),
    );
    assert.ok(setup.guest.guardsIntact());
    assert.deepEqual(setup.port.sent, []);
  });
}

test("a card carries no more than its rate each way, and loses nothing of what waits in the guest", () => {
  const guest = new TestNetDriver(64);
  const time = { nowMs: 0 };
  const waiting: { readonly atMs: number; readonly run: () => void }[] = [];
  const plain = testHost(assert.fail, putOff([]));
  const clock = {
    ...plain.clock,
    monotonicMs: () => time.nowMs,
    after: (delayMs: number, run: () => unknown) => {
      waiting.push({ atMs: time.nowMs + delayMs, run: () => void run() });
      return { [Symbol.dispose]: () => {} };
    },
  };
  const rate = { bytes: { size: 10_000, perS: 100_000 }, frames: { size: 1_000, perS: 10_000 } };
  using device = new NetDevice(new FrameBatch(), MTU_DEFAULT, { ...plain, clock }, rate);
  const port = new TestPort();
  device.activate(guest.driver());
  device.bind(port);
  const frames = Array.from({ length: 30 }, (_, n) => frameOf(990, n));
  for (const frame of frames) guest.send(frame);
  device.kick(TRANSMIT);
  // 10,000 bytes at once, with a header of 12 each; then 100 of them a ms.
  assert.equal(port.sent.length, 10);
  for (const ms of [5, 10, 50, 300]) {
    time.nowMs += ms;
    for (const each of waiting
      .splice(0)
      .filter(({ atMs }) => atMs <= time.nowMs || !waiting.push({ atMs, run: () => {} })))
      each.run();
    device.kick(TRANSMIT);
    assert.ok(port.sent.length <= 11 + time.nowMs / 10, `${port.sent.length} after ${time.nowMs} ms`);
  }
  for (; port.sent.length < frames.length && time.nowMs < 2_000; time.nowMs += 10) {
    for (const each of waiting.splice(0)) each.run();
  }
  assert.deepEqual(port.sent, frames);
});
