import assert from "node:assert/strict";
import { setImmediate as turn } from "node:timers/promises";
import { test } from "node:test";
import { VirtualClock } from "../../lib/virtual-clock.ts";
import type { CpuTimes } from "../../vmm/microvm.ts";
import { START_LOOK_MS, START_TURN_CPU_MS_MAX, START_TURN_MS_MAX } from "./limits.ts";
import { Starts } from "./starts.ts";
import type { StartTurn } from "./starts.ts";

/** Starts with one turn for a group and one kept for others; `begun` grows as turns come. */
const made = () => {
  const clock = new VirtualClock();
  const starts = new Starts(clock, 2);
  const begun: string[] = [];
  const turns = new Map<string, StartTurn>();
  const ask = (id: string): Promise<void> =>
    starts.turn(id, "f").then((given) => {
      begun.push(id);
      turns.set(id, given);
    });
  return { clock, starts, begun, turns, ask };
};

test("the next start begins when the one before is over, and ending it twice changes nothing", async () => {
  const { starts, begun, turns, ask } = made();
  void ask("a");
  void ask("b");
  void ask("c");
  await turn();
  assert.deepEqual(begun, ["a"]);
  assert.deepEqual([starts.waiting, starts.underWay], [2, 1]);
  turns.get("a")?.[Symbol.dispose]();
  turns.get("a")?.[Symbol.dispose]();
  await turn();
  assert.deepEqual(begun, ["a", "b"]);
});

test("a start that is taken back is told why, and one that has begun is not", async () => {
  const { starts, ask } = made();
  void ask("a");
  const refused = assert.rejects(ask("b"), /not needed/);
  await turn();
  assert.equal(starts.withdraw("a", new Error("not needed")), false);
  assert.equal(starts.withdraw("b", new Error("not needed")), true);
  await refused;
});

test("closing refuses those that wait", async () => {
  const { starts, ask } = made();
  void ask("a");
  const refused = assert.rejects(ask("b"), /no more starts/);
  starts[Symbol.dispose]();
  await refused;
});

/** A turn that is watched, with what its microVM ran and waited per ms that passes. */
const watched = async (perMs: CpuTimes) => {
  const parts = made();
  void parts.ask("a");
  void parts.ask("b");
  await turn();
  const read = (): CpuTimes => {
    const nowMs = parts.clock.monotonicMs();
    return { ranMs: nowMs * perMs.ranMs, waitedMs: nowMs * perMs.waitedMs };
  };
  const passed: string[] = [];
  parts.turns.get("a")?.watch(read, () => passed.push("a"));
  return { ...parts, passed };
};

test("a start that sleeps holds nobody up", async () => {
  const { clock, begun } = await watched({ ranMs: 0.1, waitedMs: 0.1 });
  await clock.advance(START_LOOK_MS);
  assert.deepEqual(begun, ["a", "b"]);
});

test("a start that computes gives its turn away after its CPU time, and one that gets none keeps it for longer", async () => {
  const computing = await watched({ ranMs: 1, waitedMs: 0 });
  await computing.clock.advance(START_TURN_CPU_MS_MAX - START_LOOK_MS);
  assert.deepEqual(computing.begun, ["a"]);
  await computing.clock.advance(2 * START_LOOK_MS);
  assert.deepEqual(computing.begun, ["a", "b"]);
  assert.deepEqual(computing.passed, ["a"]);

  const starved = await watched({ ranMs: 0.05, waitedMs: 0.95 });
  await starved.clock.advance(START_TURN_MS_MAX - 1);
  assert.deepEqual(starved.begun, ["a"]);
  await starved.clock.advance(1);
  assert.deepEqual(starved.begun, ["a", "b"]);
});
