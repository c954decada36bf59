import type { FunctionRecord } from "../store/store.ts";
import { ServiceError } from "../wire/errors.ts";
import { functionArn } from "./api/names.ts";
import type { FunctionCache } from "./function-cache.ts";
import type { Dependencies } from "./services.ts";

/*
 * The states a function passes through: Pending → Active after its creation, InProgress → Successful after a change.
 * Code and image are durable before a record names them, so what is left to do is little; but a process may end in
 * between, and then the next start does it.
 */

const REPAIR_PAGE = 1_000;

type StateFields = Pick<
  FunctionRecord,
  | "state"
  | "stateReason"
  | "stateReasonCode"
  | "lastUpdateStatus"
  | "lastUpdateStatusReason"
  | "lastUpdateStatusReasonCode"
>;

const BEING_CREATED = "The function is being created.";

/** State of a function that was just created. */
export const CREATING: StateFields = {
  state: "Pending",
  stateReason: BEING_CREATED,
  stateReasonCode: "Creating",
  lastUpdateStatus: null,
  lastUpdateStatusReason: null,
  lastUpdateStatusReasonCode: null,
};

/** State of a function, or of a published version, with which all is well. */
export const SETTLED: StateFields = {
  state: "Active",
  stateReason: null,
  stateReasonCode: null,
  lastUpdateStatus: "Successful",
  lastUpdateStatusReason: null,
  lastUpdateStatusReasonCode: null,
};

/** What a change of code or configuration adds to a function's state. */
export const UPDATING: Partial<StateFields> = {
  lastUpdateStatus: "InProgress",
  lastUpdateStatusReason: BEING_CREATED,
  lastUpdateStatusReasonCode: "Creating",
};

const CODE_MISSING = "The function's code is missing from the code store. Upload it again.";

const failed = (record: FunctionRecord): StateFields =>
  record.state === "Pending"
    ? { ...CREATING, state: "Failed", stateReason: CODE_MISSING, stateReasonCode: "InternalError" }
    : {
        ...SETTLED,
        lastUpdateStatus: "Failed",
        lastUpdateStatusReason: CODE_MISSING,
        lastUpdateStatusReasonCode: "InternalError",
      };

const isUnsettled = (record: FunctionRecord): boolean =>
  record.state === "Pending" || record.lastUpdateStatus === "InProgress";

/** Throws ResourceConflictException while a function may not be changed. */
export const assertSettled = (record: FunctionRecord): void => {
  if (record.state === "Pending") {
    throw new ServiceError(
      "ResourceConflictException",
      409,
      "The operation cannot be performed at this time. The function is currently in the following state: Pending",
      { Type: "User" },
    );
  }
  if (record.lastUpdateStatus === "InProgress") throw updateInProgress(record);
};

/**
 * Throws ResourceConflictException for a record that is damaged: a change of it would make the damage a value. `healing`
 * is the damage that the change puts right.
 */
export const assertWhole = (record: FunctionRecord, healing: FunctionRecord["damage"] | null = null): void => {
  if (record.damage === undefined || record.damage === healing) return;
  throw new ServiceError(
    "ResourceConflictException",
    409,
    `The operation cannot be performed at this time. ${record.stateReason ?? "The function is damaged."}`,
    { Type: "User" },
  );
};

/** Somebody else's change came first. */
export const updateInProgress = (record: FunctionRecord): ServiceError =>
  new ServiceError(
    "ResourceConflictException",
    409,
    `The operation cannot be performed at this time. An update is in progress for resource: ${functionArn(record, record.functionName)}`,
    { Type: "User" },
  );

/** Brings functions from Pending and InProgress to their ends. */
export class Lifecycle {
  readonly #services: Pick<Dependencies, "store" | "code" | "log" | "config">;
  readonly #cache: FunctionCache;
  readonly #running = new Map<string, Promise<void>>();

  constructor(services: Pick<Dependencies, "store" | "code" | "log" | "config">, cache: FunctionCache) {
    this.#services = services;
    this.#cache = cache;
  }

  /** Starts settling a record; `settled` tells when that is over. */
  settle(record: FunctionRecord): void {
    const { functionName } = record;
    const running = this.#settle(record)
      .catch((error: unknown) => {
        this.#services.log.error({ err: error, functionName }, "a function's state could not be settled");
      })
      .finally(() => {
        if (this.#running.get(functionName) === running) this.#running.delete(functionName);
      });
    this.#running.set(functionName, running);
  }

  /** Resolves when nothing of this function is under way in this process. */
  async settled(functionName: string): Promise<void> {
    await this.#running.get(functionName);
  }

  /** Ends what a crash left Pending or InProgress. */
  async repair(): Promise<void> {
    const { store, config, log } = this.#services;
    let marker: string | null = null;
    do {
      const options = { marker, items: REPAIR_PAGE, allVersions: true };
      const page = await store.listFunctions(config.accountId, options);
      for (const record of page.items) {
        if (!isUnsettled(record)) continue;
        await this.#settle(record);
        log.warn({ functionName: record.functionName }, "settled a function that was interrupted");
      }
      marker = page.nextMarker;
    } while (marker !== null);
  }

  /** Waits for everything under way. */
  async drain(): Promise<void> {
    await Promise.all(this.#running.values());
  }

  async #settle(record: FunctionRecord): Promise<void> {
    const { store, code } = this.#services;
    const image = await code.get(record.code.digest);
    // The revision stays: warm slots made meanwhile go on serving. A change that came first has settled itself.
    const change = image === null ? failed(record) : SETTLED;
    await store.updateFunction({ ...record, ...change }, record.revisionId);
    this.#cache.forget(record.functionName);
  }
}
