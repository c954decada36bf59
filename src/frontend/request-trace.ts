import type { IncomingHttpHeaders } from "node:http";
import { noTracer } from "../telemetry/tracing.ts";
import type { Attributes, Span, SpanOptions, Tracer } from "../telemetry/tracing.ts";
import { formatAmznTrace, parseAmznTrace, parseTraceparent } from "../wire/trace.ts";
import type { TraceContext } from "../wire/trace.ts";
import type { Dependencies } from "./services.ts";

const MS_PER_S = 1_000;
const HEX = 16;
const TRACE_ID_RANDOM_DIGITS = 24;

const one = (value: string | string[] | undefined): string | null => {
  const text = Array.isArray(value) ? value.join(",") : value;
  return text === undefined || text === "" ? null : text;
};

const w3cContext = (headers: IncomingHttpHeaders): TraceContext | null => {
  const traceparent = one(headers["traceparent"]);
  return traceparent === null ? null : parseTraceparent(traceparent, one(headers["tracestate"]));
};

/** Begins the span of a request: below that of its `traceparent`, else of its `X-Amzn-Trace-Id`, else of none. */
export const requestSpan = (tracer: Tracer, name: string, headers: IncomingHttpHeaders, options: SpanOptions): Span => {
  if (tracer === noTracer) return noTracer.start(name, null);
  const parent = w3cContext(headers);
  if (parent !== null) return tracer.start(name, parent, options);
  const amzn = parseAmznTrace(one(headers["x-amzn-trace-id"]) ?? "");
  if (amzn === null) return tracer.start(name, null, options);
  const { traceId, spanId, sampled } = amzn;
  if (spanId === null) return tracer.startTrace(name, traceId, options);
  return tracer.start(name, { traceId, spanId, sampled: sampled ?? true, state: null }, options);
};

/**
 * The `X-Amzn-Trace-Id` of an invocation: that of its span, else the client's own or what its `traceparent` says, else
 * a new one that is not sampled.
 */
export const traceHeader = (
  { clock, ids }: Pick<Dependencies, "clock" | "ids">,
  span: Span,
  headers: IncomingHttpHeaders,
): string => {
  if (span.context !== null) return formatAmznTrace(span.context);
  const given = one(headers["x-amzn-trace-id"]);
  if (given !== null) return given;
  const parent = w3cContext(headers);
  if (parent !== null) return formatAmznTrace(parent);
  const seconds = Math.floor(clock.wallMs() / MS_PER_S).toString(HEX);
  // From a UUID, because Node draws those from a store of randomness: asking for each alone costs ten times as much.
  return `Root=1-${seconds}-${ids.uuid().replaceAll("-", "").slice(-TRACE_ID_RANDOM_DIGITS)};Sampled=0`;
};

/** The span that a stored `X-Amzn-Trace-Id` names, to go on from; null when it names none. */
export const storedContext = (header: string | null): TraceContext | null => {
  const amzn = parseAmznTrace(header ?? "");
  if (amzn === null || amzn.spanId === null) return null;
  return { traceId: amzn.traceId, spanId: amzn.spanId, sampled: amzn.sampled ?? true, state: null };
};

/** What a span says of an event in the asynchronous queue ("Semantic conventions for messaging spans"). */
export const queueAttributes = (type: "send" | "process", functionName: string, eventId: string): Attributes => ({
  "messaging.system": "hearth",
  "messaging.operation.type": type,
  "messaging.operation.name": type,
  "messaging.destination.name": functionName,
  "messaging.message.id": eventId,
});
