import assert from "node:assert/strict";
import { test } from "node:test";

import { TokenBucket } from "./token-bucket.ts";

const clock = { nowMs: 0, monotonicMs: (): number => clock.nowMs };

test("over time no more is taken than comes back, whatever the pieces", () => {
  for (const piece of [1, 7, 250, 1_000]) {
    const bucket = new TokenBucket({ size: 100, perS: 1_000 }, clock);
    let taken = 0;
    for (let ms = 0; ms < 10_000; ms += 1, clock.nowMs += 1) while (bucket.take(piece)) taken += piece;
    assert.ok(taken <= 100 + 10_000 + piece, `${taken} in pieces of ${piece}`);
    assert.ok(taken >= 10_000 - piece, `${taken} in pieces of ${piece}`);
  }
});

test("the burst is given once", () => {
  const bucket = new TokenBucket({ size: 10, perS: 10, burst: 30 }, clock);
  let taken = 0;
  while (bucket.take(1)) taken += 1;
  assert.equal(taken, 40);
  clock.nowMs += 60_000;
  for (taken = 0; bucket.take(1);) taken += 1;
  assert.equal(taken, 10);
});

test("the wait is as long as the debt", () => {
  const bucket = new TokenBucket({ size: 10, perS: 100 }, clock);
  assert.equal(bucket.waitMs(), 0);
  bucket.take(60);
  assert.equal(bucket.take(1), false);
  assert.equal(bucket.waitMs(0), 500);
  assert.equal(bucket.waitMs(10), 600);
  // More than it holds is never there.
  assert.equal(bucket.waitMs(1_000), 600);
  clock.nowMs += 510;
  assert.equal(bucket.take(1), true);
  assert.throws(() => new TokenBucket({ size: 0, perS: 1 }, clock), /must be above 0, got 0 and 1/);
});
