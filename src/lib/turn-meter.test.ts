import assert from "node:assert/strict";
import { test } from "node:test";
import { REST, tellOwner, TurnMeter } from "./turn-meter.ts";
import type { LoopClock, TurnOwner } from "./turn-meter.ts";

const GUEST: TurnOwner = { kind: "guest", name: "vm-1" };
const OTHER: TurnOwner = { kind: "guest", name: "vm-2" };
const REQUEST: TurnOwner = { kind: "request", name: "Invoke" };

/** A loop whose work is what a test says. */
class TestLoop implements LoopClock {
  iteration = 1;
  iterationBeganUs = 0;
  #cpuUs = 0;
  #nowMs = 0;

  cpuUs(): number {
    return this.#cpuUs;
  }

  monotonicMs(): number {
    return this.#nowMs;
  }

  /** Works for so long, and is kept from its CPU for so long. */
  work(ms: number, waitedMs = 0): void {
    this.#cpuUs += ms * 1000;
    this.#nowMs += ms + waitedMs;
  }

  /** Ends the iteration; returns its CPU time in µs. */
  end(waitedMs = 0): number {
    const spentUs = this.#cpuUs - this.iterationBeganUs;
    this.iteration += 1;
    this.iterationBeganUs = this.#cpuUs;
    this.#nowMs += waitedMs;
    return spentUs;
  }
}

test("a turn lasts as long as its owner's work, and what that left to do", () => {
  const loop = new TestLoop();
  const meter = new TurnMeter(loop);
  meter.begin(REQUEST);
  loop.work(3);
  assert.equal(
    meter.run(GUEST, () => loop.work(7)),
    7_000,
  );
  loop.work(2);
  meter.run(OTHER, () => loop.work(1));
  assert.deepEqual(
    [...meter.take()],
    [
      ["guest", 7],
      ["request", 3],
      ["timer", 0],
      ["rest", 0],
    ],
  );
});

test("work in the midst of another's turn is not that one's", () => {
  const loop = new TestLoop();
  const meter = new TurnMeter(loop);
  meter.run(REQUEST, () => {
    loop.work(2);
    meter.run(GUEST, () => loop.work(20));
    loop.work(4);
  });
  const taken = meter.take();
  assert.deepEqual([taken.get("guest"), taken.get("request")], [20, 4]);
});

test("waiting for a CPU, or for something to do, is no work", () => {
  const loop = new TestLoop();
  const meter = new TurnMeter(loop);
  meter.begin(REQUEST);
  loop.work(1);
  loop.end(60_000);
  meter.begin(GUEST);
  assert.equal(
    meter.run(GUEST, () => loop.work(5, 900)),
    5_000,
  );
  assert.ok([...meter.take().values()].every((ms) => ms <= 5));
});

test("a long iteration is explained by whoever had most of it, or by nobody", () => {
  const loop = new TestLoop();
  const meter = new TurnMeter(loop);
  meter.begin(REQUEST);
  loop.work(5);
  meter.run(GUEST, () => loop.work(80));
  // The loop's clock calls it before it counts the next iteration.
  assert.deepEqual(meter.explain(85_000), { cpuMs: 85, owner: GUEST, turnMs: 80 });
  loop.end();
  meter.begin(REQUEST);
  loop.work(1);
  const explained = meter.explain(90_000);
  assert.deepEqual([explained.owner.kind, explained.turnMs], ["rest", 89]);
  assert.equal(meter.take().get("rest"), 89);
});

test("what throws ends its turn", () => {
  const meter = new TurnMeter(new TestLoop());
  assert.throws(
    () =>
      meter.run(GUEST, () => {
        throw new Error("broken");
      }),
    /broken/,
  );
  assert.equal(
    meter.run(OTHER, () => {}),
    0,
  );
});

test("an owner is told in words", () => {
  assert.equal(tellOwner(GUEST), "the devices of microVM vm-1");
  assert.equal(tellOwner(REQUEST), "a request (Invoke)");
  assert.equal(tellOwner({ kind: "timer", name: "" }), "a timer");
  assert.match(tellOwner(REST), /^no one in particular/);
});
