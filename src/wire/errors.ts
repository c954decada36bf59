/**
 * An error of the service as a client sees it: name and status of the Lambda API, one sentence for a person.
 * Everything thrown across a role's boundary is one of these; anything else is a bug and becomes ServiceException.
 */
export class ServiceError extends Error {
  override readonly name: string;
  readonly status: number;
  /** Further members of the modelled error shape, such as `Reason` or `retryAfterSeconds`. */
  readonly members: Readonly<Record<string, string | number>>;

  constructor(
    name: string,
    status: number,
    message: string,
    members: Readonly<Record<string, string | number>> = {},
    cause?: unknown,
  ) {
    super(message, cause === undefined ? undefined : { cause });
    this.name = name;
    this.status = status;
    this.members = members;
  }
}

export const THROTTLE_REASONS = [
  "ConcurrentInvocationLimitExceeded",
  "FunctionInvocationRateLimitExceeded",
  "ReservedFunctionConcurrentInvocationLimitExceeded",
  "ReservedFunctionInvocationRateLimitExceeded",
  "CallerRateLimitExceeded",
] as const;
export type ThrottleReason = (typeof THROTTLE_REASONS)[number];

/** 429 with the `Reason` Lambda gives and a Retry-After of one second. */
export const throttled = (reason: ThrottleReason): ServiceError =>
  new ServiceError("TooManyRequestsException", 429, "Rate Exceeded.", {
    Reason: reason,
    Type: "User",
    retryAfterSeconds: "1",
  });

export const serviceFailure = (message: string, cause?: unknown): ServiceError =>
  new ServiceError("ServiceException", 500, message, { Type: "Service" }, cause);

export const invalidParameter = (message: string): ServiceError =>
  new ServiceError("InvalidParameterValueException", 400, message, { Type: "User" });

export const functionNotFound = (arn: string): ServiceError =>
  new ServiceError("ResourceNotFoundException", 404, `Function not found: ${arn}`, { Type: "User" });

const SLOT_GONE = "SlotGoneException";

/** A worker's answer when the slot of a lease ended before the invocation began: it did not run, and may be tried in another slot. */
export const slotGone = (message: string): ServiceError =>
  new ServiceError(SLOT_GONE, 500, message, { Type: "Service" });

export const isSlotGone = (error: unknown): boolean => error instanceof ServiceError && error.name === SLOT_GONE;

const SLOT_STARTING = "SlotStartingException";

/**
 * A worker's answer when an invocation has waited long enough for its slot's init, which goes on: the slot serves whoever
 * comes when it is through.
 */
export const slotStarting = (message: string): ServiceError =>
  new ServiceError(SLOT_STARTING, 503, message, { Type: "Service" });

export const isSlotStarting = (error: unknown): boolean =>
  error instanceof ServiceError && error.name === SLOT_STARTING;
