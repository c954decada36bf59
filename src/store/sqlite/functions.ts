import type { DatabaseSync, StatementSync } from "node:sqlite";
import type { Digest } from "../../wire/function.ts";
import { ServiceError } from "../../wire/errors.ts";
import type { FunctionRecord, FunctionStore, Page } from "../store.ts";
import type { GroupCommit } from "./group-commit.ts";
import type { DeletedFunctions } from "./deleted-functions.ts";
import type { FunctionHealth } from "./function-health.ts";
import { isDiskFull } from "./disk-full.ts";
import { sealOfVersion } from "./records.ts";
import type { RecordCodec } from "./records.ts";
import { decodeMarker, encodeMarker, versionNumber } from "./rows.ts";
import type { Row } from "./rows.ts";
import { sealOf } from "./seal.ts";

const STATEMENTS = {
  insertFunction: "INSERT OR IGNORE INTO functions (account_id, function_name, seal) VALUES (?, ?, ?)",
  insertVersion: `INSERT INTO versions (account_id, function_name, version_number, revision_id, code_bytes, record,
    environment, seal) VALUES (?, ?, ?, ?, ?, ?, ?, ?)`,
  insertTag: `INSERT OR REPLACE INTO tags (account_id, function_name, tag_key, tag_value, seal)
    VALUES (?, ?, ?, ?, ?)`,
  deleteTag: "DELETE FROM tags WHERE account_id = ? AND function_name = ? AND tag_key = ?",
  tags: "SELECT tag_key, tag_value FROM tags WHERE account_id = ? AND function_name = ? ORDER BY tag_key",
  get: "SELECT * FROM versions WHERE account_id = ? AND function_name = ? AND version_number = ?",
  exists: "SELECT reserved_concurrency FROM functions WHERE account_id = ? AND function_name = ?",
  listLatest: `SELECT * FROM versions WHERE account_id = ?1 AND version_number = 0
    AND function_name > ?2 ORDER BY function_name LIMIT ?3`,
  listAll: `SELECT * FROM versions WHERE account_id = ?1
    AND (function_name, version_number) > (?2, ?3) ORDER BY function_name, version_number LIMIT ?4`,
  listVersions: `SELECT * FROM versions WHERE account_id = ?1 AND function_name = ?2
    AND version_number > ?3 ORDER BY version_number LIMIT ?4`,
  update: `UPDATE versions SET revision_id = ?1, code_bytes = ?2, record = ?3, environment = ?4, seal = ?5
    WHERE account_id = ?6 AND function_name = ?7 AND version_number = ?8 AND revision_id = ?9`,
  lastNumber: "SELECT last_number FROM version_counters WHERE account_id = ? AND function_name = ?",
  setLastNumber: `INSERT OR REPLACE INTO version_counters (account_id, function_name, last_number, seal)
    VALUES (?, ?, ?, ?)`,
  deleteFunction: "DELETE FROM functions WHERE account_id = ? AND function_name = ?",
  deleteVersion: "DELETE FROM versions WHERE account_id = ? AND function_name = ? AND version_number = ?",
  usage: `SELECT count(*) FILTER (WHERE version_number = 0) AS functions, coalesce(sum(code_bytes), 0) AS bytes
    FROM versions WHERE account_id = ?`,
  everything: "SELECT * FROM versions",
  reservedTotal: `SELECT coalesce(sum(reserved_concurrency), 0) AS total FROM functions
    WHERE account_id = ? AND function_name <> ?`,
  setReserved: "UPDATE functions SET reserved_concurrency = ?, seal = ? WHERE account_id = ? AND function_name = ?",
} as const;

type Statements = Readonly<Record<keyof typeof STATEMENTS, StatementSync>>;

const prepareAll = (database: DatabaseSync): Statements =>
  // The keys are those of STATEMENTS, which the type of fromEntries cannot say.
  Object.fromEntries(Object.entries(STATEMENTS).map(([name, sql]) => [name, database.prepare(sql)])) as Statements;

