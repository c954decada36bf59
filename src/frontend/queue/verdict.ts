import type { EventRecord } from "../../store/store.ts";
import type { EventOutcome } from "../../telemetry/metrics.ts";
import { ServiceError } from "../../wire/errors.ts";
import * as limits from "../../wire/limits.ts";
import type { ThrottledBy } from "./fair-schedule.ts";

const MS_PER_S = 1_000;
const SERVER_ERROR = 500;
const UNAVAILABLE = 503;
const TOO_MANY_REQUESTS = 429;
const CONFLICT = 409;

/** What becomes of an event after an attempt. Moments are Unix ms of the queue's own time. */
export type Verdict =
  | { readonly kind: "done" }
  | { readonly kind: "dropped"; readonly why: string }
  /** It failed, and is due again then. */
  | { readonly kind: "again"; readonly event: EventRecord; readonly dueAtMs: number }
  /** It could not run for want of concurrency, and is its function's next. */
  | { readonly kind: "throttled"; readonly event: EventRecord; readonly by: ThrottledBy };

const isOld = (event: EventRecord, atMs: number): boolean =>
  atMs > event.acceptedAtMs + limits.ASYNC_EVENT_AGE_S_MAX_DEFAULT * MS_PER_S;

const dropped = (why: string): Verdict => ({ kind: "dropped", why });
const tooOld = (why: string): Verdict => dropped(`EventAgeExceeded after: ${why}`);

/** After a function error: two more attempts, after one and two minutes. */
export const afterFunctionError = (event: EventRecord, nowMs: number, errorType: string): Verdict => {
  const attempts = event.attempts + 1;
  const delayMs = limits.ASYNC_RETRY_DELAYS_MS[event.attempts];
  if (attempts > limits.ASYNC_RETRIES_MAX_DEFAULT || delayMs === undefined) {
    return dropped(`RetriesExhausted: ${errorType}`);
  }
  const dueAtMs = nowMs + delayMs;
  return isOld(event, dueAtMs) ? tooOld(errorType) : { kind: "again", event: { ...event, attempts }, dueAtMs };
};

/** Who is short of what: null for an error that has to do with this event and not with how much there is of something. */
const throttledBy = (error: unknown): ThrottledBy | null => {
  if (!(error instanceof ServiceError)) return null;
  if (error.status === UNAVAILABLE) return "all";
  if (error.status !== TOO_MANY_REQUESTS) return null;
  return error.members["Reason"] === "ConcurrentInvocationLimitExceeded" ? "all" : "function";
};

/**
 * After an attempt that could not be run. What is missing will be there some time: the function waits, and the event is
 * its next. A failure of the service may be this event's alone, which then waits longer each time. Other errors are final.
 */
export const afterServiceError = (event: EventRecord, nowMs: number, error: unknown): Verdict => {
  const why = error instanceof Error ? `${error.name}: ${error.message}` : String(error);
  const status = error instanceof ServiceError ? error.status : SERVER_ERROR;
  const by = throttledBy(error);
  const tried = { ...event, throttles: event.throttles + 1 };
  if (by !== null) return isOld(event, nowMs) ? tooOld(why) : { kind: "throttled", event: tried, by };
  if (status < SERVER_ERROR && status !== CONFLICT) return dropped(why);
  const delayMs = Math.min(limits.ASYNC_BACKOFF_MS_MIN * 2 ** event.throttles, limits.ASYNC_BACKOFF_MS_MAX);
  const dueAtMs = nowMs + delayMs;
  return isOld(event, dueAtMs) ? tooOld(why) : { kind: "again", event: tried, dueAtMs };
};

/** For the metrics: an event that is tried again after a function's error was `retried`, after any other `delayed`. */
export const outcomeOf = (event: EventRecord, verdict: Verdict): EventOutcome => {
  switch (verdict.kind) {
    case "again":
      return verdict.event.attempts > event.attempts ? "retried" : "delayed";
    case "throttled":
      return "delayed";
    case "done":
    case "dropped":
      return verdict.kind;
  }
};
