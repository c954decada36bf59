import type { DatabaseSync } from "node:sqlite";
import type { EnvironmentKeys } from "../environment-keys.ts";
import { keyIdOf } from "../environment-keys.ts";
import type { FunctionRecord } from "../store.ts";
import { sealOfEvent } from "./events.ts";
import { RecordCodec, sealOfVersion } from "./records.ts";
import { eventOf } from "./rows.ts";
import type { Row } from "./rows.ts";
import { sealOf } from "./seal.ts";

/** A row that is not what was written, or cannot be read; `function` is whose it is. */
export interface DamagedRow {
  readonly table: "functions" | "versions" | "tags" | "version_counters" | "events" | "deleted_functions";
  readonly accountId: string;
  readonly functionName: string;
  /** Of a version, its number; of an event, its id; of a tag, its key. */
  readonly item: string | null;
}

const text = (row: Row, column: string): string => String(row[column]);
const numberOrNull = (row: Row, column: string): number | null => {
  const value = row[column];
  return value === null || value === undefined ? null : Number(value);
};

/** The seal that each row should have, by table. */
const SEALS: Readonly<Record<DamagedRow["table"], (row: Row) => number>> = {
  functions: (row) =>
    sealOf(text(row, "account_id"), text(row, "function_name"), numberOrNull(row, "reserved_concurrency")),
  versions: sealOfVersion,
  tags: (row) =>
    sealOf(text(row, "account_id"), text(row, "function_name"), text(row, "tag_key"), text(row, "tag_value")),
  version_counters: (row) => sealOf(text(row, "account_id"), text(row, "function_name"), Number(row["last_number"])),
  events: (row) => sealOfEvent(eventOf(row)),
  deleted_functions: (row) =>
    sealOf(text(row, "account_id"), text(row, "function_name"), Number(row["deleted_at_ms"]), text(row, "content")),
};

const ITEMS: Readonly<Partial<Record<DamagedRow["table"], string>>> = {
  versions: "version_number",
  tags: "tag_key",
  events: "event_id",
};

/** The columns that name a row, by table. */
const KEYS: Readonly<Record<DamagedRow["table"], readonly string[]>> = {
  functions: ["account_id", "function_name"],
  versions: ["account_id", "function_name", "version_number"],
  tags: ["account_id", "function_name", "tag_key"],
  version_counters: ["account_id", "function_name"],
  events: ["sequence"],
  deleted_functions: ["sequence"],
};

export const FUNCTION_TABLES: readonly DamagedRow["table"][] = ["functions", "versions", "tags", "version_counters"];
export const ALL_TABLES: readonly DamagedRow["table"][] = [...FUNCTION_TABLES, "events", "deleted_functions"];

/** Reads whole tables and compares every row with its seal. */
export const findDamage = (database: DatabaseSync, tables: readonly DamagedRow["table"][]): DamagedRow[] => {
  const found: DamagedRow[] = [];
  for (const table of tables) {
    for (const row of database.prepare(`SELECT * FROM ${table}`).iterate()) {
      if (row["seal"] === SEALS[table](row)) continue;
      const column = ITEMS[table];
      const item = column === undefined ? null : text(row, column);
      found.push({ table, accountId: text(row, "account_id"), functionName: text(row, "function_name"), item });
    }
  }
  return found;
};

/** Gives rows the seals that belong to what stands in them now. */
export const sealTable = (database: DatabaseSync, table: DamagedRow["table"]): void => {
  const where = KEYS[table].map((column) => `${column} = ?`).join(" AND ");
  const update = database.prepare(`UPDATE ${table} SET seal = ? WHERE ${where}`);
  for (const row of database.prepare(`SELECT * FROM ${table}`).all()) {
    update.run(SEALS[table](row), ...KEYS[table].map((column) => row[column] ?? null));
  }
};

/** Brings the rows of a database that had neither seals nor encryption to their present form. */
export const sealAll = (database: DatabaseSync, keys: EnvironmentKeys): void => {
  const codec = new RecordCodec(keys);
  const update = database.prepare(`UPDATE versions SET record = ?, environment = ?, seal = ?
    WHERE account_id = ? AND function_name = ? AND version_number = ?`);
  for (const row of database.prepare("SELECT * FROM versions").all()) {
    const key = [text(row, "account_id"), text(row, "function_name"), Number(row["version_number"])] as const;
    const record = parsed(text(row, "record"));
    // One that was damaged before gets no seal, so that it shows as damaged.
    if (record === null) continue;
    const { record: stored, environment, seal } = codec.encode(record);
    update.run(stored, environment, seal, ...key);
  }
  for (const table of ALL_TABLES) if (table !== "versions") sealTable(database, table);
};

const parsed = (json: string): FunctionRecord | null => {
  try {
    return JSON.parse(json) as FunctionRecord;
  } catch {
    return null;
  }
};

/** Encrypts under the newest key what lies under an older one. Returns how many environments that were. */
export const renewEncryption = (database: DatabaseSync, keys: EnvironmentKeys): number => {
  const codec = new RecordCodec(keys);
  const update = database.prepare(`UPDATE versions SET environment = ?, seal = ?
    WHERE account_id = ? AND function_name = ? AND version_number = ?`);
  let renewed = 0;
  for (const row of database.prepare("SELECT * FROM versions WHERE environment IS NOT NULL").all()) {
    const { environment } = row;
    if (!(environment instanceof Uint8Array) || keyIdOf(environment) === keys.currentId) continue;
    const record = codec.decode(row);
    if (record.damage !== undefined) continue;
    const made = codec.encode(record);
    update.run(made.environment, made.seal, record.accountId, record.functionName, Number(row["version_number"]));
    renewed += 1;
  }
  return renewed;
};
