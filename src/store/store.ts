import type { Digest } from "../wire/function.ts";

/** One version of a function as it is kept. `version` is "$LATEST" or a decimal number; numbered ones never change. */
export interface FunctionRecord {
  readonly accountId: string;
  readonly region: string;
  readonly functionName: string;
  readonly version: string;
  readonly revisionId: string;
  readonly runtime: string;
  readonly handler: string;
  readonly role: string;
  readonly description: string;
  readonly memoryMb: number;
  readonly timeoutS: number;
  readonly ephemeralMb: number;
  readonly environment: Readonly<Record<string, string>>;
  readonly architectures: readonly string[];
  readonly code: { readonly digest: Digest; readonly sha256Base64: string; readonly bytes: number };
  readonly layers: readonly { readonly arn: string; readonly digest: Digest; readonly bytes: number }[];
  readonly logging: {
    readonly format: "Text" | "JSON";
    readonly group: string;
    readonly applicationLevel: string | null;
    readonly systemLevel: string | null;
  };
  readonly tracingMode: "Active" | "PassThrough";
  readonly state: "Pending" | "Active" | "Inactive" | "Failed";
  readonly stateReason: string | null;
  readonly stateReasonCode: string | null;
  readonly lastUpdateStatus: "Successful" | "Failed" | "InProgress" | null;
  readonly lastUpdateStatusReason: string | null;
  readonly lastUpdateStatusReasonCode: string | null;
  /** Unix ms. */
  readonly lastModifiedMs: number;
  /** Members of the API's input that are accepted, kept and given back but have no effect yet, by their API name. */
  readonly extra: Readonly<Record<string, unknown>>;
  /**
   * What a store found wrong with what it keeps of this version; such a record is Failed, for the reason that is its
   * `stateReason`. `environment`: only its variables cannot be read, and giving them anew heals it; `settings`: what
   * stands beside the record, as its sentence says. Never stored.
   */
  readonly damage?: "record" | "environment" | "settings";
}

/** An accepted asynchronous invocation. */
export interface EventRecord {
  readonly eventId: string;
  readonly accountId: string;
  readonly functionName: string;
  /** The qualifier as the client gave it, or "$LATEST". */
  readonly qualifier: string;
  readonly payload: Uint8Array;
  /** In event time (see EventStore), ms. */
  readonly acceptedAtMs: number;
  /** Attempts that ended in a function error so far. */
  readonly attempts: number;
  /** Attempts that were throttled or failed in the service so far. */
  readonly throttles: number;
  readonly traceId: string | null;
}

/** Who claims events. An instance outlives its processes and has one at a time; an incarnation is that one process. */
export interface Claimer {
  readonly instance: string;
  readonly incarnation: string;
}

/** Whose events a part of the queue is: the queue is fair between functions, so it is asked for them one by one. */
export interface QueuedFunction {
  readonly accountId: string;
  readonly functionName: string;
}

/** Where in the pages of a list a caller is: opaque, made by the store. */
export interface Page<T> {
  readonly items: readonly T[];
  readonly nextMarker: string | null;
}

