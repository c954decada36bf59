import assert from "node:assert/strict";
import { test } from "node:test";
import { keepFreeBytes, makeScratchRoom, mayResume, scratchRelief, scratchRoom } from "./scratch-budget.ts";
import type { ScratchReading, ScratchSlot } from "./scratch-budget.ts";

const MIB = 1024 * 1024;
const GIB = 1024 * MIB;
const reading = (availableBytes: number, usedBytes = 0): ScratchReading => ({
  totalBytes: 20 * GIB,
  availableBytes,
  usedBytes,
});
const slot = (slotId: string, mib: number, isIdle: boolean): ScratchSlot => ({
  slotId,
  ephemeralMb: 512,
  scratchBytes: mib * MIB,
  isIdle,
});
const names = (slots: readonly ScratchSlot[]): string[] => slots.map(({ slotId }) => slotId);

const fits = (free: ScratchReading, slots: readonly ScratchSlot[], mb: number): string => {
  const room = makeScratchRoom(free, null, slots, mb);
  return room.fits ? `fits ${names(room.end).join(" ")}`.trim() : room.lacks;
};

test("a tenth of the disk is kept free, not too little and not too much", () => {
  assert.deepEqual([100 * MIB, GIB, 1_000 * GIB].map(keepFreeBytes), [16 * MIB, GIB / 10, 4 * GIB]);
  assert.equal(scratchRoom(reading(5 * GIB), null), 3 * GIB);
  assert.equal(scratchRoom(reading(5 * GIB, GIB), 2 * GIB), GIB);
  assert.equal(scratchRoom(reading(GIB), 100 * GIB), -GIB);
});

test("a start needs room for its own /tmp, so much is promised and no more, and idle slots give way", () => {
  assert.equal(fits(reading(5 * GIB), [], 3 * 1_024), "fits");
  assert.equal(fits(reading(5 * GIB), [], 3 * 1_024 + 1), "room");
  const held = [slot("a", 100, true), slot("b", 300, true), slot("c", 600, false)];
  assert.equal(fits(reading(2.4 * GIB, 1_000 * MIB), held, 512), "fits b");
  assert.equal(fits(reading(2.15 * GIB, 1_000 * MIB), held, 512), "fits b a");
  assert.equal(fits(reading(2.1 * GIB, 1_000 * MIB), held, 512), "room");
  assert.equal(makeScratchRoom(reading(9 * GIB, 1_000 * MIB), 1_100 * MIB, held, 512).fits, false);
  assert.equal(makeScratchRoom(reading(9 * GIB, 1_000 * MIB), 1_200 * MIB, held, 512).fits, true);
  const many = Array.from({ length: 120 }, (_, n) => slot(`s${n}`, 0, n < 2));
  assert.equal(fits(reading(5 * GIB), many.slice(0, 119), 512), "fits");
  assert.equal(fits(reading(5 * GIB), many, 512), "fits s0");
  assert.equal(fits(reading(5 * GIB), many, 1_536), "promise");
});

test("idle slots give way first, the largest first; then those stop that took more than their part; then all", () => {
  const slots = [slot("a", 100, true), slot("b", 700, true), slot("c", 50, false), slot("d", 900, false)];
  assert.deepEqual(scratchRelief(reading(3 * GIB, 1_750 * MIB), null, slots), { end: [], stop: [] });
  const some = scratchRelief(reading(2 * GIB - 200 * MIB, 1_750 * MIB), null, slots);
  assert.deepEqual([names(some.end), names(some.stop)], [["b"], ["d"]]);
  const more = scratchRelief(reading(2 * GIB - 750 * MIB, 1_750 * MIB), null, slots);
  assert.deepEqual([names(more.end), names(more.stop)], [["b", "a"], ["d"]]);
  const all = scratchRelief(reading(GIB - 1, 1_750 * MIB), null, slots);
  assert.deepEqual(names(all.stop), ["c", "d"]);
});

test("who was stopped goes on only when there is room to speak of", () => {
  assert.equal(mayResume(reading(2 * GIB + 1), null), false);
  assert.equal(mayResume(reading(2.6 * GIB), null), true);
  assert.equal(mayResume(reading(10 * GIB, 90 * MIB), 100 * MIB), false);
  assert.equal(mayResume(reading(10 * GIB, 70 * MIB), 100 * MIB), true);
});
