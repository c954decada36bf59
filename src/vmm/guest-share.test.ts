import assert from "node:assert/strict";
import { test } from "node:test";
import { GuestShare } from "./guest-share.ts";
import {
  GUEST_LONG_TURNS_MAX,
  GUEST_LONG_TURNS_WINDOW_MS,
  GUEST_SHARE_MAX,
  GUEST_SHARE_WINDOW_MS,
  GUEST_TURN_MS_MAX,
  LOOP_OTHERS_MS_MIN,
} from "./limits.ts";

const US_PER_MS = 1_000;

/** A loop in which a guest works in turns of 10 ms, `share` of the time, and others `others` of it. */
const loopOf = (): {
  readonly guest: GuestShare;
  readonly spend: (
    seconds: number,
    parts: { readonly share: number; readonly others: number; readonly stolen?: number },
  ) => string | null;
} => {
  let [nowMs, cpuUs, servedUs] = [5, 0, 0];
  const guest = new GuestShare(() => ({ cpuUs, servedUs }));
  const spend = (seconds: number, parts: { share: number; others: number; stolen?: number }): string | null => {
    for (const untilMs = nowMs + seconds * 1000; nowMs < untilMs; nowMs += 10) {
      const ownUs = parts.share * 10 * US_PER_MS;
      const othersUs = parts.others * 10 * US_PER_MS;
      cpuUs += ownUs * (1 - (parts.stolen ?? 0)) + othersUs;
      servedUs += ownUs + othersUs;
      const why = guest.took(ownUs, nowMs);
      if (why !== null) return why;
    }
    return null;
  };
  return { guest, spend };
};

const seconds = GUEST_SHARE_WINDOW_MS / 1000;
const MORE = GUEST_SHARE_MAX + 0.1;
const LESS = GUEST_SHARE_MAX - 0.1;

test("most of the loop for a whole window, while others wait, is too much, and is told", () => {
  const why = loopOf().spend(3 * seconds, { share: MORE, others: 0.05 });
  assert.equal(why, "85 % of its time for 10 s while others waited; 75 % may be");
});

test("a part below the bound may be for ever, and most of it for less than a window", () => {
  assert.equal(loopOf().spend(10 * seconds, { share: LESS, others: 0.2 }), null);
  const loop = loopOf();
  for (let n = 0; n < 10; n += 1) {
    assert.equal(loop.spend(seconds * 0.4, { share: 0.95, others: 0.05 }), null);
    assert.equal(loop.spend(seconds * 0.6, { share: 0.5, others: 0.05 }), null);
  }
});

test("a guest that nobody waits for may have all of the loop; once others come it may not", () => {
  const loop = loopOf();
  assert.equal(loop.spend(10 * seconds, { share: 0.99, others: 0 }), null);
  const few = (0.5 * LOOP_OTHERS_MS_MIN) / GUEST_SHARE_WINDOW_MS;
  assert.equal(loop.spend(5 * seconds, { share: 0.99, others: few }), null);
  assert.match(loop.spend(2 * seconds, { share: 0.95, others: 0.01 }) ?? "", /while others waited/);
});

test("time in which the loop was kept from its CPU is not the guest's", () => {
  assert.equal(loopOf().spend(5 * seconds, { share: MORE, others: 0.05, stolen: 0.5 }), null);
});

test("a guest that was silent for long is judged by what it took since, not at once", () => {
  const { guest, spend } = loopOf();
  assert.equal(spend(0.01, { share: 0.1, others: 0 }), null);
  assert.equal(guest.took(GUEST_TURN_MS_MAX * US_PER_MS, 1e9), null);
});

test("turns that are too long are counted within their window", () => {
  const long = (GUEST_TURN_MS_MAX + 1) * US_PER_MS;
  const guest = new GuestShare(() => ({ cpuUs: 0, servedUs: 0 }));
  for (let n = 0; n < 10; n += 1) {
    assert.equal(guest.took(long, (n * GUEST_LONG_TURNS_WINDOW_MS) / (GUEST_LONG_TURNS_MAX - 1)), null);
  }
  const atMs = 1e6;
  for (let n = 1; n < GUEST_LONG_TURNS_MAX; n += 1) assert.equal(guest.took(long, atMs + n), null);
  assert.equal(
    guest.took(long, atMs + GUEST_LONG_TURNS_MAX),
    "26 ms in one turn, and more than 25 ms in 3 turns within 10 s",
  );
});
