import assert from "node:assert/strict";
import { test } from "node:test";
import { VirtualClock } from "../../lib/virtual-clock.ts";
import type { CpuTimes } from "../../vmm/microvm.ts";
import { CpuDenial, isDenied } from "./cpu-denied.ts";

test("a guest is denied its CPU when it wanted it and got less than its part", () => {
  assert.equal(isDenied(1_000, { ranMs: 20, waitedMs: 900 }, 0.1), true);
  assert.equal(isDenied(1_000, { ranMs: 100, waitedMs: 900 }, 0.1), false, "it had its part");
  assert.equal(isDenied(1_000, { ranMs: 20, waitedMs: 100 }, 0.1), false, "it slept");
  assert.equal(isDenied(1_000, { ranMs: 1_000, waitedMs: 0 }, 1), false, "it computed all the time");
});

/** Whether an invocation with a limit of 3 s was denied its CPU, that ran and waited so much for each ms. */
const deniedAt = async (endMs: number, perMs: CpuTimes | null): Promise<boolean> => {
  const clock = new VirtualClock();
  const read = (): CpuTimes | null => {
    const nowMs = clock.monotonicMs();
    return perMs === null ? null : { ranMs: 500 + nowMs * perMs.ranMs, waitedMs: nowMs * perMs.waitedMs };
  };
  using denial = new CpuDenial(clock, 3_000, 0.1, read);
  await clock.advance(endMs);
  return denial.isDenied;
};

test("what ran into its limit on a full host is told from what computed or slept for too long", async () => {
  assert.equal(await deniedAt(3_000, { ranMs: 0.02, waitedMs: 0.98 }), true);
  assert.equal(await deniedAt(3_000, { ranMs: 1, waitedMs: 0 }), false);
  assert.equal(await deniedAt(3_000, { ranMs: 0, waitedMs: 0 }), false);
  assert.equal(await deniedAt(3_000, null), false, "nobody knows");
  assert.equal(await deniedAt(1_000, { ranMs: 0.02, waitedMs: 0.98 }), false, "its limit is far away");
});

test("what ends before the half of its limit is never looked at", async () => {
  const clock = new VirtualClock();
  const denial = new CpuDenial(clock, 3_000, 1, () => assert.fail("it was looked at"));
  await clock.advance(1_499);
  denial[Symbol.dispose]();
  await clock.advance(3_000);
});
