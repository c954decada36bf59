import assert from "node:assert/strict";
import { test } from "node:test";

import { CpuAllocator } from "./cpu-allocator.ts";

test("microVMs spread evenly, and a freed place is taken again", () => {
  const cpus = new CpuAllocator([0, 1, 2]);
  const taken = Array.from({ length: 6 }, () => cpus.take(null));
  assert.deepEqual(
    taken.toSorted((a, b) => a - b),
    [0, 0, 1, 1, 2, 2],
  );
  cpus.release(1);
  assert.equal(cpus.take(null), 1);
});

test("a wish is granted and counts", () => {
  const cpus = new CpuAllocator([0, 1]);
  assert.equal(cpus.take(0), 0);
  assert.equal(cpus.take(null), 1);
  assert.throws(() => cpus.take(7), /CPU 7 is not among/);
  assert.throws(() => new CpuAllocator([]), /No CPU/);
});
