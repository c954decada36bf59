import assert from "node:assert/strict";
import { test } from "node:test";

import { DeviceError } from "./device-error.ts";
import { GuestMemory } from "./guest-memory.ts";
import { MEMORY_BYTES, MEMORY_START, TestGuestMemory } from "./testing.ts";
import { Virtqueue } from "./virtqueue.ts";

const NEXT = 1;
const WRITE = 2;
const DATA = MEMORY_START + 0x1_0000;

const make = (slices = 1): { guest: TestGuestMemory; queue: Virtqueue; driver: TestGuestMemory["queues"][number] } => {
  const guest = new TestGuestMemory(8, slices);
  const driver = guest.queue(0);
  return { guest, driver, queue: new Virtqueue(guest.memory, driver.layout) };
};

const fails = (work: () => unknown, message: RegExp): void => {
  assert.throws(work, (error) => error instanceof DeviceError && message.test(error.message));
};

test("a chain comes out in order and goes back", () => {
  const { guest, queue, driver } = make();
  assert.equal(queue.pop(), null);
  driver.describe(3, { address: DATA, length: 10, flags: NEXT, next: 5 });
  driver.describe(5, { address: DATA + 100, length: 20, flags: NEXT | WRITE, next: 0 });
  driver.describe(0, { address: DATA + 200, length: 30, flags: WRITE, next: 0 });
  driver.offer(3);
  const chain = queue.pop();
  assert.equal(chain?.head, 3);
  assert.deepEqual(
    [chain.readableCount, chain.readableBytes, chain.writableCount, chain.writableBytes],
    [1, 10, 2, 50],
  );
  assert.deepEqual(
    chain.buffers.map(({ region, offset, length }) => [region.start + offset, length]),
    [
      [DATA, 10],
      [DATA + 100, 20],
      [DATA + 200, 30],
    ],
  );
  assert.equal(queue.pop(), null);
  queue.push(3, 17);
  assert.deepEqual(driver.takeUsed(), [{ head: 3, length: 17 }]);
  assert.equal(
    guest.bytes.subarray(0x1_0000).every((byte) => byte === 0),
    true,
  );
});

test("indices wrap around", () => {
  const { queue, driver } = make();
  driver.describe(0, { address: DATA, length: 1, flags: 0, next: 0 });
  for (let i = 0; i < 0x1_0010; i++) {
    driver.offer(0);
    assert.equal(queue.pop()?.head, 0);
    queue.push(0, i & 0xff);
    assert.deepEqual(driver.takeUsed(), [{ head: 0, length: i & 0xff }]);
  }
});

test("a buffer that goes on in the next region is two", () => {
  const { queue, driver } = make(4);
  const edge = MEMORY_START + MEMORY_BYTES / 4;
  driver.describe(0, { address: edge - 8, length: 20, flags: 0, next: 0 });
  driver.offer(0);
  const chain = queue.pop();
  assert.deepEqual([chain?.readableCount, chain?.readableBytes], [2, 20]);
  assert.deepEqual(
    chain?.buffers.map(({ length }) => length),
    [8, 12],
  );
});

