import assert from "node:assert/strict";
import { cp, mkdir, mkdtemp, readdir, readFile, rename, rm, stat, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { describe, it } from "node:test";
import { systemClock } from "../../lib/clock.ts";
import { CREDENTIAL } from "../environment-keys.ts";
import { sampleEvent, sampleRecord } from "../conformance.ts";
import { openSqliteStore } from "./sqlite.ts";
import { APPLICATION_ID, MIGRATIONS } from "./schema.ts";

const ACCOUNT = "123456789012";
const CLAIMER = { instance: "one", incarnation: "first" };
const SECRET = "hunter2-and-more";

class Place implements AsyncDisposable {
  readonly directory: string;
  readonly told: string[] = [];

  constructor(directory: string) {
    this.directory = directory;
  }

  get file(): string {
    return join(this.directory, "hearth.db");
  }

  open(credentialsDirectory?: string): ReturnType<typeof openSqliteStore> {
    return openSqliteStore(this.file, systemClock, {
      credentialsDirectory,
      onDamage: (message) => this.told.push(message),
    });
  }

  /** Changes the database behind the store's back, as a damaged disk does. */
  alter(sql: string): void {
    const database = new DatabaseSync(this.file);
    database.exec(sql);
    database.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await rm(this.directory, { recursive: true });
  }
}

const place = async (): Promise<Place> => new Place(await mkdtemp(join(tmpdir(), "hearth-damage-")));

const withFunctions = async (at: Place, ...names: readonly string[]): Promise<void> => {
  await using store = at.open();
  for (const name of names) {
    await store.createFunction(sampleRecord(name, { environment: { SECRET } }), { team: name });
  }
};

/** A store that was killed: everything since the first function is in the log only. */
const killed = async (at: Place, copy: Place): Promise<void> => {
  await using store = at.open();
  for (let n = 0; n < 20; n += 1) await store.createFunction(sampleRecord(`f${n}`), {});
  await cp(at.directory, copy.directory, { recursive: true });
};

const bytesOf = async (directory: string): Promise<string> => {
  const files = (await readdir(directory, { recursive: true, withFileTypes: true })).filter((file) => file.isFile());
  const texts = files.map((file) => readFile(join(file.parentPath, file.name), "latin1"));
  return (await Promise.all(texts)).join();
};

describe("sqlite: damaged rows", () => {
  it("shows a damaged record as Failed, and serves the others", async () => {
    for (const damage of ["'{'", "replace(record, '\"memoryMb\":128', '\"memoryMb\":129')", "record || char(1)"]) {
      await using at = await place();
      await withFunctions(at, "bad", "good");
      at.alter(`UPDATE versions SET record = ${damage} WHERE function_name = 'bad'`);
      await using store = at.open();
      const bad = await store.getFunction(ACCOUNT, "bad", "$LATEST");
      assert.deepEqual([bad?.functionName, bad?.state, bad?.damage], ["bad", "Failed", "record"]);
      assert.match(bad?.stateReason ?? "", /record of this function is damaged/);
      assert.deepEqual((await store.getFunction(ACCOUNT, "good", "$LATEST"))?.environment, { SECRET });
      const { items } = await store.listFunctions(ACCOUNT, { marker: null, items: 9, allVersions: false });
      assert.deepEqual(
        items.map(({ state }) => state),
        ["Failed", "Active"],
      );
      assert.match(at.told.join(), /function bad is damaged/);
      await assert.rejects(store.digestsInUse(), { name: "DamagedRecordError", message: /function bad/ });
      assert.equal(await store.deleteFunction(ACCOUNT, "bad", null), true);
      assert.equal((await store.digestsInUse()).size, 1);
    }
  });

  it("shows as Failed what has damaged settings, until they are set again", async () => {
    await using at = await place();
    await withFunctions(at, "f", "g");
    at.alter("UPDATE functions SET reserved_concurrency = 7 WHERE function_name = 'f'");
    at.alter("UPDATE tags SET tag_value = 'red' WHERE function_name = 'g'");
    await using store = at.open();
    for (const name of ["f", "g"]) {
      const { state, damage } = (await store.getFunction(ACCOUNT, name, "$LATEST")) ?? {};
      assert.deepEqual([state, damage], ["Failed", "settings"]);
    }
    await store.setReservedConcurrency(ACCOUNT, "f", 5, 100);
    await store.changeTags(ACCOUNT, "g", { team: "blue" }, []);
    for (const name of ["f", "g"]) assert.equal((await store.getFunction(ACCOUNT, name, "$LATEST"))?.state, "Active");
  });

  it("sets a damaged event aside, says so, and runs the others", async () => {
    await using at = await place();
    const [bad, good] = [sampleEvent(), sampleEvent()];
    {
      await using store = at.open();
      for (const event of [bad, good]) await store.enqueue(event);
    }
    at.alter(`UPDATE events SET payload = CAST('{"n":2}' AS BLOB) WHERE event_id = '${bad.eventId}'`);
    await using store = at.open();
    const what = { count: 9, nowMs: 2_000, leaseMs: 500 };
    const { events } = await store.claim({ accountId: ACCOUNT, functionName: "f" }, what, CLAIMER);
    assert.deepEqual(
      events.map(({ eventId }) => eventId),
      [good.eventId],
    );
    assert.match(at.told.join(), new RegExp(`event ${bad.eventId} .* is damaged`));
    assert.equal((await store.backlog()).waiting, 2, "nothing is thrown away");
  });

  it("refuses tables that are not its own, and halves of functions", async () => {
    await using at = await place();
    await withFunctions(at, "f");
    const damages = [
      "DROP INDEX events_by_function",
      "DELETE FROM versions",
      "PRAGMA foreign_keys = OFF; UPDATE tags SET function_name = 'e'",
    ];
    for (const damage of damages) {
      await using other = await place();
      await cp(at.directory, other.directory, { recursive: true });
      other.alter(damage);
      assert.throws(() => other.open(), { name: "StoreOpenError", message: /hearth\.db cannot be opened: / });
    }
  });
});

describe("sqlite: what was lost", () => {
  const damages: Readonly<Record<string, (wal: string) => Promise<void>>> = {
    "64 bytes in its middle": async (wal) => {
      const bytes = await readFile(wal);
      bytes.fill(0xff, bytes.length >> 1, (bytes.length >> 1) + 64);
      await writeFile(wal, bytes);
    },
    "one bit of its head": async (wal) => {
      const bytes = await readFile(wal);
      bytes[20] = (bytes[20] ?? 0) ^ 1;
      await writeFile(wal, bytes);
    },
    "its last third": async (wal) => truncate(wal, Math.floor(((await stat(wal)).size * 2) / 3)),
    "all of it": (wal) => truncate(wal),
    "the file": (wal) => rm(wal),
  };

  it("opens what was killed, with everything in it", async () => {
    await using at = await place();
    await using copy = await place();
    await killed(at, copy);
    await using store = copy.open();
    const { items } = await store.listFunctions(ACCOUNT, { marker: null, items: 99, allVersions: false });
    assert.equal(items.length, 20);
    assert.deepEqual(copy.told, []);
  });

  for (const [what, damage] of Object.entries(damages)) {
    it(`refuses a log that has lost ${what}, and changes nothing`, async () => {
      await using at = await place();
      await using copy = await place();
      await killed(at, copy);
      const log = `${copy.file}-wal`;
      await damage(log);
      const before = await readFile(log).catch(() => null);
      const database = await readFile(copy.file);
      assert.throws(() => copy.open(), {
        name: "StoreOpenError",
        message: /lost what was written last: \d+ commits|cannot be opened/,
      });
      const after = await readFile(log).catch(() => null);
      assert.ok(before === null || before.length === 0 || before.equals(after ?? Buffer.alloc(0)));
      assert.ok(database.equals(await readFile(copy.file)));
    });
  }

  it("refuses an older copy of the database", async () => {
    await using at = await place();
    await withFunctions(at, "f");
    const older = await readFile(at.file);
    await withFunctions(at, "g");
    await writeFile(at.file, older);
    assert.throws(() => at.open(), { name: "StoreOpenError", message: /lost what was written last: 1 commits/ });
  });

  it("refuses a place without its database, whatever else is there", async () => {
    await using at = await place();
    await withFunctions(at, "f");
    await rename(at.file, `${at.file}.away`);
    assert.throws(() => at.open(), { name: "StoreOpenError", message: /is missing, but there is .*hearth\.mark/ });
    await rm(join(at.directory, "hearth.mark"));
    await mkdir(join(at.directory, "code"));
    await writeFile(join(at.directory, "code", `${"a".repeat(64)}.zip`), "");
    await writeFile(at.file, "");
    assert.throws(() => at.open(), { name: "StoreOpenError", message: /is empty, but there is the code of functions/ });
    assert.deepEqual(await readdir(join(at.directory, "code")), [`${"a".repeat(64)}.zip`]);
    await rename(`${at.file}.away`, at.file);
    await using store = at.open();
    assert.notEqual(await store.getFunction(ACCOUNT, "f", "$LATEST"), null);
  });

  it("goes on without a mark, or with one that nobody can read", async () => {
    await using at = await place();
    const mark = join(at.directory, "hearth.mark");
    for (const damage of [() => rm(mark), () => truncate(mark), () => truncate(mark, 20), () => writeFile(mark, "x")]) {
      await withFunctions(at, `f${at.told.length}`);
      at.told.push("");
      await damage();
      await using store = at.open();
      assert.equal((await store.usage(ACCOUNT)).functions, at.told.length);
    }
  });
});

describe("sqlite: environment variables", () => {
  it("lie nowhere in clear, and are read again", async () => {
    await using at = await place();
    await using store = at.open();
    const record = sampleRecord("f", { environment: { SECRET } });
    await store.createFunction(record, {});
    await store.publishVersion(record, record.revisionId);
    assert.equal((await bytesOf(at.directory)).includes(SECRET), false);
    for (const version of ["$LATEST", "1"]) {
      assert.deepEqual((await store.getFunction(ACCOUNT, "f", version))?.environment, { SECRET });
    }
    const [key = ""] = await readdir(join(at.directory, "keys"));
    assert.equal((await stat(join(at.directory, "keys", key))).mode & 0o777, 0o600);
  });

  it("cost the function its service when their key is lost, and nobody else; a new key changes no old one", async () => {
    await using at = await place();
    await withFunctions(at, "f");
    {
      await using store = at.open();
      await store.createFunction(sampleRecord("plain", { environment: {} }), {});
    }
    const keys = join(at.directory, "keys");
    const [key = ""] = await readdir(keys);
    await rename(join(keys, key), join(at.directory, key));
    {
      await using store = at.open();
      const lost = await store.getFunction(ACCOUNT, "f", "$LATEST");
      assert.deepEqual([lost?.state, lost?.damage, lost?.environment], ["Failed", "environment", {}]);
      assert.match(lost?.stateReason ?? "", new RegExp(key));
      assert.equal((await store.getFunction(ACCOUNT, "plain", "$LATEST"))?.state, "Active");
      await store.createFunction(sampleRecord("new", { environment: { SECRET } }), {});
    }
    await rename(join(at.directory, key), join(keys, key));
    await using store = at.open();
    for (const name of ["f", "new"]) {
      assert.deepEqual((await store.getFunction(ACCOUNT, name, "$LATEST"))?.environment, { SECRET });
    }
  });

  it("are encrypted anew when a newer key comes, such as a credential of systemd", async () => {
    await using at = await place();
    await withFunctions(at, "f");
    const credentials = join(at.directory, "credentials");
    await mkdir(credentials);
    await writeFile(join(credentials, CREDENTIAL), "a secret of the operator's");
    await at.open(credentials)[Symbol.asyncDispose]();
    await rm(join(at.directory, "keys"), { recursive: true });
    await using store = at.open(credentials);
    assert.deepEqual((await store.getFunction(ACCOUNT, "f", "$LATEST"))?.environment, { SECRET });
  });

  it("are encrypted when an older database is taken over, of which a copy is kept", async () => {
    await using at = await place();
    const record = sampleRecord("f", { environment: { SECRET } });
    at.alter(`${MIGRATIONS.slice(0, 2).join(";")}; PRAGMA user_version = 2; PRAGMA application_id = ${APPLICATION_ID};
      INSERT INTO functions VALUES ('${ACCOUNT}', 'f', 3); INSERT INTO tags VALUES ('${ACCOUNT}', 'f', 'team', 'blue');
      INSERT INTO version_counters VALUES ('${ACCOUNT}', 'f', 4);
      INSERT INTO versions VALUES ('${ACCOUNT}', 'f', 0, '${record.revisionId}', 1000, '${JSON.stringify(record)}');
      INSERT INTO versions VALUES ('${ACCOUNT}', 'f', 4, 'r', 1000, '{"damaged'); `);
    await using store = at.open();
    assert.deepEqual(await store.getFunction(ACCOUNT, "f", "$LATEST"), record);
    assert.equal((await store.getFunction(ACCOUNT, "f", "4"))?.damage, "record");
    assert.equal(await store.getReservedConcurrency(ACCOUNT, "f"), 3);
    assert.deepEqual(await store.getTags(ACCOUNT, "f"), { team: "blue" });
    assert.equal((await store.publishVersion(record, record.revisionId))?.version, "5");
    const [copy = ""] = await readdir(join(at.directory, "trash"));
    assert.equal(copy, "hearth.db.schema-2");
    assert.equal((await readFile(at.file, "latin1")).includes(SECRET), false);
    assert.equal((await readFile(`${at.file}-wal`, "latin1")).includes(SECRET), false);
    const kept = new DatabaseSync(join(at.directory, "trash", copy), { readOnly: true });
    assert.equal(kept.prepare("SELECT count(*) AS n FROM versions").get()?.["n"], 2);
    kept.close();
  });
});
