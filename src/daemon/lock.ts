import { chmodSync, closeSync, openSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { DatabaseSync } from "node:sqlite";
import { makeDirectory } from "../lib/files.ts";
import { assertNotForgotten } from "../store/data-directory.ts";
import { CliError } from "./errors.ts";
import { dataFiles } from "./settings.ts";

/**
 * Makes this process the only Hearth of a data directory, until disposed. The lock is the kernel's (through SQLite's
 * exclusive mode), so it goes with the process, however that ends. Throws a CliError that names the
 * holder, and StoreOpenError for a directory whose database is gone.
 */
export const lockDataDirectory = (dataDir: string): Disposable => {
  const files = dataFiles(dataDir);
  // Before anything is made there, a database above all.
  assertNotForgotten(files.database);
  try {
    prepare(dataDir);
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new CliError(`The data directory ${dataDir} cannot be made: ${reason}.`, "Name another one with --data-dir.");
  }
  const database = openLocked(files.lock, dataDir, files.pid);
  writeFileSync(files.pid, `${process.pid}\n`);
  return {
    [Symbol.dispose]: () => {
      rmSync(files.pid, { force: true });
      database.close();
    },
  };
};

/**
 * MicroVMs run as users of their own and must get through the directory to their run directories: others may
 * pass (not list) it, so what lies in it is closed to them one by one.
 */
const prepare = (dataDir: string): void => {
  const files = dataFiles(dataDir);
  makeDirectory(dataDir, 0o711);
  const { mode } = statSync(dataDir);
  if ((mode & 0o001) === 0) chmodSync(dataDir, (mode & 0o777) | 0o011);
  for (const directory of [files.code, files.logs]) makeDirectory(directory, 0o700);
  // SQLite gives its side files the mode of the database.
  for (const file of [files.database, files.lock]) closeSync(openSync(file, "a", 0o600));
};

const openLocked = (file: string, dataDir: string, pidFile: string): DatabaseSync => {
  const database = new DatabaseSync(file, { timeout: 0 });
  try {
    database.exec("PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = MEMORY; BEGIN EXCLUSIVE; COMMIT");
    return database;
  } catch (error) {
    database.close();
    // SQLITE_BUSY
    if (!(error instanceof Error && "errcode" in error && error.errcode === 5)) throw error;
    throw new CliError(
      `Hearth already runs on ${dataDir}${holder(pidFile)}.`,
      "Stop that one first, or give this one another --data-dir.",
    );
  }
};

const holder = (pidFile: string): string => {
  try {
    return ` (process ${readFileSync(pidFile, "utf8").trim()})`;
  } catch {
    return "";
  }
};
