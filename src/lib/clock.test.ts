import assert from "node:assert/strict";
import { test } from "node:test";
import { createSystemClock } from "./clock.ts";
import { seededIds } from "./ids.ts";
import { seededRandom } from "./random.ts";
import { VirtualClock } from "./virtual-clock.ts";

const orderOf = async (seed: number): Promise<string> => {
  const clock = new VirtualClock({ random: seededRandom(seed) });
  const calls: string[] = [];
  for (const name of "abcdefgh") clock.after(1, () => calls.push(name));
  await clock.advance(1);
  return calls.join("");
};

const ids = (seed: number): string[] => {
  const from = seededIds(seededRandom(seed));
  return [from.uuid(), from.uuid()];
};

test("a virtual clock makes calls in their order and goes straight from one to the next", async () => {
  const clock = new VirtualClock({ wallMs: 1_000 });
  const calls: [string, number, number][] = [];
  const note = (name: string) => (): void => void calls.push([name, clock.monotonicMs(), clock.wallMs()]);
  clock.after(3_600_000, note("late"));
  clock.after(5, note("early"));
  const ended = clock.after(5, note("disposed of"));
  ended[Symbol.dispose]();
  clock.stepWall(-500);
  await clock.advance(3_600_000);
  assert.deepEqual(calls, [
    ["early", 5, 505],
    ["late", 3_600_000, 3_600_500],
  ]);
});

test("what happens at one moment comes in an order that the seed draws", async () => {
  assert.equal(await orderOf(1), await orderOf(1));
  assert.notEqual(await orderOf(1), await orderOf(2));
});

test("sleeps end when they are aborted, and repeated calls when they are disposed of", async () => {
  const clock = new VirtualClock();
  const abort = new AbortController();
  let woken = false;
  void clock.sleep(60_000, abort.signal).then(() => (woken = true));
  let calls = 0;
  const every = clock.every(10, () => {
    calls += 1;
    if (calls === 3) every[Symbol.dispose]();
  });
  await clock.advance(1_000);
  assert.equal(calls, 3);
  assert.equal(woken, false);
  abort.abort();
  await clock.advance(0);
  assert.equal(woken, true);
  assert.equal(clock.pending, 0);
});

test("what a callback throws is told, by the virtual clock and by the host's", async () => {
  const clock = new VirtualClock();
  clock.after(1, () => Promise.reject(new Error("in virtual time")));
  await assert.rejects(clock.advance(1), /in virtual time/);

  const told = Promise.withResolvers<unknown>();
  const system = createSystemClock(told.resolve);
  system.after(0, () => {
    throw new Error("in real time");
  });
  // Keeps the process alive, which the timer alone does not.
  await Promise.race([told.promise, system.sleep(60_000, AbortSignal.timeout(59_000))]);
  assert.match(String(await told.promise), /in real time/);
});

test("seeded identifiers look like UUIDs and come again", () => {
  assert.deepEqual(ids(7), ids(7));
  const [first, second] = ids(7);
  assert.notEqual(first, second);
  assert.match(first ?? "", /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
});
