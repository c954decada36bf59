import { chmodSync, existsSync, mkdirSync, statSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { assertNotForgotten, markPath, StoreOpenError } from "../data-directory.ts";
import type { EnvironmentKeys } from "../environment-keys.ts";
import { readMark } from "./mark.ts";
import { APPLICATION_ID, MIGRATIONS, SEALED_SINCE } from "./schema.ts";
import { renewEncryption, sealAll } from "./sealing.ts";

/** How long a statement waits for another process's write. */
const BUSY_TIMEOUT_MS = 5_000;
/** Hearth's own: up to this size the database is read as a whole at opening, indexes too; beyond it its structure only. */
const FULL_CHECK_BYTES_MAX: number = 32 * 1024 * 1024;

export const IN_MEMORY = ":memory:";

export const pragma = (database: DatabaseSync, name: string): unknown => {
  const row = database.prepare(`PRAGMA ${name}`).get();
  return row === undefined ? undefined : Object.values(row)[0];
};

const schemaOf = (database: DatabaseSync): string =>
  JSON.stringify(database.prepare("SELECT type, name, sql FROM sqlite_schema ORDER BY type, name").all());

const migrateTo = (database: DatabaseSync, from: number, to: number): void => {
  for (const [index, statements] of MIGRATIONS.slice(0, to).entries()) {
    if (index >= from) database.exec(statements);
  }
};

/** What the tables of a schema version look like. */
const schemaExpected = (version: number): string => {
  const database = new DatabaseSync(IN_MEMORY);
  try {
    migrateTo(database, 0, version);
    return schemaOf(database);
  } finally {
    database.close();
  }
};

/** Schema version of a database that is whole and ours. Throws when it is not. */
const assertWhole = (database: DatabaseSync, path: string): number => {
  const version = Number(pragma(database, "user_version"));
  const applicationId = Number(pragma(database, "application_id"));
  const tables = Number(Object.values(database.prepare("SELECT count(*) FROM sqlite_schema").get() ?? {})[0]);
  if (applicationId !== APPLICATION_ID && tables > 0) {
    throw new StoreOpenError(
      `${path} is another program's SQLite database, or its head is damaged. Use another data directory, or restore a backup.`,
    );
  }
  if (version > MIGRATIONS.length) {
    throw new StoreOpenError(
      `The database ${path} was written by a newer Hearth (schema ${version}; this one knows up to ${MIGRATIONS.length}). ` +
        "Upgrade Hearth, or use another data directory.",
    );
  }
  const small = path === IN_MEMORY || statSync(path).size <= FULL_CHECK_BYTES_MAX;
  const check = pragma(database, small ? "integrity_check(1)" : "quick_check(1)");
  if (check !== "ok") throw new Error(String(check));
  if (schemaOf(database) !== schemaExpected(version)) {
    throw new Error(`its tables are not those of schema ${version}`);
  }
  assertNobodyLost(database);
  return version;
};

/** Versions, tags and functions whose other halves are gone: a name in one of them is damaged. */
const assertNobodyLost = (database: DatabaseSync): void => {
  const has = (table: string): boolean =>
    database.prepare("SELECT 1 FROM sqlite_schema WHERE name = ?").get(table) !== undefined;
  if (!has("functions")) return;
  const orphan = database.prepare("PRAGMA foreign_key_check").get();
  if (orphan !== undefined) throw new Error(`a row of ${String(orphan["table"])} belongs to no function`);
  const headless = database
    .prepare(
      `SELECT function_name FROM functions f WHERE NOT EXISTS (SELECT 1 FROM versions v
        WHERE v.account_id = f.account_id AND v.function_name = f.function_name AND v.version_number = 0)`,
    )
    .get();
  if (headless !== undefined) throw new Error(`the function ${String(headless["function_name"])} has no $LATEST`);
};

/** The number of the last commit; null in a database that does not count them yet. */
export const commitsOf = (database: DatabaseSync, version: number): number | null =>
  version < SEALED_SINCE ? null : Number(database.prepare("SELECT count FROM commits").get()?.["count"]);

/** What a look at a database told. */
export interface Inspection {
  /** Schema version. */
  readonly version: number;
  /** Commits that were acknowledged and are missing. */
  readonly commitsLost: number;
}

/**
 * Looks at a database without changing it: opened for writing, SQLite would take in what is whole of a damaged log, and
 * then remove the log. Throws when the database is damaged or not ours.
 */
export const inspectDatabase = (path: string): Inspection => {
  const database = new DatabaseSync(path, { readOnly: true });
  try {
    database.exec(`PRAGMA busy_timeout = ${BUSY_TIMEOUT_MS}`);
    const version = assertWhole(database, path);
    // The mark before the count: a Hearth that runs meanwhile may only add to what is counted.
    const mark = readMark(markPath(path)) ?? 0;
    return { version, commitsLost: Math.max(0, mark - (commitsOf(database, version) ?? 0)) };
  } finally {
    database.close();
  }
};

/** What an operator is told of a database that lost commits. */
export const lostText = (path: string, commitsLost: number): string =>
  `The database ${path} has lost what was written last: ${commitsLost} commits that were acknowledged are missing in it, ` +
  `so it is an older copy, or its log ${basename(path)}-wal is damaged or gone.`;

const assertNothingLost = (path: string): void => {
  const { commitsLost } = inspectDatabase(path);
  if (commitsLost === 0) return;
  throw new StoreOpenError(
    `${lostText(path, commitsLost)} Nothing was changed. Put both files back as they were, or restore a backup; ` +
      "`hearth check --repair` goes on without what is missing.",
  );
};

/** Keeps a copy of a database that is about to be changed for good, in the trash of the data directory. */
export const keepCopy = (database: DatabaseSync, path: string, label: string): string => {
  const directory = join(dirname(path), "trash");
  mkdirSync(directory, { recursive: true, mode: 0o700 });
  let copy = join(directory, `${basename(path)}.${label}`);
  for (let n = 2; existsSync(copy); n += 1) copy = join(directory, `${basename(path)}.${label}-${n}`);
  database.prepare("VACUUM INTO ?").run(copy);
  chmodSync(copy, 0o600);
  return copy;
};

const migrate = (
  database: DatabaseSync,
  path: string,
  keys: EnvironmentKeys,
  note: (message: string) => void,
): void => {
  const version = Number(pragma(database, "user_version"));
  if (version === MIGRATIONS.length) return;
  if (version > 0 && path !== IN_MEMORY) {
    const copy = keepCopy(database, path, `schema-${version}`);
    note(`The database is brought from schema ${version} to ${MIGRATIONS.length}; ${copy} is a copy from before.`);
  }
  database.exec("BEGIN IMMEDIATE");
  try {
    migrateTo(database, version, MIGRATIONS.length);
    if (version < SEALED_SINCE) sealAll(database, keys);
    database.exec(`PRAGMA user_version = ${MIGRATIONS.length}; PRAGMA application_id = ${APPLICATION_ID}; COMMIT`);
  } catch (error) {
    if (database.isTransaction) database.exec("ROLLBACK");
    throw error;
  }
  // Variables stood in clear in what is free space now.
  if (version > 0 && version < SEALED_SINCE) database.exec("VACUUM; PRAGMA wal_checkpoint(TRUNCATE)");
};

const configure = (database: DatabaseSync, path: string): void => {
  database.exec(`PRAGMA busy_timeout = ${BUSY_TIMEOUT_MS}`);
  const mode = pragma(database, "journal_mode = WAL");
  if (mode !== "wal" && path !== IN_MEMORY) {
    throw new StoreOpenError(
      `The database ${path} cannot use write-ahead logging (journal mode ${String(mode)}). Put the data directory on a local file system.`,
    );
  }
  // FULL: a commit is on the disk before it returns. A 202 rests on this.
  database.exec("PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON");
};

/**
 * Opens (or makes) the database file and brings its schema up to date. `note` is told what was done that an operator may
 * want to know. Throws StoreOpenError when the file is damaged, older than what was acknowledged, forgotten (missing beside
 * the code of functions), newer than this program, or not ours.
 */
export const openDatabase = (path: string, keys: EnvironmentKeys, note: (message: string) => void): DatabaseSync => {
  let database: DatabaseSync | null = null;
  try {
    if (path !== IN_MEMORY) assertNotForgotten(path);
    if (path !== IN_MEMORY && existsSync(path) && statSync(path).size > 0) assertNothingLost(path);
    database = new DatabaseSync(path);
    configure(database, path);
    migrate(database, path, keys, note);
    const renewed = renewEncryption(database, keys);
    if (renewed > 0) note(`The environment variables of ${renewed} versions are encrypted with the newest key now.`);
    return database;
  } catch (error) {
    database?.close();
    if (error instanceof StoreOpenError) throw error;
    const why = error instanceof Error ? error.message : String(error);
    throw new StoreOpenError(
      `The database ${path} cannot be opened: ${why}. If the file is damaged, restore a backup (\`hearth restore\`), put back a copy of it, or move it away with the folder code to start afresh.`,
      { cause: error },
    );
  }
};
