import type { CodeStore } from "../store/code.ts";
import type { FunctionRecord, Store } from "../store/store.ts";
import { functionNotFound } from "../wire/errors.ts";
import type { FunctionSpec } from "../wire/function.ts";
import { FUNCTION_CACHE_MS } from "../wire/limits.ts";
import type { ReusePolicy } from "../wire/slot.ts";
import { functionArn, LATEST } from "./api/names.ts";
import type { Clock } from "../lib/clock.ts";
import { withHealth } from "./record-health.ts";
import type { FrontendConfig } from "./services.ts";

/** Tag on a function: `never` gives every invocation a fresh microVM, `always` lets slots serve again. */
export const REUSE_TAG = "hearth:reuse";

const MS_PER_S = 1_000;
/** More functions than this in a second are looked up anew: memory stays bounded. */
const ENTRIES_MAX = 10_000;

/** A version of a function as the invoke path needs it. */
export interface FunctionTarget {
  readonly record: FunctionRecord;
  readonly spec: FunctionSpec;
  readonly reservedConcurrency: number | null;
}

/** How a function's slots are used: by its tag, else as the installation says. */
export const reusePolicy = (tags: Readonly<Record<string, string>>, byDefault: ReusePolicy): ReusePolicy => {
  const tag = tags[REUSE_TAG];
  return tag === "always" || tag === "never" ? tag : byDefault;
};

/** What a worker needs of a record. The revision names the reuse policy too: slots of another policy never serve it. */
export const specOf = (record: FunctionRecord, reuse: ReusePolicy): FunctionSpec => ({
  functionArn: functionArn(record, record.functionName),
  functionName: record.functionName,
  version: record.version,
  revision: reuse === "never" ? `${record.revisionId}-never` : record.revisionId,
  accountId: record.accountId,
  region: record.region,
  runtime: record.runtime,
  handler: record.handler,
  memoryMb: record.memoryMb,
  timeoutMs: record.timeoutS * MS_PER_S,
  ephemeralMb: record.ephemeralMb,
  environment: record.environment,
  code: record.code.digest,
  layers: record.layers.map((layer) => layer.digest),
  logGroup: record.logging.group,
  logFormat: record.logging.format,
  reuse,
});

/**
 * Records and specs of functions in use, so that a warm invocation asks no database. What this Frontend changes is
 * forgotten at once; what another one changes, within FUNCTION_CACHE_MS.
 */
export class FunctionCache {
  readonly #store: Store;
  readonly #code: Pick<CodeStore, "get" | "problem">;
  readonly #config: FrontendConfig;
  readonly #clock: Clock;
  /** `untilMs` is on the monotonic clock. */
  readonly #entries = new Map<string, { readonly target: FunctionTarget; readonly untilMs: number }>();
  /** Counts changes, so that a lookup that began before one does not bring the old record back. */
  #changes = 0;

  constructor(store: Store, code: Pick<CodeStore, "get" | "problem">, config: FrontendConfig, clock: Clock) {
    this.#store = store;
    this.#code = code;
    this.#config = config;
    this.#clock = clock;
  }

  /** Throws ResourceNotFoundException when there is no such function or version. */
  async get(functionName: string, qualifier: string | null): Promise<FunctionTarget> {
    const version = qualifier ?? LATEST;
    const key = `${functionName}:${version}`;
    const now = this.#clock.monotonicMs();
    const entry = this.#entries.get(key);
    if (entry !== undefined && entry.untilMs > now) return entry.target;
    const changes = this.#changes;
    const target = await this.#load(functionName, version, qualifier);
    if (changes === this.#changes) {
      if (this.#entries.size >= ENTRIES_MAX) this.#entries.clear();
      this.#entries.set(key, { target, untilMs: now + FUNCTION_CACHE_MS });
    }
    return target;
  }

  /** Forgets every version of a function. */
  forget(functionName: string): void {
    this.#changes += 1;
    for (const [key, { target }] of this.#entries) {
      if (target.record.functionName === functionName) this.#entries.delete(key);
    }
  }

  async #load(functionName: string, version: string, qualifier: string | null): Promise<FunctionTarget> {
    const { accountId } = this.#config;
    const record = await this.#store.getFunction(accountId, functionName, version);
    if (record === null) throw functionNotFound(functionArn(this.#config, functionName, qualifier));
    // Code that was lost may be back.
    if (this.#code.problem(record.code.digest) !== null) await this.#code.get(record.code.digest);
    const tags = (await this.#store.getTags(accountId, functionName)) ?? {};
    const reservedConcurrency = await this.#store.getReservedConcurrency(accountId, functionName);
    return {
      record: withHealth(this.#code, record),
      spec: specOf(record, reusePolicy(tags, this.#config.reuse)),
      reservedConcurrency,
    };
  }
}
