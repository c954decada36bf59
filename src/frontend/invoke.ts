import { ServiceError } from "../wire/errors.ts";
import type { InvocationRequest, InvocationResult, InvocationStream } from "../wire/invocation.ts";
import { PENDING_WAIT_MS_MAX } from "../wire/limits.ts";
import type { ReleaseOutcome, SlotLease } from "../wire/roles.ts";
import type { InvokeOutcome } from "../telemetry/index.ts";
import { functionArn } from "./api/names.ts";
import type { FunctionCache, FunctionTarget } from "./function-cache.ts";
import { assertSettled } from "./lifecycle.ts";
import type { Lifecycle } from "./lifecycle.ts";
import type { Dependencies } from "./services.ts";

export interface InvokeServices extends Dependencies {
  readonly functions: FunctionCache;
  readonly lifecycle: Lifecycle;
}

/** One invocation as somebody asked for it: a client, or the asynchronous queue. */
export interface InvokeCall {
  readonly functionName: string;
  readonly qualifier: string | null;
  readonly requestId: string;
  readonly payload: Uint8Array;
  /** JSON text, decoded. */
  readonly clientContext: string | null;
  readonly traceId: string | null;
}

const TOO_MANY_REQUESTS = 429;

/** The version to run, once it may run. Throws ResourceNotFoundException, and ResourceConflictException while it may not. */
export const findTarget = async (
  { functions, lifecycle, clock }: Pick<InvokeServices, "functions" | "lifecycle" | "clock">,
  functionName: string,
  qualifier: string | null,
): Promise<FunctionTarget> => {
  const target = await functions.get(functionName, qualifier);
  if (target.record.state === "Active") return target;
  if (target.record.state === "Pending") {
    const over = new AbortController();
    await Promise.race([lifecycle.settled(functionName), clock.sleep(PENDING_WAIT_MS_MAX, over.signal)]);
    over.abort();
  }
  functions.forget(functionName);
  const now = await functions.get(functionName, qualifier);
  if (now.record.state === "Active") return now;
  assertSettled(now.record);
  throw new ServiceError(
    "ResourceConflictException",
    409,
    `The operation cannot be performed at this time. The function is currently in the following state: ${now.record.state}`,
    { Type: "User" },
  );
};

const requestOf = (services: InvokeServices, call: InvokeCall): InvocationRequest => ({
  requestId: call.requestId,
  invokedFunctionArn: functionArn(services.config, call.functionName, call.qualifier),
  clientContext: call.clientContext,
  cognitoIdentity: null,
  traceId: call.traceId,
  payload: call.payload,
  receivedAtMs: services.clock.now(),
});

/** Gives a slot back. That it could not be given back is the Worker Manager's to mend (its lease ends), not the caller's. */
const release = async (services: InvokeServices, lease: SlotLease, outcome: ReleaseOutcome): Promise<void> => {
  try {
    await services.workerManager.release(lease.leaseId, outcome);
  } catch (error) {
    services.log.warn({ err: error, slotId: lease.slotId }, "a slot could not be released");
  }
};

const resultOf = (error: unknown): InvokeOutcome["result"] =>
  error instanceof ServiceError && error.status === TOO_MANY_REQUESTS ? "throttled" : "service-error";

/**
 * Runs one invocation and resolves with its buffered answer; that the function failed is an answer too. Throws
 * ServiceError when it could not be run: not found, throttled, or the service's own failure.
 */
export const invoke = async (services: InvokeServices, call: InvokeCall): Promise<InvocationResult> => {
  const { workerManager, workers, metrics } = services;
  const request = requestOf(services, call);
  const measure = (cold: boolean, result: InvokeOutcome["result"]): void =>
    metrics.invoke(services.clock.now() - request.receivedAtMs, { cold, result });
  let lease: SlotLease | null = null;
  let outcome: ReleaseOutcome = "broken";
  try {
    const { spec, reservedConcurrency } = await findTarget(services, call.functionName, call.qualifier);
    lease = await workerManager.reserve({ spec, requestId: call.requestId, reservedConcurrency });
    const result = await workers(lease.workerId).invoke(lease, request);
    outcome = "reusable";
    measure(lease.cold, result.error === null ? "success" : "function-error");
    return result;
  } catch (error) {
    measure(lease?.cold ?? false, resultOf(error));
    throw error;
  } finally {
    if (lease !== null) await release(services, lease, outcome);
  }
};

/** As `invoke`, but the answer streams. The slot is given back when the stream's `done` has settled. */
export const invokeStreaming = async (services: InvokeServices, call: InvokeCall): Promise<InvocationStream> => {
  const { workerManager, workers, metrics } = services;
  const request = requestOf(services, call);
  const { spec, reservedConcurrency } = await findTarget(services, call.functionName, call.qualifier);
  const lease = await workerManager.reserve({ spec, requestId: call.requestId, reservedConcurrency });
  const measure = (result: InvokeOutcome["result"]): void =>
    metrics.invoke(services.clock.now() - request.receivedAtMs, { cold: lease.cold, result });
  try {
    const stream = await workers(lease.workerId).invokeStreaming(lease, request);
    void stream.done.then(
      ({ error }) => {
        measure(error === null ? "success" : "function-error");
        return release(services, lease, "reusable");
      },
      (error: unknown) => {
        measure(resultOf(error));
        return release(services, lease, "broken");
      },
    );
    return stream;
  } catch (error) {
    measure(resultOf(error));
    await release(services, lease, "broken");
    throw error;
  }
};