/** One more than a page is read, to know whether another page follows. */
const pageOf = (rows: readonly Row[], items: number, decode: (row: Row) => FunctionRecord): Page<FunctionRecord> => {
  const shown = rows.slice(0, items);
  const last = rows.length > items ? shown.at(-1) : undefined;
  return {
    items: shown.map(decode),
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
  readonly #codec: RecordCodec;
  readonly #trash: DeletedFunctions;
  readonly #health: FunctionHealth;
  readonly #decode = (row: Row): FunctionRecord => this.#health.applied(this.#codec.decode(row));

  constructor(
    database: DatabaseSync,
    writes: GroupCommit,
    codec: RecordCodec,
    trash: DeletedFunctions,
    health: FunctionHealth,
  ) {
    this.#sql = prepareAll(database);
    this.#writes = writes;
    this.#codec = codec;
    this.#trash = trash;
    this.#health = health;
  }

  createFunction(record: FunctionRecord, tags: Readonly<Record<string, string>>): Promise<void> {
    return this.#writes.run(() => {
      const { accountId, functionName } = record;
      if (this.#sql.insertFunction.run(accountId, functionName, sealOf(accountId, functionName, null)).changes === 0) {
        throw new ServiceError("ResourceConflictException", 409, `Function already exist: ${functionName}`, {
          Type: "User",
        });
      }
      this.#insertVersion(record, 0);
      this.#insertTags(accountId, functionName, tags);
    });
  }

  async getFunction(accountId: string, functionName: string, version: string): Promise<FunctionRecord | null> {
    const number = versionNumber(version);
    const row = number === null ? undefined : this.#sql.get.get(accountId, functionName, number);
    return row === undefined ? null : this.#decode(row);
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
    return pageOf(rows, options.items, this.#decode);
  }

  async listVersions(
    accountId: string,
    functionName: string,
    options: { readonly marker: string | null; readonly items: number },
  ): Promise<Page<FunctionRecord>> {
    const { number } = decodeMarker(options.marker);
    const rows = this.#sql.listVersions.all(accountId, functionName, number, options.items + 1);
    return pageOf(rows, options.items, this.#decode);
  }

  updateFunction(record: FunctionRecord, expectedRevision: string): Promise<boolean> {
    return this.#writes.run(() => {
      const number = versionNumber(record.version);
      if (number === null) throw new RangeError(`No version number: ${record.version}`);
      const { accountId, functionName } = record;
      const { revisionId, codeBytes, record: text, environment, seal } = this.#codec.encode(record);
      const values = [revisionId, codeBytes, text, environment, seal, accountId, functionName, number] as const;
      return this.#sql.update.run(...values, expectedRevision).changes === 1;
    });
  }

  publishVersion(record: FunctionRecord, expectedRevision: string): Promise<FunctionRecord | null> {
    return this.#writes.run(() => {
      const { accountId, functionName } = record;
      if (this.#sql.get.get(accountId, functionName, 0)?.["revision_id"] !== expectedRevision) return null;
      const number = Number(this.#sql.lastNumber.get(accountId, functionName)?.["last_number"] ?? 0) + 1;
      this.#sql.setLastNumber.run(accountId, functionName, number, sealOf(accountId, functionName, number));
      const stored: FunctionRecord = { ...record, version: String(number) };
      this.#insertVersion(stored, number);
      return stored;
    });
  }

  async deleteFunction(accountId: string, functionName: string, version: string | null): Promise<boolean> {
    try {
      return await this.#delete(accountId, functionName, version, true);
    } catch (error) {
      // A full disk has no room for a trash, and deleting is what makes room.
      if (!isDiskFull(error)) throw error;
      return this.#delete(accountId, functionName, version, false);
    }
  }

  #delete(accountId: string, functionName: string, version: string | null, keep: boolean): Promise<boolean> {
    const remove = (): boolean => {
      if (version === null) {
        if (keep) this.#trash.throwAway(accountId, functionName);
        this.#health.forget(accountId, functionName);
        return this.#sql.deleteFunction.run(accountId, functionName).changes === 1;
      }
      const number = versionNumber(version);
      if (number === null || number === 0) return false;
      return this.#sql.deleteVersion.run(accountId, functionName, number).changes === 1;
    };
    return keep ? this.#writes.run(remove) : this.#writes.runOnReserve(remove);
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
  ): Promise<boolean> {
    return this.#writes.run(() => {
      if (this.#sql.exists.get(accountId, functionName) === undefined) return false;
      this.#health.forget(accountId, functionName);
      for (const key of remove) this.#sql.deleteTag.run(accountId, functionName, key);
      this.#insertTags(accountId, functionName, set);
      return true;
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
      this.#health.forget(accountId, functionName);
      this.#sql.setReserved.run(reserved, sealOf(accountId, functionName, reserved), accountId, functionName);
      return "set";
    });
  }

  async reservedConcurrency(accountId: string): Promise<number> {
    return Number(this.#sql.reservedTotal.get(accountId, "")?.["total"]);
  }

  async digestsInUse(): Promise<ReadonlySet<Digest>> {
    const digests = new Set<Digest>();
    for (const row of this.#sql.everything.iterate()) {
      // Any digest that a damaged record mentions is one that it may name.
      for (const [digest] of String(row["record"]).matchAll(/[0-9a-f]{64}/g)) digests.add(digest);
      if (row["seal"] !== sealOfVersion(row)) throw new DamagedRecordError(String(row["function_name"]));
    }
    return digests;
  }

  #insertTags(accountId: string, functionName: string, tags: Readonly<Record<string, string>>): void {
    for (const [key, value] of Object.entries(tags)) {
      this.#sql.insertTag.run(accountId, functionName, key, value, sealOf(accountId, functionName, key, value));
    }
  }

  #insertVersion(record: FunctionRecord, number: number): void {
    const { accountId, functionName } = record;
    const { revisionId, codeBytes, record: text, environment, seal } = this.#codec.encode(record);
    const values = [accountId, functionName, number, revisionId, codeBytes, text, environment, seal] as const;
    this.#sql.insertVersion.run(...values);
  }
}

/** Which code is in use cannot be said while a record cannot be read: nothing is unused then. */
export class DamagedRecordError extends Error {
  override readonly name = "DamagedRecordError";

  constructor(functionName: string) {
    super(
      `The record of the function ${functionName} is damaged: no code is collected until it is deleted or restored.`,
    );
  }
}
