import assert from "node:assert/strict";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { describe, it } from "node:test";
import { systemClock } from "../../lib/clock.ts";
import { sampleEvent, sampleRecord, storeConformance } from "../conformance.ts";
import type { StorePlace } from "../conformance.ts";
import { openSqliteStore } from "./sqlite.ts";

const place = async (): Promise<StorePlace & { readonly file: string }> => {
  const directory = await mkdtemp(join(tmpdir(), "hearth-store-"));
  const file = join(directory, "hearth.db");
  return {
    file,
    open: async () => openSqliteStore(file, systemClock),
    [Symbol.asyncDispose]: () => rm(directory, { recursive: true }),
  };
};

storeConformance("sqlite", place);

describe("sqlite: opening", () => {
  it("refuses a file that is no database", async () => {
    await using at = await place();
    await writeFile(at.file, "this is no database at all, and it is longer than a header of one ".repeat(100));
    assert.throws(() => openSqliteStore(at.file, systemClock), {
      name: "StoreOpenError",
      message: /hearth\.db cannot be opened: /,
    });
  });

  it("refuses a damaged database", async () => {
    await using at = await place();
    {
      await using store = await at.open();
      for (let n = 0; n < 50; n += 1) await store.enqueue(sampleEvent({ payload: Buffer.alloc(4_000, n) }));
      await store.createFunction(sampleRecord("f"), {});
    }
    const bytes = await readFile(at.file);
    bytes.fill(0xff, 4_096, 60_000);
    await writeFile(at.file, bytes);
    assert.throws(() => openSqliteStore(at.file, systemClock), { name: "StoreOpenError", message: /damaged/ });
  });

  it("refuses a database of a newer Hearth, and one that is not ours", async () => {
    await using at = await place();
    await (await at.open())[Symbol.asyncDispose]();
    const database = new DatabaseSync(at.file);
    database.exec("PRAGMA user_version = 999");
    database.close();
    assert.throws(() => openSqliteStore(at.file, systemClock), {
      name: "StoreOpenError",
      message: /newer Hearth \(schema 999/,
    });

    const other = `${at.file}.other`;
    const foreign = new DatabaseSync(other);
    foreign.exec("CREATE TABLE theirs (x)");
    foreign.close();
    assert.throws(() => openSqliteStore(other, systemClock), { name: "StoreOpenError", message: /another program's/ });
  });
});
