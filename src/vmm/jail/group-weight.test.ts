import assert from "node:assert/strict";
import { test } from "node:test";

import { GroupWeight } from "./group-weight.ts";

test("all microVMs weigh as much as those of them that work, one process for a whole CPU", () => {
  const written: number[] = [];
  const weight = new GroupWeight((processes) => written.push(processes));
  assert.deepEqual(written, [1]);
  const parts = Array.from({ length: 6 }, () => weight.join());
  for (const part of parts) part.setShare(1);
  assert.deepEqual(written, [1, 2, 4, 8]);
  for (const part of parts.slice(2)) part.setWorks(false);
  assert.deepEqual(written, [1, 2, 4, 8, 2]);
  parts[0]?.[Symbol.dispose]();
  parts[1]?.[Symbol.dispose]();
  // What ended counts no more, whatever is said of it later.
  parts[1]?.setShare(0.5);
  assert.equal(written.at(-1), 2);
});

test("small functions add up, and one that comes and goes costs no write at every call", () => {
  const written: number[] = [];
  const weight = new GroupWeight((processes) => written.push(processes));
  const parts = Array.from({ length: 30 }, () => weight.join());
  for (const part of parts) part.setShare(0.1);
  assert.equal(written.at(-1), 4);
  const writes = written.length;
  for (let call = 0; call < 100; call += 1) for (const works of [false, true]) parts[0]?.setWorks(works);
  assert.equal(written.length, writes);
});
