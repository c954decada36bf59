import type { FunctionRecord } from "../store/store.ts";
import { ServiceError } from "../wire/errors.ts";
import { SETTLE_RETRY_MS_MAX, SETTLE_RETRY_MS_MIN } from "../wire/limits.ts";
import { functionArn } from "./api/names.ts";
import type { FunctionCache } from "./function-cache.ts";
import type { Dependencies } from "./services.ts";

/*
 * The states a function passes through: Pending → Active after its creation, InProgress → Successful after a change.
 * Code and image are durable before a record names them, so what is left to do is little; but the store may fail just
 * then, and it is tried again until it works; or the process may end in between, and then the next start does it.
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

type Services = Pick<Dependencies, "store" | "code" | "clock" | "log" | "config">;

/** Brings functions from Pending and InProgress to their ends. */
export class Lifecycle {
  readonly #services: Services;
  readonly #cache: FunctionCache;
  readonly #running = new Map<string, Promise<void>>();
  /** What fails from then on is left to the next start. */
  readonly #draining = new AbortController();

  constructor(services: Services, cache: FunctionCache) {
    this.#services = services;
    this.#cache = cache;
  }

  /** Starts settling a record; `settled` tells when that is over. A store that fails is asked again until it does not. */
  settle(record: FunctionRecord): void {
    const { functionName } = record;
    const running = this.#settleInTheEnd(record).finally(() => {
      if (this.#running.get(functionName) === running) this.#running.delete(functionName);
    });
    this.#running.set(functionName, running);
  }

  /** Resolves when nothing of this function is under way in this process. */
  async settled(functionName: string): Promise<void> {
    await this.#running.get(functionName);
  }

  /** Ends what a crash left Pending or InProgress. What the store refuses to take now is settled later. */
  async repair(): Promise<void> {
    const { store, config, log } = this.#services;
    let marker: string | null = null;
    do {
      const options = { marker, items: REPAIR_PAGE, allVersions: true };
      const page = await store.listFunctions(config.accountId, options);
      for (const record of page.items) {
        if (!isUnsettled(record)) continue;
        const { functionName } = record;
        try {
          await this.#settle(record);
          log.warn({ functionName }, "settled a function that was interrupted");
        } catch (error) {
          log.error({ err: error, functionName }, "a function that was interrupted could not be settled yet");
          this.settle(record);
        }
      }
      marker = page.nextMarker;
    } while (marker !== null);
  }

  /** Waits for everything under way. Nothing is tried again any more. */
  async drain(): Promise<void> {
    this.#draining.abort();
    await Promise.all(this.#running.values());
  }

  async #settleInTheEnd(record: FunctionRecord): Promise<void> {
    const { clock, log } = this.#services;
    const { functionName } = record;
    for (let delayMs = SETTLE_RETRY_MS_MIN; ; delayMs = Math.min(2 * delayMs, SETTLE_RETRY_MS_MAX)) {
      try {
        return await this.#settle(record);
      } catch (error) {
        log.error({ err: error, functionName, delayMs }, "a function's state could not be settled; it is tried again");
      }
      await clock.sleep(delayMs, this.#draining.signal);
      // The next start does it: it is the first thing that it does.
      if (this.#draining.signal.aborted) return;
    }
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
