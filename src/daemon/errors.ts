import { exhaustionText } from "../wire/exhaustion.ts";

/** Exit codes of the command. */
export const EXIT_OK = 0;
export const EXIT_FAILURE = 1;
export const EXIT_USAGE = 2;

/** An error for a person: one sentence that names the thing, and what to do about it. */
export class CliError extends Error {
  override readonly name = "CliError";
  readonly exitCode: number;
  /** What to do, as one sentence; null when the message says it. */
  readonly hint: string | null;

  constructor(message: string, hint: string | null = null, exitCode: number = EXIT_FAILURE, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause });
    this.exitCode = exitCode;
    this.hint = hint;
  }
}

/** The command was called wrongly: exit code 2. */
export const usageError = (message: string, hint: string | null = null): CliError =>
  new CliError(message, hint, EXIT_USAGE);

const REFUSED = new Set(["ECONNREFUSED", "ENOTFOUND", "EHOSTUNREACH"]);
const BROKEN = new Set(["ECONNRESET", "EPIPE"]);
/** What the service answers when it does not accept a signature. */
const NOT_ALLOWED = new Set([
  "InvalidSignatureException",
  "UnrecognizedClientException",
  "MissingAuthenticationTokenException",
  "IncompleteSignatureException",
  "AccessDeniedException",
]);

interface Failure {
  readonly message: string;
  readonly hint: string | null;
  readonly exitCode: number;
}

/** `host:port` that a connection went to, when the error says so. */
const addressOf = (error: Error): string | null =>
  /\b(?:ECONNREFUSED|ENOTFOUND|EHOSTUNREACH) (\S+)/.exec(error.message)?.[1] ?? null;

const codeOf = (error: unknown): string | null => {
  if (!(error instanceof Error)) return null;
  if ("code" in error && typeof error.code === "string") return error.code;
  if (error instanceof AggregateError && error.errors.length > 0) return codeOf(error.errors[0]);
  return error.cause === undefined ? null : codeOf(error.cause);
};

/** Anything thrown, as a person should read it. */
export const describeError = (error: unknown): Failure => {
  if (error instanceof CliError) return { message: error.message, hint: error.hint, exitCode: error.exitCode };
  if (!(error instanceof Error)) return { message: String(error), hint: null, exitCode: EXIT_FAILURE };
  const code = codeOf(error);
  if (code !== null && REFUSED.has(code)) {
    return {
      message: `Nothing answers at ${addressOf(error) ?? "the endpoint"} (${code}).`,
      hint: "Start Hearth with `hearth up`, or name another address with --endpoint or HEARTH_ENDPOINT.",
      exitCode: EXIT_FAILURE,
    };
  }
  if (code !== null && BROKEN.has(code)) {
    return {
      message: `The connection to Hearth broke before the answer came (${code}).`,
      hint: "It was stopped or it failed: look at the output of `hearth up`.",
      exitCode: EXIT_FAILURE,
    };
  }
  if (NOT_ALLOWED.has(error.name)) {
    return {
      message: `Hearth refused the request: ${error.message}`,
      hint: "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY to the keys that `hearth up` printed, or name its --data-dir.",
      exitCode: EXIT_FAILURE,
    };
  }
  const exhausted = "$metadata" in error ? null : exhaustionText(error);
  if (exhausted !== null) return { message: `${error.message}.`, hint: exhausted, exitCode: EXIT_FAILURE };
  const service = "$metadata" in error;
  return { message: service ? `${error.message} (${error.name})` : error.message, hint: null, exitCode: EXIT_FAILURE };
};
