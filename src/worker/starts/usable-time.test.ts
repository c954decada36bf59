import assert from "node:assert/strict";
import { test } from "node:test";
import { VirtualClock } from "../../lib/virtual-clock.ts";
import type { CpuTimes } from "../../vmm/microvm.ts";
import { STARVED_MS_MAX, USABLE_LOOK_MS } from "./limits.ts";
import { afterUsable, usableMs } from "./usable-time.ts";

test("usable is what ran, and what passed without waiting for a CPU", () => {
  assert.equal(usableMs(100, { ranMs: 0, waitedMs: 0 }), 100, "asleep");
  assert.equal(usableMs(100, { ranMs: 100, waitedMs: 0 }), 100, "alone on its CPU");
  assert.equal(usableMs(100, { ranMs: 10, waitedMs: 90 }), 10, "on a full host");
  assert.equal(usableMs(100, { ranMs: 10, waitedMs: 40 }), 60, "asleep for the half of it");
  assert.equal(usableMs(100, { ranMs: 100, waitedMs: 300 }), 100, "its own processes wait for each other");
  assert.equal(usableMs(100, { ranMs: 150, waitedMs: 0 }), 100, "never more than passed");
});

/** When a limit of 10 s is told, and why, with what the guest runs and waits per ms that passes. */
const told = async (perMs: CpuTimes | null): Promise<{ atMs: number; why: string } | null> => {
  const clock = new VirtualClock();
  let over: { atMs: number; why: string } | null = null;
  afterUsable(clock, {
    read: () => {
      const nowMs = clock.monotonicMs();
      return perMs === null ? null : { ranMs: 1e6 + nowMs * perMs.ranMs, waitedMs: 1e6 + nowMs * perMs.waitedMs };
    },
    usableMsMax: 10_000,
    onOver: (why) => (over = { atMs: clock.monotonicMs(), why }),
  });
  await clock.advance(2 * STARVED_MS_MAX);
  return over;
};

test("a guest that has its CPU, or sleeps, has its limit to the moment", async () => {
  assert.deepEqual(await told({ ranMs: 1, waitedMs: 0 }), { atMs: 10_000, why: "used up" });
  assert.deepEqual(await told({ ranMs: 0, waitedMs: 0 }), { atMs: 10_000, why: "used up" });
  assert.deepEqual(await told(null), { atMs: 10_000, why: "used up" });
});

test("a guest on a full host has its limit later, by what it waited", async () => {
  const over = await told({ ranMs: 0.1, waitedMs: 0.9 });
  assert.equal(over?.why, "used up");
  // The first look is where its waiting begins to be known.
  const lateMs = 10_000 / 0.1;
  assert.ok(over !== null && over.atMs <= lateMs && over.atMs > lateMs - 10 * USABLE_LOOK_MS, `at ${over?.atMs} ms`);
});

test("a guest that never runs has an end all the same, and it is told why", async () => {
  const over = await told({ ranMs: 0.001, waitedMs: 0.999 });
  assert.equal(over?.why, "starved");
  assert.ok(over !== null && over.atMs >= STARVED_MS_MAX && over.atMs <= STARVED_MS_MAX + USABLE_LOOK_MS);
});

test("a timer that is disposed of tells nothing", async () => {
  const clock = new VirtualClock();
  const limit = { read: () => null, usableMsMax: 5_000, onOver: () => assert.fail("it was disposed of") };
  const timer = afterUsable(clock, limit);
  await clock.advance(3_000);
  timer[Symbol.dispose]();
  await clock.advance(10_000);
});
