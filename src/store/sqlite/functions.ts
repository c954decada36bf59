import type { DatabaseSync, StatementSync } from "node:sqlite";
import type { Digest } from "../../wire/function.ts";
import { ServiceError } from "../../wire/errors.ts";
import type { FunctionRecord, FunctionStore, Page } from "../store.ts";
import type { GroupCommit } from "./group-commit.ts";
import { decodeMarker, encodeMarker, recordOf, versionNumber } from "./rows.ts";
import type { Row } from "./rows.ts";

const STATEMENTS = {
  insertFunction: "INSERT OR IGNORE INTO functions (account_id, function_name) VALUES (?, ?)",
  insertVersion: "INSERT INTO versions VALUES (?, ?, ?, ?, ?, ?)",
  insertTag: "INSERT OR REPLACE INTO tags VALUES (?, ?, ?, ?)",
  deleteTag: "DELETE FROM tags WHERE account_id = ? AND function_name = ? AND tag_key = ?",
  tags: "SELECT tag_key, tag_value FROM tags WHERE account_id = ? AND function_name = ? ORDER BY tag_key",
  get: "SELECT record FROM versions WHERE account_id = ? AND function_name = ? AND version_number = ?",
  exists: "SELECT reserved_concurrency FROM functions WHERE account_id = ? AND function_name = ?",
  listLatest: `SELECT function_name, version_number, record FROM versions WHERE account_id = ?1 AND version_number = 0
    AND function_name > ?2 ORDER BY function_name LIMIT ?3`,
  listAll: `SELECT function_name, version_number, record FROM versions WHERE account_id = ?1
    AND (function_name, version_number) > (?2, ?3) ORDER BY function_name, version_number LIMIT ?4`,
  listVersions: `SELECT function_name, version_number, record FROM versions WHERE account_id = ?1 AND function_name = ?2
    AND version_number > ?3 ORDER BY version_number LIMIT ?4`,
  update: `UPDATE versions SET revision_id = ?1, code_bytes = ?2, record = ?3
    WHERE account_id = ?4 AND function_name = ?5 AND version_number = ?6 AND revision_id = ?7`,
  nextNumber: `INSERT INTO version_counters VALUES (?, ?, 1)
    ON CONFLICT DO UPDATE SET last_number = last_number + 1 RETURNING last_number`,
  deleteFunction: "DELETE FROM functions WHERE account_id = ? AND function_name = ?",
  deleteVersion: "DELETE FROM versions WHERE account_id = ? AND function_name = ? AND version_number = ?",
  usage: `SELECT count(*) FILTER (WHERE version_number = 0) AS functions, coalesce(sum(code_bytes), 0) AS bytes
    FROM versions WHERE account_id = ?`,
  digests: `SELECT json_extract(record, '$.code.digest') AS digest FROM versions
    UNION SELECT json_extract(layer.value, '$.digest') FROM versions, json_each(record, '$.layers') AS layer`,
  reservedTotal: `SELECT coalesce(sum(reserved_concurrency), 0) AS total FROM functions
    WHERE account_id = ? AND function_name <> ?`,
  setReserved: "UPDATE functions SET reserved_concurrency = ? WHERE account_id = ? AND function_name = ?",
} as const;

type Statements = Readonly<Record<keyof typeof STATEMENTS, StatementSync>>;

const prepareAll = (database: DatabaseSync): Statements =>
  // The keys are those of STATEMENTS, which the type of fromEntries cannot say.
  Object.fromEntries(Object.entries(STATEMENTS).map(([name, sql]) => [name, database.prepare(sql)])) as Statements;

/** One more than a page is read, to know whether another page follows. */
const pageOf = (rows: readonly Row[], items: number): Page<FunctionRecord> => {
  const shown = rows.slice(0, items);
  const last = rows.length > items ? shown.at(-1) : undefined;
  return {
    items: shown.map(recordOf),
    nextMarker:
      last === undefined
        ? null
        : encodeMarker({ name: String(last["function_name"]), number: Number(last["version_number"]) }),
  };
};

/** Functions in SQLite. The record is kept as JSON; what is searched or counted stands in columns beside it. */
export class SqliteFunctions implements FunctionStore {
  readonly #sql: Statements;
  readonly #writes: GroupCommit;

  constructor(database: DatabaseSync, writes: GroupCommit) {
    this.#sql = prepareAll(database);
    this.#writes = writes;
  }

