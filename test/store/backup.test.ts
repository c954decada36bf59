import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, it } from "node:test";
import { DatabaseSync } from "node:sqlite";
import { systemClock } from "../../src/lib/clock.ts";
import { sampleEvent } from "../../src/store/conformance.ts";
import { restoreBackup } from "../../src/store/backup/restore.ts";
import { openCodeStore } from "../../src/store/code/file-code-store.ts";
import { openSqliteStore } from "../../src/store/sqlite/sqlite.ts";
import type { Store } from "../../src/store/store.ts";
import { MAIN } from "../functional/hearth.ts";
import { unpackFixture } from "./directories.ts";
import type { UnpackedDirectory } from "./directories.ts";

const ACCOUNT = "000000000000";
const FIXTURE = "6b350b5-killed";

const open = (path: string): Store => openSqliteStore(join(path, "hearth.db"), systemClock);

interface Outcome {
  readonly code: number | null;
  readonly data: Readonly<Record<string, unknown>> & {
    readonly findings?: readonly Readonly<Record<string, unknown>>[];
  };
  readonly error: string;
}

/** The command as it is called on a terminal, with --json. */
const hearth = (...args: readonly string[]): Outcome => {
  const { status, stdout, stderr } = spawnSync(process.execPath, [MAIN, ...args, "--json"], { encoding: "utf8" });
  return { code: status, data: JSON.parse(stdout === "" ? "{}" : stdout) as Outcome["data"], error: stderr };
};

/** A data directory of the present form, and room for what is made of it. */
const prepared = async (): Promise<UnpackedDirectory & { readonly room: string }> => {
  const unpacked = unpackFixture(FIXTURE);
  const room = mkdtempSync(join(tmpdir(), "hearth-backup-"));
  await open(unpacked.path)[Symbol.asyncDispose]();
  return {
    ...unpacked,
    room,
    [Symbol.dispose]: () => {
      unpacked[Symbol.dispose]();
      rmSync(room, { recursive: true, force: true });
    },
  };
};

const listed = async (path: string): Promise<unknown> => {
  await using store = open(path);
  const { items } = await store.listFunctions(ACCOUNT, { marker: null, items: 999, allVersions: true });
  return { items, backlog: await store.backlog(), tags: await store.getTags(ACCOUNT, "versions") };
};

const itemsOf = async (path: string): Promise<readonly unknown[]> => {
  await using store = open(path);
  return (await store.listFunctions(ACCOUNT, { marker: null, items: 999, allVersions: true })).items;
};

const flip = (path: string, at: number): void => {
  const bytes = readFileSync(path);
  bytes[at] = (bytes[at] ?? 0) ^ 1;
  rmSync(path);
  writeFileSync(path, bytes);
};

describe("hearth backup and restore", () => {
  for (const ending of ["tar", "tar.zst"]) {
    it(`bring everything back: ${ending}`, async () => {
      using at = await prepared();
      const file = join(at.room, `backup.${ending}`);
      {
        // While somebody writes.
        await using store = open(at.path);
        await store.enqueue(sampleEvent({ accountId: ACCOUNT }));
        const made = hearth("backup", file, "--data-dir", at.path);
        assert.deepEqual([made.code, made.data["functions"], made.data["missing"]], [0, 5, []], made.error);
        await store.enqueue(sampleEvent({ accountId: ACCOUNT }));
      }
      assert.equal(statSync(file).mode & 0o777, 0o600);
      if (ending === "tar") assert.match(execFileSync("tar", ["-tf", file], { encoding: "utf8" }), /^hearth\.db$/m);
      const target = join(at.room, "restored");
      const back = hearth("restore", file, "--data-dir", target);
      assert.deepEqual([back.code, back.data["events"]], [0, 6], back.error);
      const [before, after] = [await listed(at.path), await listed(target)] as [
        { items: unknown; backlog: { waiting: number } },
        { items: unknown; backlog: { waiting: number } },
      ];
      assert.deepEqual(after.items, before.items, "environments are readable too: the keys were inside");
      assert.equal(after.backlog.waiting, before.backlog.waiting - 1);
      const code = await openCodeStore(target, systemClock);
      for (const name of readdirSync(join(target, "code"))) {
        if (name.endsWith(".zip")) assert.notEqual(await code.get(name.slice(0, 64)), null);
      }
      assert.deepEqual(hearth("check", "--data-dir", target).data.findings, []);
      assert.deepEqual(readdirSync(at.room).sort(), [`backup.${ending}`, "restored"]);
      assert.match(hearth("restore", file, "--data-dir", target).error, /is not empty/);
    });

    it(`restore nothing from a damaged file: ${ending}`, async () => {
      using at = await prepared();
      const file = join(at.room, `backup.${ending}`);
      assert.equal(hearth("backup", file, "--data-dir", at.path, "--no-keys").code, 0);
      const whole = readFileSync(file);
      const target = join(at.room, "restored");
      const damages = [
        ...[0.02, 0.3, 0.6, 0.9].map((part) => () => flip(file, Math.floor(whole.length * part))),
        () => writeFileSync(file, whole.subarray(0, whole.length >> 1)),
        () => writeFileSync(file, ""),
        () => writeFileSync(file, "no backup at all".repeat(100)),
      ];
      for (const damage of damages) {
        rmSync(file);
        writeFileSync(file, whole);
        damage();
        const refusal: string | null = await restoreBackup(file, target).then(
          () => null,
          (error: unknown) => (error instanceof Error ? error.message : "no error"),
        );
        // A flipped bit in the padding of a tar harms nothing.
        if (refusal === null) assert.equal((await itemsOf(target)).length, 7);
        else assert.match(refusal, /no whole backup/);
        rmSync(target, { recursive: true, force: true });
        assert.deepEqual(readdirSync(at.room), [`backup.${ending}`]);
      }
    });
  }

  it("refuse to take a damaged archive for a good one", async () => {
    using at = await prepared();
    const code = join(at.path, "code");
    for (const name of readdirSync(code)) if (name.endsWith(".zip")) flip(join(code, name), 60);
    const { code: exit, error } = hearth("backup", join(at.room, "backup.tar"), "--data-dir", at.path);
    assert.equal(exit, 1);
    assert.match(error, /archive .* is damaged/);
    assert.deepEqual(readdirSync(at.room), []);
  });
});

