import assert from "node:assert/strict";
import { test } from "node:test";
import { seededRandom } from "../../lib/random.ts";
import { StartTurns } from "./turns.ts";

const drain = (turns: StartTurns): string[] => {
  const begun: string[] = [];
  for (let id = turns.next(); id !== null; id = turns.next()) begun.push(id);
  return begun;
};

test("one group's starts begin in their order, and leave the last turn to others", () => {
  const turns = new StartTurns(3);
  for (const id of ["a1", "a2", "a3", "a4"]) turns.ask(id, "a");
  assert.deepEqual(drain(turns), ["a1", "a2"]);
  turns.ask("b1", "b");
  turns.ask("b2", "b");
  assert.deepEqual(drain(turns), ["b1"]);
  turns.end("a2");
  // The last free turn, and both groups have one: nobody gets it.
  assert.deepEqual(drain(turns), []);
  turns.end("a1");
  assert.deepEqual(drain(turns), ["a3"]);
  assert.deepEqual([turns.waiting, turns.underWay], [2, 2]);
});

test("what is withdrawn never begins, and what has begun is not withdrawn", () => {
  const turns = new StartTurns(2);
  for (const id of ["a1", "a2", "a3"]) turns.ask(id, "a");
  assert.deepEqual(drain(turns), ["a1"]);
  assert.equal(turns.withdraw("a1"), false);
  assert.equal(turns.withdraw("a2"), true);
  assert.equal(turns.withdraw("a2"), false);
  turns.end("a1");
  assert.deepEqual(drain(turns), ["a3"]);
  assert.equal(turns.waiting, 0);
});

test("turns must be at least two, and an id is asked for once", () => {
  assert.throws(() => new StartTurns(1), /at least 2, got 1/);
  const turns = new StartTurns(2);
  turns.ask("a1", "a");
  assert.throws(() => turns.ask("a1", "b"), /has asked before/);
});

/** How many other starts begin between a group's question and its first start. */
const waitOf = (burst: number, others: number, turnsMax: number): number => {
  const turns = new StartTurns(turnsMax);
  for (let n = 0; n < burst; n += 1) turns.ask(`burst${n}`, "burst");
  const underWay = drain(turns);
  for (let n = 0; n < others; n += 1) turns.ask(`other${n}`, `other${n}`);
  turns.ask("mine", "mine");
  let begun = 0;
  for (;;) {
    for (const id of drain(turns)) {
      if (id === "mine") return begun;
      begun += 1;
      underWay.push(id);
    }
    turns.end(underWay.shift() ?? "");
  }
};

test("how long a function's first start waits does not depend on another's burst", () => {
  for (const turnsMax of [2, 3, 5, 9]) {
    for (const others of [0, 1, 7]) {
      const short = waitOf(10, others, turnsMax);
      assert.equal(waitOf(3_000, others, turnsMax), short);
      assert.ok(short <= others + 2, `${short} starts came before, of ${others} functions that waited as well`);
    }
  }
});

test("whatever happens: never too many, in order within a group, none forgotten", () => {
  for (let seed = 1; seed <= 50; seed += 1) {
    const random = seededRandom(seed);
    const below = (count: number): number => Math.floor(random() * count);
    const turnsMax = 2 + below(5);
    const turns = new StartTurns(turnsMax);
    const waiting: string[] = [];
    const underWay: string[] = [];
    let made = 0;
    const begin = (): void => {
      for (const id of drain(turns)) {
        const group = id.split(" ")[0];
        assert.equal(
          id,
          waiting.find((one) => one.split(" ")[0] === group),
          `seed ${seed}: out of order`,
        );
        waiting.splice(waiting.indexOf(id), 1);
        underWay.push(id);
      }
      assert.ok(underWay.length <= turnsMax, `seed ${seed}: too many`);
      assert.deepEqual([turns.waiting, turns.underWay], [waiting.length, underWay.length]);
    };
    for (let step = 0; step < 400; step += 1) {
      const choice = below(10);
      if (choice < 5) {
        const id = `${below(4)} ${(made += 1)}`;
        waiting.push(id);
        turns.ask(id, id.split(" ")[0] ?? "");
      } else if (choice < 9) turns.end(underWay.splice(below(underWay.length), 1)[0] ?? "none");
      else if (waiting.length > 0) assert.ok(turns.withdraw(waiting.splice(below(waiting.length), 1)[0] ?? ""));
      if (below(2) === 0) begin();
    }
    for (begin(); underWay.length > 0; begin()) turns.end(underWay.shift() ?? "");
    assert.deepEqual(waiting, [], `seed ${seed}: forgotten`);
  }
});