  createFunction(record: FunctionRecord, tags: Readonly<Record<string, string>>): Promise<void> {
    return this.#writes.run(() => {
      const { accountId, functionName } = record;
      if (this.#sql.insertFunction.run(accountId, functionName).changes === 0) {
        throw new ServiceError("ResourceConflictException", 409, `Function already exist: ${functionName}`, {
          Type: "User",
        });
      }
      this.#insertVersion(record, 0);
      for (const [key, value] of Object.entries(tags)) this.#sql.insertTag.run(accountId, functionName, key, value);
    });
  }

  async getFunction(accountId: string, functionName: string, version: string): Promise<FunctionRecord | null> {
    const number = versionNumber(version);
    const row = number === null ? undefined : this.#sql.get.get(accountId, functionName, number);
    return row === undefined ? null : recordOf(row);
  }

  async listFunctions(
    accountId: string,
    options: { readonly marker: string | null; readonly items: number; readonly allVersions: boolean },
  ): Promise<Page<FunctionRecord>> {
    const { name, number } = decodeMarker(options.marker);
    const count = options.items + 1;
    const rows = options.allVersions
      ? this.#sql.listAll.all(accountId, name, number, count)
      : this.#sql.listLatest.all(accountId, name, count);
    return pageOf(rows, options.items);
  }

  async listVersions(
    accountId: string,
    functionName: string,
    options: { readonly marker: string | null; readonly items: number },
  ): Promise<Page<FunctionRecord>> {
    const { number } = decodeMarker(options.marker);
    return pageOf(this.#sql.listVersions.all(accountId, functionName, number, options.items + 1), options.items);
  }

  updateFunction(record: FunctionRecord, expectedRevision: string): Promise<boolean> {
    return this.#writes.run(() => {
      const number = versionNumber(record.version);
      if (number === null) throw new RangeError(`No version number: ${record.version}`);
      const { revisionId, code, accountId, functionName } = record;
      const values = [revisionId, code.bytes, JSON.stringify(record), accountId, functionName, number] as const;
      return this.#sql.update.run(...values, expectedRevision).changes === 1;
    });
  }

  publishVersion(record: FunctionRecord): Promise<FunctionRecord> {
    return this.#writes.run(() => {
      const row = this.#sql.nextNumber.get(record.accountId, record.functionName);
      const number = Number(row?.["last_number"]);
      const stored: FunctionRecord = { ...record, version: String(number) };
      this.#insertVersion(stored, number);
      return stored;
    });
  }

  deleteFunction(accountId: string, functionName: string, version: string | null): Promise<boolean> {
    return this.#writes.run(() => {
      if (version === null) return this.#sql.deleteFunction.run(accountId, functionName).changes === 1;
      const number = versionNumber(version);
      if (number === null || number === 0) return false;
      return this.#sql.deleteVersion.run(accountId, functionName, number).changes === 1;
    });
  }

  async getTags(accountId: string, functionName: string): Promise<Readonly<Record<string, string>> | null> {
    if (this.#sql.exists.get(accountId, functionName) === undefined) return null;
    const rows = this.#sql.tags.all(accountId, functionName);
    return Object.fromEntries(rows.map((row) => [String(row["tag_key"]), String(row["tag_value"])]));
  }

  changeTags(
    accountId: string,
    functionName: string,
    set: Readonly<Record<string, string>>,
    remove: readonly string[],
  ): Promise<void> {
    return this.#writes.run(() => {
      for (const key of remove) this.#sql.deleteTag.run(accountId, functionName, key);
      for (const [key, value] of Object.entries(set)) this.#sql.insertTag.run(accountId, functionName, key, value);
    });
  }

  async usage(accountId: string): Promise<{ readonly functions: number; readonly codeBytes: number }> {
    const row = this.#sql.usage.get(accountId);
    return { functions: Number(row?.["functions"]), codeBytes: Number(row?.["bytes"]) };
  }

  async getReservedConcurrency(accountId: string, functionName: string): Promise<number | null> {
    const reserved = this.#sql.exists.get(accountId, functionName)?.["reserved_concurrency"];
    return reserved === null || reserved === undefined ? null : Number(reserved);
  }

  setReservedConcurrency(
    accountId: string,
    functionName: string,
    reserved: number | null,
    totalMax: number,
  ): Promise<"set" | "missing" | "exceeded"> {
    return this.#writes.run(() => {
      if (this.#sql.exists.get(accountId, functionName) === undefined) return "missing";
      const others = Number(this.#sql.reservedTotal.get(accountId, functionName)?.["total"]);
      if (reserved !== null && others + reserved > totalMax) return "exceeded";
      this.#sql.setReserved.run(reserved, accountId, functionName);
      return "set";
    });
  }

  async reservedConcurrency(accountId: string): Promise<number> {
    return Number(this.#sql.reservedTotal.get(accountId, "")?.["total"]);
  }

  async digestsInUse(): Promise<ReadonlySet<Digest>> {
    return new Set(this.#sql.digests.all().map((row) => String(row["digest"])));
  }

  #insertVersion(record: FunctionRecord, number: number): void {
    const { accountId, functionName, revisionId, code } = record;
    this.#sql.insertVersion.run(accountId, functionName, number, revisionId, code.bytes, JSON.stringify(record));
  }
}
