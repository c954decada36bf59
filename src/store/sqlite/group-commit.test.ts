import assert from "node:assert/strict";
import { DatabaseSync } from "node:sqlite";
import { it } from "node:test";
import { createSystemClock } from "../../lib/clock.ts";
import { GroupCommit } from "./group-commit.ts";

it("answers a write that is committed, whatever becomes of what is told of it", async () => {
  using stack = new DisposableStack();
  const database = stack.adopt(new DatabaseSync(":memory:"), (opened) => opened.close());
  database.exec("CREATE TABLE commits (count); INSERT INTO commits VALUES (0); CREATE TABLE other (value)");
  const failures: unknown[] = [];
  const clock = createSystemClock((error) => failures.push(error));
  const writes = new GroupCommit(database, clock, () => {
    throw new Error("nobody can be told");
  });
  const insert = database.prepare("INSERT INTO other VALUES (?)");
  const written = [1, 2].map((value) => writes.run(() => insert.run(value).changes));
  assert.deepEqual(await Promise.all(written), [1, 1]);
  assert.equal(failures.length, 1);
});
