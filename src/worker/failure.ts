import { timeoutText } from "../telemetry/platform-lines.ts";
import type { FunctionError } from "../wire/invocation.ts";
import { PAYLOAD_BYTES_MAX } from "../wire/limits.ts";
import type { FieldReader } from "../wire/shim-codec.ts";
import { FailureField, FailureOutcome } from "../wire/shim-protocol.ts";

/** How an init or an invocation went wrong, as the shim reported it. */
export interface Failure {
  readonly outcome: number;
  readonly errorType: string | null;
  readonly errorBody: Uint8Array | null;
  readonly exitCode: number | null;
  readonly signal: number | null;
  readonly durationUs: number | null;
}

/** null when the fields say that nothing failed. */
export const readFailure = (fields: FieldReader): Failure | null => {
  const outcome = fields.number(FailureField.Outcome);
  if (outcome === null) return null;
  return {
    outcome,
    errorType: fields.text(FailureField.ErrorType),
    errorBody: fields.bytes(FailureField.ErrorBody),
    exitCode: fields.number(FailureField.ExitCode),
    signal: fields.number(FailureField.Signal),
    durationUs: fields.number(FailureField.DurationUs),
  };
};

/** Names as the platform prints them ("signal: killed"): Go's, since Lambda's own supervisor is written in it. */
const SIGNAL_NAMES: Readonly<Record<number, string>> = {
  1: "hangup",
  2: "interrupt",
  3: "quit",
  4: "illegal instruction",
  5: "trace/breakpoint trap",
  6: "aborted",
  7: "bus error",
  8: "floating point exception",
  9: "killed",
  11: "segmentation fault",
  13: "broken pipe",
  14: "alarm clock",
  15: "terminated",
};

const exitText = (failure: Failure): string => {
  if (failure.signal !== null && failure.signal !== 0) {
    return `Runtime exited with error: signal: ${SIGNAL_NAMES[failure.signal] ?? failure.signal}`;
  }
  if (failure.exitCode !== null && failure.exitCode !== 0) {
    return `Runtime exited with error: exit status ${failure.exitCode}`;
  }
  return "Runtime exited without providing a reason";
};

/** The same failure in the three places where Lambda shows it. */
export interface FailureTexts {
  readonly error: FunctionError;
  /** For the report line. */
  readonly status: "error" | "timeout";
  /** Sentence for the log's fault line; null when the runtime has reported (and logged) it itself. */
  readonly fault: string | null;
}

const platformFailure = (requestId: string, errorType: string, message: string): FailureTexts => ({
  error: {
    kind: "Unhandled",
    errorType,
    body: Buffer.from(JSON.stringify({ errorType, errorMessage: `RequestId: ${requestId} Error: ${message}` })),
  },
  status: "error",
  fault: message,
});

/**
 * A failure in Lambda's words ("Failure payloads" of AWS's runtime emulator, `fatalerror.go` and `invoke.go` there).
 * `timeoutMs` is the function's, `responseBytesMax` what its answer was held to.
 */
export const failureTexts = (
  failure: Failure,
  requestId: string,
  timeoutMs: number,
  responseBytesMax: number = PAYLOAD_BYTES_MAX,
): FailureTexts => {
  switch (failure.outcome) {
    case FailureOutcome.Reported: {
      const errorType = failure.errorType ?? "Function.Unknown";
      return {
        error: { kind: "Unhandled", errorType, body: failure.errorBody ?? Buffer.from(JSON.stringify({ errorType })) },
        status: "error",
        fault: null,
      };
    }
    case FailureOutcome.TimedOut:
      return {
        ...platformFailure(requestId, "Sandbox.Timedout", timeoutText(timeoutMs)),
        status: "timeout",
        fault: null,
      };
    case FailureOutcome.OutOfMemory:
      return platformFailure(requestId, "Runtime.OutOfMemory", "Runtime exited with error: signal: killed");
    case FailureOutcome.ResponseTooLarge: {
      const errorType = "Function.ResponseSizeTooLarge";
      const errorMessage = `Response payload size exceeded maximum allowed payload size (${responseBytesMax} bytes).`;
      return {
        error: { kind: "Unhandled", errorType, body: Buffer.from(JSON.stringify({ errorType, errorMessage })) },
        status: "error",
        fault: null,
      };
    }
    case FailureOutcome.NotStarted: {
      const why =
        failure.errorBody === null ? "the runtime could not be started" : Buffer.from(failure.errorBody).toString();
      return platformFailure(requestId, "Runtime.InvalidEntrypoint", why);
    }
    case FailureOutcome.Truncated:
      return platformFailure(requestId, "Runtime.TruncatedResponse", "Response body ended before it was complete");
    default:
      return platformFailure(requestId, failure.errorType ?? "Runtime.ExitError", exitText(failure));
  }
};