/** Functions, their versions and tags. Every method is durable when it resolves. */
export interface FunctionStore {
  /** Throws ResourceConflictException when the name is taken. */
  createFunction(record: FunctionRecord, tags: Readonly<Record<string, string>>): Promise<void>;
  /** null when there is none. */
  getFunction(accountId: string, functionName: string, version: string): Promise<FunctionRecord | null>;
  listFunctions(
    accountId: string,
    options: { readonly marker: string | null; readonly items: number; readonly allVersions: boolean },
  ): Promise<Page<FunctionRecord>>;
  listVersions(
    accountId: string,
    functionName: string,
    options: { readonly marker: string | null; readonly items: number },
  ): Promise<Page<FunctionRecord>>;
  /**
   * Replaces the record of its version if its revision is still `expectedRevision`; false when another change was first.
   * For $LATEST; a numbered version changes in its state only.
   */
  updateFunction(record: FunctionRecord, expectedRevision: string): Promise<boolean>;
  /**
   * Stores a numbered version, giving it the next number (numbers are never used twice), if the revision of $LATEST is
   * still `expectedRevision`. Returns the record as stored; null, having stored nothing, when another change or a deletion
   * was first: the code that the record names may be collected then.
   */
  publishVersion(record: FunctionRecord, expectedRevision: string): Promise<FunctionRecord | null>;
  /** Removes one numbered version, or (null) the function with everything. False when there was nothing. */
  deleteFunction(accountId: string, functionName: string, version: string | null): Promise<boolean>;
  getTags(accountId: string, functionName: string): Promise<Readonly<Record<string, string>> | null>;
  /** Sets and removes tags in one step. False, having changed nothing, when there is no such function. */
  changeTags(
    accountId: string,
    functionName: string,
    set: Readonly<Record<string, string>>,
    remove: readonly string[],
  ): Promise<boolean>;
  /** Count of functions and bytes of their code (zip), for GetAccountSettings. */
  usage(accountId: string): Promise<{ readonly functions: number; readonly codeBytes: number }>;
  /** Reserved concurrency of the function; null when it draws from the account's unreserved pool (or does not exist). */
  getReservedConcurrency(accountId: string, functionName: string): Promise<number | null>;
  /**
   * Sets (or with null removes) it, unless the account's total would then exceed `totalMax`. "missing" when there is no such function.
   */
  setReservedConcurrency(
    accountId: string,
    functionName: string,
    reserved: number | null,
    totalMax: number,
  ): Promise<"set" | "missing" | "exceeded">;
  /** What all functions of the account reserve together. */
  reservedConcurrency(accountId: string): Promise<number>;
  /** Digests that some function or version still uses. */
  digestsInUse(): Promise<ReadonlySet<Digest>>;
}

/**
 * The queue of asynchronous invocations. A claimed event that is not settled in time is given out again. Its times are
 * its callers': Unix ms minus an offset that is kept here, which is 0 until the wall clock is set for the first time.
 */
export interface EventStore {
  /** What was kept last; 0 when nothing was. */
  eventOffsetMs(): Promise<number>;
  /** Durable when it resolves. */
  keepEventOffset(offsetMs: number): Promise<void>;
  /** Makes events that are due later than `latestMs` due at that moment. */
  boundEvents(latestMs: number): Promise<void>;
  /** Durable when it resolves: only then may 202 be answered. */
  enqueue(event: EventRecord): Promise<void>;
  /**
   * Up to `count` events of a function that are due, those due longest first, hidden from other claims for `leaseMs`; and
   * the moment (Unix ms) when its next one is due, claimed ones included at the end of their lease; null when it has none.
   */
  claim(
    of: QueuedFunction,
    what: { readonly count: number; readonly nowMs: number; readonly leaseMs: number },
    claimer: Claimer,
  ): Promise<{ readonly events: readonly EventRecord[]; readonly nextDueMs: number | null }>;
  /** Functions that have events, claimed ones included, and when their next is due: up to `count` of them behind `after`. */
  queuedFunctions(
    after: QueuedFunction | null,
    count: number,
  ): Promise<readonly (QueuedFunction & { readonly dueMs: number })[]>;
  /**
   * Makes events due at once that an earlier incarnation of this instance had claimed when it ended: none of them runs
   * any more. Each counts as an attempt that failed in the service. Resolves to how many there were.
   */
  takeOver(claimer: Claimer, nowMs: number): Promise<number>;
  /** Keeps claimed events hidden until `untilMs`: called while their invocations run on. */
  renew(eventIds: readonly string[], untilMs: number): Promise<void>;
  /** The event is done with, well or badly. */
  settle(eventId: string): Promise<void>;
  /** Back to the queue, due at `dueAtMs`. */
  retry(event: EventRecord, dueAtMs: number): Promise<void>;
  /** When the next event is due, in ms; null when the queue is empty. */
  nextDueMs(): Promise<number | null>;
  /** How many events there are, claimed ones included, and when (in ms) the oldest was accepted; null with none. */
  backlog(): Promise<{ readonly waiting: number; readonly oldestAcceptedAtMs: number | null }>;
  /** The functions with the most events, claimed ones included: up to `count` of them, most first. */
  busiestFunctions(count: number): Promise<readonly (QueuedFunction & { readonly waiting: number })[]>;
}

export type Store = FunctionStore & EventStore & AsyncDisposable;
