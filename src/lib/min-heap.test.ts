import assert from "node:assert/strict";
import { test } from "node:test";
import { MinHeap } from "./min-heap.ts";
import { seededRandom } from "./random.ts";

test("always gives the smallest of what is in it", () => {
  const random = seededRandom(Number(process.env["HEARTH_SEED"] ?? 1));
  const heap = new MinHeap<number>();
  let model: number[] = [];
  for (let step = 0; step < 20_000; step += 1) {
    const key = Math.floor(random() * 100);
    if (random() < 0.52) {
      heap.push(key, key);
      model.push(key);
    } else {
      const least = model.length === 0 ? null : Math.min(...model);
      assert.equal(heap.peek()?.key ?? null, least);
      assert.equal(heap.pop()?.item ?? null, least);
      if (least !== null) model = model.toSpliced(model.indexOf(least), 1);
    }
    assert.equal(heap.size, model.length);
  }
});
