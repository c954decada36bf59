import assert from "node:assert/strict";
import { test } from "node:test";
import { TurnQueue } from "./turn-queue.ts";
import { VirtualClock } from "./virtual-clock.ts";

const counting = (name: string, steps: number, log: string[]): (() => boolean) => {
  let done = 0;
  return () => {
    log.push(name);
    done += 1;
    return done === steps;
  };
};

test("one piece a turn, the jobs in rotation, and a failure ends its own job only", async () => {
  const clock = new VirtualClock();
  const queue = new TurnQueue(clock);
  const log: string[] = [];
  const long = queue.run(counting("long", 4, log));
  const short = queue.run(counting("short", 1, log));
  const broken = queue.run(() => {
    log.push("broken");
    throw new Error("as told");
  });
  assert.equal(clock.pending, 1, "one turn is asked for, however many jobs there are");
  const outcome = assert.rejects(broken, /as told/);
  let turns = 0;
  while (clock.pending > 0) {
    const before = log.length;
    await clock.runUntil(() => log.length > before);
    turns += 1;
    assert.equal(log.length, before + 1);
  }
  await Promise.all([long, short, outcome]);
  assert.deepEqual(log, ["long", "short", "broken", "long", "long", "long"]);
  assert.equal(turns, 6);
  const later = queue.run(counting("later", 1, log));
  await clock.advance(0);
  await later;
});
