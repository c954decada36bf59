import assert from "node:assert/strict";
import { DatabaseSync } from "node:sqlite";
import { it } from "node:test";
import { createSystemClock } from "../../lib/clock.ts";
import { DiskFullError } from "./disk-full.ts";
import { GroupCommit } from "./group-commit.ts";
import { noReserve } from "./reserve.ts";

it("answers a write that is committed, whatever becomes of what is told of it", async () => {
  using stack = new DisposableStack();
  const database = stack.adopt(new DatabaseSync(":memory:"), (opened) => opened.close());
  database.exec("CREATE TABLE commits (count); INSERT INTO commits VALUES (0); CREATE TABLE other (value)");
  const failures: unknown[] = [];
  const clock = createSystemClock((error) => failures.push(error));
  const writes = new GroupCommit(database, clock, noReserve, () => {
    throw new Error("nobody can be told");
  });
  const insert = database.prepare("INSERT INTO other VALUES (?)");
  const written = [1, 2].map((value) => writes.run(() => insert.run(value).changes));
  assert.deepEqual(await Promise.all(written), [1, 1]);
  assert.equal(failures.length, 1);
});

it("gives the reserve of a full disk to the writes that it is for, and what they return is of the try that held", async () => {
  using stack = new DisposableStack();
  const database = stack.adopt(new DatabaseSync(":memory:"), (opened) => opened.close());
  database.exec("CREATE TABLE commits (count); INSERT INTO commits VALUES (0); CREATE TABLE other (value)");
  let pages = Number(database.prepare("PRAGMA page_count").get()?.["page_count"]);
  const limit = (): void => database.exec(`PRAGMA max_page_count = ${pages}`);
  limit();
  let pieces = 4;
  const reserve = {
    isInUse: false,
    giveUp: (): boolean => {
      if (pieces === 0) return false;
      pieces -= 1;
      pages += 1;
      reserve.isInUse = true;
      limit();
      return true;
    },
  };
  const writes = new GroupCommit(database, createSystemClock(), reserve);
  const insert = database.prepare("INSERT INTO other VALUES (zeroblob(?))");
  let tries = 0;
  const write = (bytes: number) => (): number => {
    tries += 1;
    insert.run(bytes);
    return tries;
  };
  const [grows, kept] = await Promise.allSettled([writes.run(write(10_000)), writes.runOnReserve(write(10_000))]);
  assert.equal(grows.status, "rejected");
  assert.deepEqual(kept, { status: "fulfilled", value: tries });
  assert.ok(tries > 2, "the reserve was needed");
  await assert.rejects(writes.run(write(1)), DiskFullError);
  await assert.rejects(writes.runOnReserve(write(100_000)), { errcode: 13 });
  assert.equal(database.prepare("SELECT count(*) AS n FROM other").get()?.["n"], 1);
});
