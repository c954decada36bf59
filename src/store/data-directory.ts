import { existsSync, readdirSync, statSync } from "node:fs";
import { basename, dirname, join } from "node:path";

/** The data cannot be served as it is; the message says which, why, and what to do. */
export class StoreOpenError extends Error {
  override readonly name = "StoreOpenError";
}

const sizeOf = (path: string): number => (existsSync(path) ? statSync(path).size : 0);

const WHAT_TO_DO =
  "Mount or name the right data directory (--data-dir), put the database back, or restore a backup (`hearth restore`). " +
  "To start afresh, move what is there away.";

/**
 * Throws when the database is missing (or empty) though there is something that belongs to one: a Hearth that made a new
 * database there would take everything else for unused.
 */
export const assertNotForgotten = (databasePath: string): void => {
  if (sizeOf(databasePath) > 0) return;
  const directory = dirname(databasePath);
  const code = join(directory, "code");
  const archives = existsSync(code) ? readdirSync(code).filter((name) => /^[0-9a-f]{64}\./.test(name)) : [];
  const found = [
    ...(archives.length > 0 ? [`the code of functions in ${code}`] : []),
    ...[`${databasePath}-wal`, markPath(databasePath)].filter((path) => sizeOf(path) > 0),
  ];
  if (found.length === 0) return;
  const state = existsSync(databasePath) ? "is empty" : "is missing";
  throw new StoreOpenError(
    `The database ${databasePath} ${state}, but there is ${found.join(" and ")}. Nothing was changed. ${WHAT_TO_DO}`,
  );
};

/** Where the count of what was committed is kept beside the database (`sqlite/mark.ts`). */
export const markPath = (databasePath: string): string =>
  join(dirname(databasePath), `${basename(databasePath, ".db")}.mark`);

/** Room that is set aside beside the database for a full disk (`sqlite/reserve.ts`). */
export const reservePath = (databasePath: string): string =>
  join(dirname(databasePath), `${basename(databasePath, ".db")}.reserve`);
