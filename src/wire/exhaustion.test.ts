import assert from "node:assert/strict";
import { test } from "node:test";
import { exhaustion, exhaustionText } from "./exhaustion.ts";

const failed = (code: string): Error => Object.assign(new Error(code), { code });

test("what ran out is seen behind what failed while that was cleared away", () => {
  const thrown = ((): unknown => {
    try {
      using stack = new DisposableStack();
      stack.defer(() => {
        throw new Error("a directory that is not empty");
      });
      throw failed("EMFILE");
    } catch (error) {
      return error;
    }
  })();
  assert.ok(thrown instanceof SuppressedError);
  assert.match(exhaustionText(thrown) ?? "", /RLIMIT_NOFILE/);
  assert.equal(exhaustion(new Error("a microVM did not boot", { cause: thrown }))?.status, 503);
});

test("one of several failures is enough", () => {
  assert.match(exhaustionText(new AggregateError([new Error("no"), failed("ENOSPC")])) ?? "", /no space left/);
  assert.equal(exhaustionText(new AggregateError([new Error("no")])), null);
});
