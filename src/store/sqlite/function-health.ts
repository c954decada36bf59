import type { DatabaseSync } from "node:sqlite";
import type { FunctionRecord } from "../store.ts";
import { FUNCTION_TABLES, findDamage } from "./sealing.ts";
import type { DamagedRow } from "./sealing.ts";

/** What of a function is damaged, as its owner is told. */
const SENTENCES: Readonly<Partial<Record<DamagedRow["table"], string>>> = {
  functions: "The reserved concurrency of this function is damaged in Hearth's database. Set it again.",
  tags: "The tags of this function are damaged in Hearth's database. Set or remove them again.",
  version_counters:
    "The number of this function's last version is damaged in Hearth's database. Restore a backup, or run `hearth check --repair`.",
};

/**
 * Which functions have damaged rows beside their records. Looked for once, at opening: later reads cannot tell, for these
 * rows are read one column at a time. (A record is compared with its seal whenever it is read.)
 */
export class FunctionHealth {
  readonly #problems = new Map<string, string>();

  constructor(database: DatabaseSync, onDamage: (message: string) => void) {
    for (const { table, accountId, functionName, item } of findDamage(database, FUNCTION_TABLES)) {
      const what = item === null ? table : `${table} ${item}`;
      onDamage(`The function ${functionName} is damaged in the database (${what}); it is not served.`);
      const sentence = SENTENCES[table];
      if (sentence !== undefined) this.#problems.set(keyOf(accountId, functionName), sentence);
    }
  }

  /** A record as it may be used. */
  applied(record: FunctionRecord): FunctionRecord {
    const why = this.#problems.get(keyOf(record.accountId, record.functionName));
    if (why === undefined || record.damage !== undefined) return record;
    return { ...record, state: "Failed", stateReason: why, stateReasonCode: "InternalError", damage: "settings" };
  }

  /** What was damaged has been written anew. */
  forget(accountId: string, functionName: string): void {
    this.#problems.delete(keyOf(accountId, functionName));
  }
}

const keyOf = (accountId: string, functionName: string): string => `${accountId}/${functionName}`;
