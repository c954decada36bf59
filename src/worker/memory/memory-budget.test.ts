import assert from "node:assert/strict";
import { test } from "node:test";
import { VirtualClock } from "../../lib/virtual-clock.ts";
import { MEMORY_STALLED_MS } from "../../wire/limits.ts";
import { MemoryBudget } from "./memory-budget.ts";

test("what is on its way back counts once: until a reading that began after it was back", async () => {
  const readings = [100, 100, 100, 140];
  const gates = [Promise.resolve(), Promise.resolve(), Promise.withResolvers<void>(), Promise.resolve()];
  let at = -1;
  const budget = new MemoryBudget(async () => {
    at += 1;
    const availableBytes = readings[at] ?? 0;
    const gate = gates[at];
    await (gate !== undefined && "promise" in gate ? gate.promise : gate);
    return { totalBytes: 1_000, availableBytes };
  }, new VirtualClock());
  const available = (): number | undefined => budget.state?.availableBytes;
  assert.equal(budget.state, null);
  await budget.refresh();
  const ending = Promise.withResolvers<void>();
  budget.comesBack(40, ending.promise);
  assert.equal(available(), 140);
  await budget.refresh();
  assert.equal(available(), 140);
  // It is back while a reading is under way that may have missed it.
  const reading = budget.refresh();
  ending.resolve();
  await ending.promise;
  (gates[2] as PromiseWithResolvers<void>).resolve();
  await reading;
  assert.equal(available(), 140);
  await budget.refresh();
  assert.equal(available(), 140);
});

test("an end that fails gives nothing back for ever", async () => {
  const budget = new MemoryBudget(
    () => Promise.resolve({ totalBytes: 1_000, availableBytes: 100 }),
    new VirtualClock(),
  );
  const ending = Promise.reject(new Error("as told"));
  budget.comesBack(40, ending);
  await ending.catch(() => {});
  await budget.refresh();
  assert.equal(budget.state?.availableBytes, 100);
});

test("a stall lasts a while", async () => {
  const clock = new VirtualClock();
  const budget = new MemoryBudget(() => Promise.resolve({ totalBytes: 1, availableBytes: 1 }), clock);
  await budget.refresh();
  assert.equal(budget.state?.isStalled, false);
  budget.stalled();
  assert.equal(budget.state.isStalled, true);
  clock.pass(MEMORY_STALLED_MS);
  assert.equal(budget.state.isStalled, false);
});
