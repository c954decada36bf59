import type { DatabaseSync, StatementSync } from "node:sqlite";
import { sealOf } from "./seal.ts";

/** Hearth's own: how long a deleted function can be had back, and how many bytes such functions take at most. */
export const DELETED_KEEP_MS: number = 7 * 24 * 60 * 60_000;
export const DELETED_BYTES_MAX: number = 64 * 1024 * 1024;

const STATEMENTS = {
  functions: "SELECT * FROM functions WHERE account_id = ? AND function_name = ?",
  versions: "SELECT * FROM versions WHERE account_id = ? AND function_name = ?",
  tags: "SELECT * FROM tags WHERE account_id = ? AND function_name = ?",
  insert: `INSERT INTO deleted_functions (account_id, function_name, deleted_at_ms, content, seal)
    VALUES (?, ?, ?, ?, ?)`,
  expire: `DELETE FROM deleted_functions WHERE deleted_at_ms < ?1 OR sequence IN (SELECT sequence FROM
    (SELECT sequence, sum(length(content)) OVER (ORDER BY sequence DESC) AS bytes FROM deleted_functions)
    WHERE bytes > ?2)`,
} as const;

type Statements = Readonly<Record<keyof typeof STATEMENTS, StatementSync>>;

/** Bytes have no place in JSON: they are written as base64. */
const plain = (_name: string, value: unknown): unknown =>
  value instanceof Uint8Array ? { base64: Buffer.from(value).toString("base64") } : value;

/** Deleted functions, with all their rows as they were (variables encrypted), until they are old or too many. */
export class DeletedFunctions {
  readonly #sql: Statements;
  readonly #nowMs: () => number;

  constructor(database: DatabaseSync, nowMs: () => number) {
    // The keys are those of STATEMENTS, which the type of fromEntries cannot say.
    this.#sql = Object.fromEntries(
      Object.entries(STATEMENTS).map(([name, sql]) => [name, database.prepare(sql)]),
    ) as Statements;
    this.#nowMs = nowMs;
  }

  /** Copies a function that is about to be deleted. To be called within the transaction that deletes it. */
  throwAway(accountId: string, functionName: string): void {
    const rows = (statement: "functions" | "versions" | "tags"): unknown[] =>
      this.#sql[statement].all(accountId, functionName);
    const functions = rows("functions");
    if (functions.length === 0) return;
    const content = JSON.stringify({ functions, versions: rows("versions"), tags: rows("tags") }, plain);
    const deletedAtMs = this.#nowMs();
    const seal = sealOf(accountId, functionName, deletedAtMs, content);
    this.#sql.insert.run(accountId, functionName, deletedAtMs, content, seal);
    this.#sql.expire.run(deletedAtMs - DELETED_KEEP_MS, DELETED_BYTES_MAX);
  }
}
