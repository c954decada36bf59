import assert from "node:assert/strict";
import { test } from "node:test";
import { nominalRoom } from "./pressure.ts";
import type { IdleSlot } from "./pressure.ts";

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
