import { isSlotGone, isSlotStarting, ServiceError, serviceFailure } from "../wire/errors.ts";
import { unavailable } from "../wire/exhaustion.ts";
import type { InvocationRequest, InvocationResult, InvocationStream } from "../wire/invocation.ts";
import { PENDING_WAIT_MS_MAX, SLOT_ATTEMPTS_MAX } from "../wire/limits.ts";
import type { ReleaseOutcome, SlotLease } from "../wire/roles.ts";
import type { InvokeOutcome } from "../telemetry/index.ts";
import { traced } from "../telemetry/tracing.ts";
import type { TraceContext } from "../wire/trace.ts";
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
  readonly asynchronous: boolean;
  /** JSON text, decoded. */
  readonly clientContext: string | null;
  /** X-Amzn-Trace-Id. */
  readonly traceId: string | null;
  /** The span that it belongs to; null without tracing. */
  readonly trace: TraceContext | null;
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
  trace: call.trace,
  payload: call.payload,
  asynchronous: call.asynchronous,
  receivedAtMs: services.clock.wallMs(),
});

/** A slot for an invocation, and a lease on it. */
const reserve = (services: InvokeServices, target: FunctionTarget, request: InvocationRequest): Promise<SlotLease> => {
  const { spec, reservedConcurrency } = target;
  const { requestId } = request;
  const { clock } = services;
  const askedMs = clock.monotonicMs();
  return traced(services.tracer.start("reserve slot", request.trace), async (span) => {
    const lease = await services.workerManager.reserve({ spec, requestId, reservedConcurrency, trace: span.context });
    span.set({ "hearth.slot": lease.slotId, "hearth.worker": lease.workerId, "hearth.cold": lease.cold });
    // It began at some moment since it was asked for; the earliest is what is safe to reckon with.
    return { ...lease, validMs: lease.validMs - (clock.monotonicMs() - askedMs) };
  });
};

/** Gives a slot back. That it could not be given back is the Worker Manager's to mend (its lease ends), not the caller's. */
const release = async (
  services: InvokeServices,
  lease: SlotLease,
  outcome: ReleaseOutcome,
  trace: TraceContext | null,
): Promise<void> => {
  using _span = services.tracer.start("release slot", trace, { attributes: { "hearth.outcome": outcome } });
  try {
    await services.workerManager.release(lease.leaseId, outcome);
  } catch (error) {
    services.log.warn({ err: error, slotId: lease.slotId }, "a slot could not be released");
  }
};

const resultOf = (error: unknown): InvokeOutcome["result"] =>
  error instanceof ServiceError && error.status === TOO_MANY_REQUESTS ? "throttled" : "service-error";

/** What an invocation that failed leaves of its slot: one that still starts is of use to others. */
const outcomeOf = (error: unknown): ReleaseOutcome => (isSlotStarting(error) ? "starting" : "broken");

/** The error for the client: which slot it was, and that another could be tried, is between the roles. */
const forClient = (error: unknown): unknown =>
  error instanceof ServiceError && isSlotStarting(error) ? unavailable(error.message, error) : error;

const noSlotLasted = (error: unknown): ServiceError =>
  serviceFailure(
    `No slot lasted until the invocation began: ${error instanceof Error ? error.message : String(error)}`,
    error,
  );

/** One attempt in one slot, from its reservation to its release. */
const invokeInSlot = async (
  services: InvokeServices,
  target: FunctionTarget,
  request: InvocationRequest,
  measure: (cold: boolean, result: InvokeOutcome["result"]) => void,
): Promise<InvocationResult> => {
  const lease = await reserve(services, target, request);
  let outcome: ReleaseOutcome = "broken";
  try {
    const result = await services.workers(lease.workerId).invoke(lease, request);
    outcome = "reusable";
    measure(lease.cold, result.error === null ? "success" : "function-error");
    return result;
  } catch (error) {
    outcome = outcomeOf(error);
    throw forClient(error);
  } finally {
    await release(services, lease, outcome, request.trace);
  }
};

/**
 * Runs one invocation and resolves with its buffered answer; that the function failed is an answer too. Throws
 * ServiceError when it could not be run: not found, throttled, or the service's own failure.
 */
export const invoke = async (services: InvokeServices, call: InvokeCall): Promise<InvocationResult> => {
  const { clock, metrics } = services;
  const request = requestOf(services, call);
  const startedMs = clock.monotonicMs();
  const measure = (cold: boolean, result: InvokeOutcome["result"]): void =>
    metrics.invoke(clock.monotonicMs() - startedMs, { cold, result });
  try {
    const target = await findTarget(services, call.functionName, call.qualifier);
    for (let attempt = 1; ; attempt += 1) {
      try {
        return await invokeInSlot(services, target, request, measure);
      } catch (error) {
        if (!isSlotGone(error)) throw error;
        if (attempt === SLOT_ATTEMPTS_MAX) throw noSlotLasted(error);
      }
    }
  } catch (error) {
    measure(false, resultOf(error));
    throw error;
  }
};

/** A stream in one slot. The slot is given back when the stream's `done` has settled. */
const streamInSlot = async (
  services: InvokeServices,
  target: FunctionTarget,
  request: InvocationRequest,
  startedMs: number,
): Promise<InvocationStream> => {
  const { workers, metrics, clock } = services;
  const lease = await reserve(services, target, request);
  const end = (result: InvokeOutcome["result"], outcome: ReleaseOutcome): Promise<void> => {
    metrics.invoke(clock.monotonicMs() - startedMs, { cold: lease.cold, result });
    return release(services, lease, outcome, request.trace);
  };
  try {
    const stream = await workers(lease.workerId).invokeStreaming(lease, request);
    void stream.done.then(
      ({ error }) => end(error === null ? "success" : "function-error", "reusable"),
      (error: unknown) => end(resultOf(error), outcomeOf(error)),
    );
    return stream;
  } catch (error) {
    await end(resultOf(error), outcomeOf(error));
    throw forClient(error);
  }
};

/** As `invoke`, but the answer streams. */
export const invokeStreaming = async (services: InvokeServices, call: InvokeCall): Promise<InvocationStream> => {
  const request = requestOf(services, call);
  const startedMs = services.clock.monotonicMs();
  const target = await findTarget(services, call.functionName, call.qualifier);
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await streamInSlot(services, target, request, startedMs);
    } catch (error) {
      if (!isSlotGone(error)) throw error;
      if (attempt === SLOT_ATTEMPTS_MAX) throw noSlotLasted(error);
    }
  }
};
