import { UnreadableError } from "../environment-keys.ts";
import type { EnvironmentKeys } from "../environment-keys.ts";
import type { FunctionRecord } from "../store.ts";
import { nameOf, versionNumber } from "./rows.ts";
import type { Row } from "./rows.ts";
import { sealOf } from "./seal.ts";

/** What a version's row holds beside its key. */
export interface RecordColumns {
  readonly revisionId: string;
  readonly codeBytes: number;
  readonly record: string;
  readonly environment: Uint8Array<ArrayBuffer> | null;
  readonly seal: number;
}

const MIB_128 = 128;

/** What is shown of a version of which nothing can be read. */
const UNKNOWN: Omit<FunctionRecord, "accountId" | "functionName" | "version" | "revisionId"> = {
  region: "us-east-1",
  runtime: "",
  handler: "",
  role: "",
  description: "",
  memoryMb: MIB_128,
  timeoutS: 3,
  ephemeralMb: 512,
  environment: {},
  architectures: ["x86_64"],
  code: { digest: "", sha256Base64: "", bytes: 0 },
  layers: [],
  logging: { format: "Text", group: "", applicationLevel: null, systemLevel: null },
  tracingMode: "PassThrough",
  state: "Failed",
  stateReason: null,
  stateReasonCode: "InternalError",
  lastUpdateStatus: "Failed",
  lastUpdateStatusReason: null,
  lastUpdateStatusReasonCode: "InternalError",
  lastModifiedMs: 0,
  extra: {},
};

const isObject = (value: unknown): value is Partial<FunctionRecord> =>
  typeof value === "object" && value !== null && !Array.isArray(value);

/** What can still be read of a damaged record: for showing it, never for running it. */
const legible = (text: string): Partial<FunctionRecord> => {
  try {
    const value: unknown = JSON.parse(text);
    if (!isObject(value)) return {};
    const known = Object.entries(UNKNOWN).filter(([name, like]) => {
      const found: unknown = Reflect.get(value, name);
      return typeof found === typeof like && found !== null && Array.isArray(found) === Array.isArray(like);
    });
    return Object.fromEntries(known.map(([name]) => [name, Reflect.get(value, name)]));
  } catch {
    const region = /"region":"(?<region>[a-z0-9-]+)"/.exec(text)?.groups?.["region"];
    return region === undefined ? {} : { region };
  }
};

const damaged = (row: Row, why: string, damage: "record" | "environment"): FunctionRecord => ({
  ...UNKNOWN,
  ...legible(String(row["record"])),
  accountId: String(row["account_id"]),
  functionName: String(row["function_name"]),
  version: nameOf(Number(row["version_number"])),
  revisionId: String(row["revision_id"]),
  environment: {},
  state: "Failed",
  stateReason: why,
  stateReasonCode: "InternalError",
  damage,
});

const DAMAGED_RECORD =
  "The record of this function is damaged in Hearth's database. Restore a backup, or delete the function and create it again.";

/** Records as rows: sealed, and their variables encrypted. What cannot be trusted comes out as a Failed record. */
export class RecordCodec {
  readonly #keys: EnvironmentKeys;

  constructor(keys: EnvironmentKeys) {
    this.#keys = keys;
  }

  encode(given: FunctionRecord): RecordColumns {
    const { damage: _, ...kept } = given;
    const number = versionNumber(kept.version);
    if (number === null) throw new RangeError(`No version number: ${kept.version}`);
    const { accountId, functionName, revisionId, environment: variables } = kept;
    const record = JSON.stringify({ ...kept, environment: {} });
    const environment =
      Object.keys(variables).length === 0
        ? null
        : this.#keys.encrypt(variables, aboutOf(accountId, functionName, number));
    const seal = sealOfVersion({
      account_id: accountId,
      function_name: functionName,
      version_number: number,
      revision_id: revisionId,
      code_bytes: kept.code.bytes,
      record,
      environment,
    });
    return { revisionId, codeBytes: kept.code.bytes, record, environment, seal };
  }

  decode(row: Row): FunctionRecord {
    if (row["seal"] !== sealOfVersion(row)) return damaged(row, DAMAGED_RECORD, "record");
    const { environment } = row;
    // The row is sealed, so it is what was written.
    const record = JSON.parse(String(row["record"])) as FunctionRecord;
    if (!(environment instanceof Uint8Array)) return record;
    const about = aboutOf(String(row["account_id"]), String(row["function_name"]), Number(row["version_number"]));
    try {
      return { ...record, environment: this.#keys.decrypt(environment, about) };
    } catch (error) {
      if (error instanceof UnreadableError) return damaged(row, error.message, "environment");
      throw error;
    }
  }
}

const aboutOf = (accountId: string, functionName: string, number: number): string =>
  `${accountId}/${functionName}/${number}`;

export const sealOfVersion = (row: Row): number => {
  const { environment } = row;
  return sealOf(
    String(row["account_id"]),
    String(row["function_name"]),
    Number(row["version_number"]),
    String(row["revision_id"]),
    Number(row["code_bytes"]),
    String(row["record"]),
    environment instanceof Uint8Array ? environment : null,
  );
};