test("chains that cannot be end in DeviceError", () => {
  const end = MEMORY_START + MEMORY_BYTES;
  const bad: readonly (readonly [RegExp, Parameters<TestGuestMemory["queues"][number]["describe"]>[1]])[] = [
    [/outside of the guest's memory/, { address: MEMORY_START - 1, length: 2, flags: 0, next: 0 }],
    [/outside of the guest's memory/, { address: end - 1, length: 2, flags: 0, next: 0 }],
    [/outside of the guest's memory/, { address: DATA, length: MEMORY_BYTES, flags: 0, next: 0 }],
    [/at most 1048576 bytes, got 4294967295/, { address: DATA, length: 0xffff_ffff, flags: 0, next: 0 }],
    [/beyond any memory/, { address: 2 ** 60, length: 1, flags: 0, next: 0 }],
    [/loops/, { address: DATA, length: 1, flags: NEXT, next: 0 }],
    [/Descriptor 8 of/, { address: DATA, length: 1, flags: NEXT, next: 8 }],
    [/indirect/, { address: DATA, length: 16, flags: 4, next: 0 }],
  ];
  for (const [message, descriptor] of bad) {
    const { queue, driver } = make();
    driver.describe(0, descriptor);
    driver.offer(0);
    fails(() => queue.pop(), message);
  }
  const { queue, driver } = make();
  driver.describe(0, { address: DATA, length: 1, flags: NEXT | WRITE, next: 1 });
  driver.describe(1, { address: DATA, length: 1, flags: 0, next: 0 });
  driver.offer(0);
  fails(() => queue.pop(), /readable descriptor after a writable/);
});

test("a chain is bounded in bytes, not only in descriptors", () => {
  const { queue, driver } = make();
  for (let i = 0; i < 8; i++)
    driver.describe(i, { address: DATA, length: 200_000, flags: WRITE | (i < 7 ? NEXT : 0), next: i + 1 });
  driver.offer(0);
  fails(() => queue.pop(), /at most 1048576 bytes, got 1200000/);
});

test("an available index that runs ahead, and a head out of range, end in DeviceError", () => {
  const ahead = make();
  ahead.driver.setAvailable(9);
  fails(() => ahead.queue.pop(), /9 buffers available in a queue of 8/);
  const head = make();
  head.driver.offer(300);
  fails(() => head.queue.pop(), /Descriptor 300/);
});

test("a driver that takes back what it offered has offered nothing", () => {
  const { queue, driver } = make();
  driver.describe(0, { address: DATA, length: 1, flags: 0, next: 0 });
  for (let i = 0; i < 3; i++) driver.offer(0);
  assert.notEqual(queue.pop(), null);
  assert.notEqual(queue.pop(), null);
  driver.setAvailable(1);
  assert.equal(queue.available(), 0);
  assert.equal(queue.pop(), null);
  driver.setAvailable(3);
  assert.equal(queue.available(), 1);
});

test("layouts that cannot be are refused", () => {
  const { guest, driver } = make();
  const { layout } = driver;
  const bad: readonly (readonly [RegExp, Partial<typeof layout>])[] = [
    [/power of two/, { entries: 0 }],
    [/power of two/, { entries: 7 }],
    [/power of two/, { entries: 65_536 }],
    [/not aligned/, { descriptors: layout.descriptors + 8 }],
    [/not aligned/, { available: layout.available + 1 }],
    [/not aligned/, { used: layout.used + 2 }],
    [/leaves the guest's memory/, { descriptors: MEMORY_START + MEMORY_BYTES - 16 }],
    [/leaves the guest's memory/, { used: MEMORY_START + MEMORY_BYTES - 8 }],
    [/outside of the guest's memory/, { available: 0 }],
  ];
  for (const [message, change] of bad) fails(() => new Virtqueue(guest.memory, { ...layout, ...change }), message);
});

test("signals are asked for once, and not when the driver does not want them", () => {
  const { queue, driver } = make();
  assert.equal(queue.takeSignal(), false);
  queue.push(0, 0);
  assert.equal(queue.takeSignal(), true);
  assert.equal(queue.takeSignal(), false);
  driver.setFlags(1);
  queue.push(0, 0);
  assert.equal(queue.takeSignal(), false);
});

test("allowing kicks tells of what came meanwhile", () => {
  const { queue, driver } = make();
  queue.suppressKicks();
  assert.equal(driver.flags, 1);
  assert.equal(queue.allowKicks(), false);
  assert.equal(driver.flags, 0);
  driver.offer(0);
  assert.equal(queue.allowKicks(), true);
});

test("memory that overlaps, or is none, is refused", () => {
  const bytes = new Uint8Array(4096);
  fails(() => new GuestMemory([]), /without memory/);
  fails(
    () =>
      new GuestMemory([
        { start: 0, bytes },
        { start: 4095, bytes },
      ]),
    /overlap/,
  );
});
