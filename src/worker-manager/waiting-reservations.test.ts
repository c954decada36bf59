import assert from "node:assert/strict";
import { test } from "node:test";
import { WaitingReservations } from "./waiting-reservations.ts";

const line = (): WaitingReservations<string, string> => {
  const waiting = new WaitingReservations<string, string>();
  waiting.add("f", "r1", "s1");
  waiting.add("f", "r2", "s2");
  waiting.add("f", "r3", "s3");
  return waiting;
};

test("a free slot goes to who waited longest, and the start asked for last is taken back", () => {
  const waiting = line();
  assert.deepEqual(waiting.slotFree("f"), { reservation: "r1", surplus: "s3" });
  assert.deepEqual(waiting.startBegan("f", "s1"), { reservation: "r2", surplus: null });
  assert.deepEqual(waiting.startBegan("f", "s2"), { reservation: "r3", surplus: null });
  assert.equal(waiting.size, 0);
  assert.equal(waiting.slotFree("f"), null);
});

test("a start that was taken back too late serves who waits, and one is taken back for it", () => {
  const waiting = line();
  waiting.slotFree("f");
  assert.deepEqual(waiting.startBegan("f", "s3"), { reservation: "r2", surplus: "s2" });
  assert.deepEqual(waiting.startBegan("f", "s2"), { reservation: "r3", surplus: "s1" });
  assert.equal(waiting.startBegan("f", "s1"), null);
});

test("a start that fails fails one reservation; one that was taken back fails none", () => {
  const waiting = line();
  assert.equal(waiting.startFailed("f", "s2"), "r1");
  assert.deepEqual(waiting.slotFree("f"), { reservation: "r2", surplus: "s3" });
  assert.equal(waiting.startFailed("f", "s3"), null);
  assert.equal(waiting.size, 1);
});

test("a reservation that gives up takes a start with it, once", () => {
  const waiting = line();
  assert.equal(waiting.giveUp("f", "r2"), "s3");
  assert.equal(waiting.giveUp("f", "r2"), null);
  assert.deepEqual(waiting.startBegan("f", "s1"), { reservation: "r1", surplus: null });
  assert.deepEqual(waiting.startBegan("f", "s2"), { reservation: "r3", surplus: null });
});

test("functions do not take each other's slots", () => {
  const waiting = line();
  waiting.add("g", "r4", "s4");
  assert.deepEqual(waiting.slotFree("g"), { reservation: "r4", surplus: "s4" });
  assert.equal(waiting.slotFree("g"), null);
  assert.equal(waiting.size, 3);
});