const alter = (path: string, sql: string): void => {
  const database = new DatabaseSync(join(path, "hearth.db"));
  database.exec(sql);
  database.close();
};

const subjects = (outcome: Outcome): unknown[] =>
  (outcome.data.findings ?? []).map(({ area, repaired }) => `${String(area)} ${String(repaired)}`).sort();

describe("hearth check", () => {
  it("finds what is damaged, and mends what can be mended", async () => {
    using at = await prepared();
    assert.deepEqual(hearth("check", "--data-dir", at.path), {
      code: 0,
      data: { dataDir: at.path, whole: true, findings: [], functions: 5, versions: 7, events: 5, code: 7 },
      error: "",
    });
    const code = await openCodeStore(at.path, systemClock);
    const digests = new Set<string>();
    {
      await using store = open(at.path);
      const { items } = await store.listFunctions(ACCOUNT, { marker: null, items: 999, allVersions: true });
      for (const {
        code: { digest },
      } of items)
        digests.add(digest);
    }
    const [first = "", second = ""] = digests;
    for (const digest of [first, second]) await code.get(digest);
    flip(join(at.path, "code", `${first}.erofs`), 3_000);
    flip(join(at.path, "code", `${second}.zip`), 60);
    alter(at.path, "UPDATE tags SET tag_value = 'red' WHERE tag_key = 'team'");
    alter(at.path, "UPDATE versions SET record = replace(record, '256', '257') WHERE function_name = 'reserved'");
    const found = hearth("check", "--data-dir", at.path);
    assert.equal(found.code, 1);
    assert.deepEqual(subjects(found), ["code false", "code false", "function false", "function false"]);
    const repaired = hearth("check", "--repair", "--data-dir", at.path);
    assert.deepEqual(
      subjects(repaired),
      ["code false", "code true", "function false", "function true"],
      repaired.error,
    );
    assert.deepEqual(subjects(hearth("check", "--data-dir", at.path)), ["code false", "function false"]);
  });

  it("goes on without lost commits when it is told to, and keeps what was there", async () => {
    using at = await prepared();
    const older = readFileSync(join(at.path, "hearth.db"));
    {
      await using store = open(at.path);
      await store.enqueue(sampleEvent({ accountId: ACCOUNT }));
    }
    writeFileSync(join(at.path, "hearth.db"), older);
    assert.throws(() => open(at.path), /lost what was written last/);
    assert.equal(hearth("check", "--data-dir", at.path).code, 1);
    const { code, data } = hearth("check", "--repair", "--data-dir", at.path);
    assert.deepEqual([code, data["events"]], [0, 5]);
    assert.ok(readdirSync(join(at.path, "trash")).some((name) => name.startsWith("lost-")));
    await open(at.path)[Symbol.asyncDispose]();
  });
});
