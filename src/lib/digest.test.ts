import assert from "node:assert/strict";
import { test } from "node:test";
import { Digest } from "./digest.ts";
import { VirtualClock } from "./virtual-clock.ts";

test("a flood of one kind is told at once and then once a period, by its number", async () => {
  const clock = new VirtualClock();
  const told: (readonly [number, string, number, string])[] = [];
  using digest = new Digest(clock, 1_000, (...what) => told.push([clock.monotonicMs(), ...what]));
  for (let n = 0; n < 1_000; n += 1) digest.note("refused", `${n}`);
  digest.note("evicted", "other");
  await clock.advance(1_500);
  digest.note("refused", "late");
  await clock.advance(10_000);
  digest.note("refused", "again");
  assert.deepEqual(told, [
    [0, "refused", 1, "0"],
    [0, "evicted", 1, "other"],
    [1_000, "refused", 999, "999"],
    [2_000, "refused", 1, "late"],
    [11_500, "refused", 1, "again"],
  ]);
});
