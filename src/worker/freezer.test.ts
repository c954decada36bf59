import assert from "node:assert/strict";
import { test } from "node:test";
import { VirtualClock } from "../lib/virtual-clock.ts";
import {
  FREEZE_AFTER_IDLE_MS,
  FREEZE_AFTER_IDLE_MS_MAX,
  FREEZE_FALL_BYTES,
  FREEZE_GROWTH_BYTES,
  FREEZE_LOOK_MS,
} from "../wire/limits.ts";
import { Freezer } from "./freezer.ts";

/** A freezer on a clock of the test's own, over a guest that takes what `memory` says. */
const frozen = (memory: () => number | Promise<number>) => {
  const clock = new VirtualClock();
  const did: string[] = [];
  const freezer = new Freezer({
    clock,
    vm: {
      pause: () => Promise.resolve(void did.push("pause")),
      resume: () => Promise.resolve(void did.push("resume")),
    },
    memoryBytes: async () => memory(),
    onError: (error) => assert.fail(String(error)),
  });
  return { freezer, did, pass: (ms: number) => clock.advance(ms) };
};

test("a guest that is idle is frozen after a moment, and thawed before it is used", async () => {
  const made = frozen(() => 1);
  made.freezer.idle();
  await made.pass(FREEZE_AFTER_IDLE_MS - 1);
  assert.deepEqual(made.did, []);
  await made.pass(1);
  assert.deepEqual(made.did, ["pause"]);
  assert.equal(made.freezer.frozen, true);
  await made.freezer.wake();
  assert.deepEqual(made.did, ["pause", "resume"]);
  assert.equal(made.freezer.frozen, false);
});

test("one that took much is frozen once its memory has come back", async () => {
  let bytes = 10 * FREEZE_GROWTH_BYTES;
  const made = frozen(() => bytes);
  made.freezer.idle();
  await made.pass(FREEZE_AFTER_IDLE_MS);
  for (let looks = 0; looks < 5; looks += 1) {
    bytes -= FREEZE_FALL_BYTES;
    await made.pass(FREEZE_LOOK_MS);
    assert.deepEqual(made.did, [], `frozen at look ${looks}`);
  }
  await made.pass(FREEZE_LOOK_MS);
  assert.deepEqual(made.did, ["pause"]);
  // As much as when it was frozen: it is not waited for again.
  await made.freezer.wake();
  made.freezer.idle();
  await made.pass(FREEZE_AFTER_IDLE_MS);
  assert.deepEqual(made.did, ["pause", "resume", "pause"]);
});

test("one that never has enough is frozen all the same", async () => {
  let bytes = Number.MAX_SAFE_INTEGER;
  const made = frozen(() => (bytes -= 2 * FREEZE_FALL_BYTES));
  made.freezer.idle();
  await made.pass(FREEZE_AFTER_IDLE_MS);
  for (let ms = FREEZE_AFTER_IDLE_MS; ms < FREEZE_AFTER_IDLE_MS_MAX; ms += FREEZE_LOOK_MS) {
    await made.pass(FREEZE_LOOK_MS);
  }
  assert.deepEqual(made.did, ["pause"]);
});

test("one that is used while it is looked at is not frozen", async () => {
  const measured = [Promise.withResolvers<number>(), Promise.withResolvers<number>()];
  let looks = 0;
  const made = frozen(() => measured[looks++]?.promise ?? 0);
  made.freezer.idle();
  await made.pass(FREEZE_AFTER_IDLE_MS);
  assert.equal(looks, 1);
  await made.freezer.wake();
  // Idle again already when the first look ends: the time counts from here.
  made.freezer.idle();
  measured[0]?.resolve(1);
  await made.pass(FREEZE_AFTER_IDLE_MS - 1);
  assert.deepEqual(made.did, []);
  await made.pass(1);
  measured[1]?.resolve(1);
  await made.pass(0);
  assert.deepEqual(made.did, ["pause"]);
  made.freezer.close();
});
