import assert from "node:assert/strict";
import { test } from "node:test";
import { compare } from "./against.ts";

const run = (figures: Readonly<Record<string, number>>): ReadonlyMap<string, number> =>
  new Map(Object.entries(figures));

test("figures are compared pair by pair, those that only one checkout has are left out", () => {
  const compared = compare([
    { here: run({ p50Ms: 10, added: 1, failed: 0 }), there: run({ p50Ms: 10, failed: 0 }) },
    { here: run({ p50Ms: 22, added: 1, failed: 0 }), there: run({ p50Ms: 20, failed: 0 }) },
    { here: run({ p50Ms: 33, added: 1, failed: 0 }), there: run({ p50Ms: 30, failed: 0 }) },
  ]);
  assert.deepEqual(compared, [{ figure: "p50Ms", here: 22, there: 20, ratio: 1.1, ratioMin: 1, ratioMax: 1.1 }]);
});

test("no pair, no figure", () => {
  assert.deepEqual(compare([]), []);
});
