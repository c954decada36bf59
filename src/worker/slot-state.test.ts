import assert from "node:assert/strict";
import { test } from "node:test";
import { VirtualClock } from "../lib/virtual-clock.ts";
import type { SlotState } from "../wire/slot.ts";
import { SlotStateMachine, SlotTransitionError } from "./slot-state.ts";

const machine = (): { slot: SlotStateMachine; seen: SlotState[]; tick: (ms: number) => void } => {
  const clock = new VirtualClock();
  const seen: SlotState[] = [];
  const slot = new SlotStateMachine(clock, (state) => seen.push(state));
  return { slot, seen, tick: (ms) => clock.pass(ms) };
};

test("a slot goes Init → Idle ⇄ Busy → Dead and tells of every step", () => {
  const { slot, seen, tick } = machine();
  assert.equal(slot.state, "Init");
  for (const next of ["Idle", "Busy", "Idle", "Busy", "Dead"] as const) {
    tick(5);
    assert.equal(slot.to(next), true);
  }
  assert.deepEqual(seen, ["Idle", "Busy", "Idle", "Busy", "Dead"]);
  assert.equal(slot.sinceMs, 25);
});

test("a step that the table lacks is refused and changes nothing", () => {
  const { slot, seen } = machine();
  assert.throws(() => slot.to("Busy"), SlotTransitionError);
  slot.to("Idle");
  assert.throws(() => slot.to("Init"), SlotTransitionError);
  assert.throws(() => slot.to("Idle"), SlotTransitionError);
  assert.deepEqual(seen, ["Idle"]);
});

test("Dead is never left, and dying twice is no error", () => {
  const { slot, seen } = machine();
  slot.to("Dead");
  assert.equal(slot.to("Dead"), false);
  assert.throws(() => slot.to("Idle"), SlotTransitionError);
  assert.deepEqual(seen, ["Dead"]);
});
