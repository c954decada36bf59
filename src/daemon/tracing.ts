import type { Clock } from "../lib/clock.ts";
import type { Ids } from "../lib/ids.ts";
import { noTracer } from "../telemetry/tracing.ts";
import type { Logger, Tracer } from "../telemetry/index.ts";
import { usageError } from "./errors.ts";
import { version } from "./settings.ts";
import type { Environment } from "./settings.ts";

/** A tracer and what must be closed of it. */
export interface OpenedTracer extends AsyncDisposable {
  readonly tracer: Tracer;
}

const set = (value: string | undefined): boolean => value !== undefined && value !== "";

/** Whether the variables ask for traces ("OpenTelemetry environment variable specification"). */
const isAsked = (env: Environment): boolean =>
  env["OTEL_SDK_DISABLED"]?.toLowerCase() !== "true" &&
  (env["OTEL_TRACES_EXPORTER"] ?? "otlp") === "otlp" &&
  (set(env["OTEL_EXPORTER_OTLP_ENDPOINT"]) || set(env["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"]));

/**
 * The tracer that `endpoint` (null: only OpenTelemetry's variables) asks for; one that does nothing when none is. Throws
 * a usage error when a variable cannot be followed.
 */
export const openTracer = async (
  endpoint: string | null,
  { env, ...parts }: { readonly env: Environment; readonly log: Logger; readonly clock: Clock; readonly ids: Ids },
): Promise<OpenedTracer> => {
  if (endpoint === null && !isAsked(env)) return { tracer: noTracer, [Symbol.asyncDispose]: async () => {} };
  // Loaded only here: a Hearth without traces has nothing of OpenTelemetry in its memory.
  const { createOtlpTracer } = await import("../telemetry/otlp.ts");
  try {
    const tracer = createOtlpTracer({ endpoint, version: version(), env, ...parts });
    return { tracer, [Symbol.asyncDispose]: () => tracer[Symbol.asyncDispose]() };
  } catch (error) {
    throw usageError(
      error instanceof Error ? error.message : String(error),
      "Change the variable, or start Hearth without it.",
    );
  }
};

/** For commander: an address of an OTLP receiver. */
export const otlpEndpoint = (text: string): string => {
  if (!/^https?:\/\/[^\s/]+(\/[^\s]*)?$/.test(text)) {
    throw usageError(
      `"${text}" is no address of an OTLP receiver.`,
      "Write its base URL, such as http://127.0.0.1:4318.",
    );
  }
  return text;
};
