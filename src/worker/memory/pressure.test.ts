import assert from "node:assert/strict";
import { test } from "node:test";
import { POOL_RESERVES_MIN, SLOT_MB_EXPECTED, WORKER_MEMORY_RESERVE_BYTES } from "../../wire/limits.ts";
import { mayFillPool, nominalRoom, relief, reserveBytes } from "./pressure.ts";
import type { IdleSlot, MemoryState } from "./pressure.ts";

const MIB = 1024 * 1024;
const slot = (slotId: string, memoryMb = 128, mib = 10): IdleSlot => ({ slotId, memoryMb, memoryBytes: mib * MIB });
const use = { slotsMax: 10, memoryMbMax: 1_000, slots: 5, memoryMb: 500 };

test("nominal room: nothing ends where there is some, up to the last MB and slot", () => {
  const idle = [slot("a"), slot("b")];
  assert.deepEqual(nominalRoom(use, 500, idle), { fits: true, end: [] });
  assert.deepEqual(nominalRoom({ ...use, slots: 9 }, 128, idle), { fits: true, end: [] });
});

test("nominal room: as few idle slots as will do, longest idle first", () => {
  const idle = [slot("a"), slot("b"), slot("c")];
  assert.deepEqual(nominalRoom(use, 501, idle), { fits: true, end: [idle[0]] });
  assert.deepEqual(nominalRoom(use, 750, idle), { fits: true, end: [idle[0], idle[1]] });
  assert.deepEqual(nominalRoom({ ...use, slots: 10 }, 128, idle), { fits: true, end: [idle[0]] });
});

test("nominal room: none ends in vain", () => {
  assert.deepEqual(nominalRoom(use, 629, [slot("a")]), { fits: false, lacks: "memory" });
  assert.deepEqual(nominalRoom({ ...use, slots: 10 }, 128, []), { fits: false, lacks: "slots" });
  assert.deepEqual(nominalRoom({ ...use, slots: 0, memoryMb: 0 }, 1_001, []), { fits: false, lacks: "memory" });
});

const GIB = 1024 * MIB;
/** A host of 16 GiB with so much more, or less, available than its reserve. */
const host = (overMib: number, isStalled = false): MemoryState => ({
  totalBytes: 16 * GIB,
  availableBytes: WORKER_MEMORY_RESERVE_BYTES + overMib * MIB,
  isStalled,
});

test("memory: a small host keeps less in reserve, one that stalls twice as much", () => {
  assert.equal(reserveBytes({ totalBytes: 16 * GIB, isStalled: false }), WORKER_MEMORY_RESERVE_BYTES);
  assert.equal(reserveBytes({ totalBytes: 1 * GIB, isStalled: false }), 128 * MIB);
  assert.equal(reserveBytes({ totalBytes: 1 * GIB, isStalled: true }), 256 * MIB);
});

test("memory: nothing ends while the reserve is whole", () => {
  const idle = [slot("a"), slot("b")];
  const nothing = { poolBytes: 0, slots: [], missingBytes: 0 };
  assert.deepEqual(relief(host(0), 0, 100 * MIB, idle), nothing);
  assert.deepEqual(relief(host(64), 64 * MIB, 100 * MIB, idle), nothing);
});

test("memory: the pool goes first, then slots longest idle first, by what they take and as few as will do", () => {
  const idle = [slot("a", 128, 30), slot("b", 1_024, 200), slot("c", 128, 30)];
  const ended = (overMib: number, poolMib: number): [number, string[]] => {
    const { poolBytes, slots, missingBytes } = relief(host(overMib), 0, poolMib * MIB, idle);
    assert.equal(missingBytes, 0);
    return [poolBytes / MIB, slots.map(({ slotId }) => slotId)];
  };
  assert.deepEqual(ended(-40, 50), [40, []]);
  assert.deepEqual(ended(-80, 50), [50, ["a"]]);
  assert.deepEqual(ended(-81, 50), [50, ["a", "b"]]);
  assert.deepEqual(ended(-230, 0), [0, ["a", "b"]]);
  assert.deepEqual(ended(-231, 0), [0, ["a", "b", "c"]]);
});

test("memory: what nothing idle can give is missing", () => {
  const { poolBytes, slots, missingBytes } = relief(host(-100), 50 * MIB, 20 * MIB, [slot("a", 128, 30)]);
  assert.deepEqual([poolBytes, slots.length, missingBytes], [20 * MIB, 1, 100 * MIB]);
});

test("memory: a slot that was never measured is reckoned to give what one is expected to take", () => {
  const idle = [slot("a", 1_024, 0), slot("b")];
  assert.deepEqual(relief(host(-SLOT_MB_EXPECTED), 0, 0, idle).slots, [idle[0]]);
  assert.deepEqual(relief(host(-SLOT_MB_EXPECTED - 1), 0, 0, idle).slots, idle);
});

test("memory: a stall asks for more of the same reading", () => {
  const idle = [slot("a", 128, 600)];
  assert.deepEqual(relief(host(100, false), 0, 0, idle).slots, []);
  assert.deepEqual(relief(host(100, true), 0, 0, idle).slots, idle);
});

test("memory: the pool is filled only well over the reserve, so that it does not come and go", () => {
  const overMib = ((POOL_RESERVES_MIN - 1) * WORKER_MEMORY_RESERVE_BYTES) / MIB;
  assert.equal(mayFillPool(host(overMib)), true);
  assert.equal(mayFillPool(host(overMib - 1)), false);
  assert.equal(mayFillPool(host(overMib, true)), false);
});
