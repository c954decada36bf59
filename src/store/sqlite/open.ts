import { DatabaseSync } from "node:sqlite";
import { APPLICATION_ID, MIGRATIONS } from "./schema.ts";

/** How long a statement waits for another process's write. */
const BUSY_TIMEOUT_MS = 5_000;

/** The database cannot be used as it is; the message says which, why, and what to do. */
export class StoreOpenError extends Error {
  override readonly name = "StoreOpenError";
}

const pragma = (database: DatabaseSync, name: string): unknown => {
  const row = database.prepare(`PRAGMA ${name}`).get();
  return row === undefined ? undefined : Object.values(row)[0];
};

const migrate = (database: DatabaseSync, path: string): void => {
  const version = Number(pragma(database, "user_version"));
  if (version > MIGRATIONS.length) {
    throw new StoreOpenError(
      `The database ${path} was written by a newer Hearth (schema ${version}; this one knows up to ${MIGRATIONS.length}). ` +
        "Upgrade Hearth, or use another data directory.",
    );
  }
  const applicationId = Number(pragma(database, "application_id"));
  const tables = Number(Object.values(database.prepare("SELECT count(*) FROM sqlite_schema").get() ?? {})[0]);
  if (applicationId !== APPLICATION_ID && tables > 0) {
    throw new StoreOpenError(`${path} is another program's SQLite database. Use another data directory.`);
  }
  for (const [index, statements] of MIGRATIONS.entries()) {
    if (index < version) continue;
    database.exec(`BEGIN IMMEDIATE; ${statements};
      PRAGMA user_version = ${index + 1}; PRAGMA application_id = ${APPLICATION_ID}; COMMIT`);
  }
};

const configure = (database: DatabaseSync, path: string): void => {
  database.exec(`PRAGMA busy_timeout = ${BUSY_TIMEOUT_MS}`);
  const check = pragma(database, "quick_check(1)");
  if (check !== "ok") throw new Error(String(check));
  const mode = pragma(database, "journal_mode = WAL");
  if (mode !== "wal" && path !== ":memory:") {
    throw new StoreOpenError(
      `The database ${path} cannot use write-ahead logging (journal mode ${String(mode)}). Put the data directory on a local file system.`,
    );
  }
  // FULL: a commit is on the disk before it returns. A 202 rests on this.
  database.exec("PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON");
  migrate(database, path);
};

/**
 * Opens (or makes) the database file and brings its schema up to date. Throws StoreOpenError when the file is
 * damaged, newer than this program, or not ours.
 */
export const openDatabase = (path: string): DatabaseSync => {
  let database: DatabaseSync | null = null;
  try {
    database = new DatabaseSync(path);
    configure(database, path);
    return database;
  } catch (error) {
    database?.close();
    if (error instanceof StoreOpenError) throw error;
    const why = error instanceof Error ? error.message : String(error);
    throw new StoreOpenError(
      `The database ${path} cannot be opened: ${why}. If the file is damaged, put back a copy of it, or move it away to start afresh.`,
      { cause: error },
    );
  }
};
