import {
  createTraceState,
  ROOT_CONTEXT,
  SpanKind as OtelKind,
  SpanStatusCode,
  trace,
  TraceFlags,
} from "@opentelemetry/api";
import type { Context, Link, Span as OtelSpan, SpanContext, Tracer as OtelTracer } from "@opentelemetry/api";
import { ExportResultCode } from "@opentelemetry/core";
import { OTLPTraceExporter } from "@opentelemetry/exporter-trace-otlp-proto";
import { defaultResource, detectResources, envDetector, resourceFromAttributes } from "@opentelemetry/resources";
import {
  AlwaysOffSampler,
  AlwaysOnSampler,
  BatchSpanProcessor,
  ParentBasedSampler,
  TraceIdRatioBasedSampler,
  TracerProvider,
} from "@opentelemetry/sdk-trace";
import type { IdGenerator, Sampler, SpanExporter } from "@opentelemetry/sdk-trace";
import type { Clock } from "../lib/clock.ts";
import type { Ids } from "../lib/ids.ts";
import { TRACE_EXPORT_MS, TRACE_FLUSH_MS_MAX, TRACE_WARN_MS } from "../wire/limits.ts";
import type { TraceContext } from "../wire/trace.ts";
import type { Logger } from "./log.ts";
import type { Attributes, Span, SpanKind, SpanOptions, Tracer } from "./tracing.ts";

/** A tracer that sends its spans by OTLP over HTTP. Disposing it sends what is left, within TRACE_FLUSH_MS_MAX. */
export interface OtlpTracer extends Tracer, AsyncDisposable {}

export interface OtlpOptions {
  readonly clock: Clock;
  readonly ids: Ids;
  /** Base of the receiver's address, such as http://127.0.0.1:4318; null for that of the OTEL_ variables. */
  readonly endpoint: string | null;
  readonly version: string;
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly log: Logger;
}

const KINDS: Readonly<Record<SpanKind, OtelKind>> = {
  internal: OtelKind.INTERNAL,
  server: OtelKind.SERVER,
  client: OtelKind.CLIENT,
  producer: OtelKind.PRODUCER,
  consumer: OtelKind.CONSUMER,
};
const HEX = 16;
const MS_PER_S = 1000;
/** How far the wall clock may run from the monotonic one before it is believed to have been set. */
const CLOCK_STEP_MS = 100;

/**
 * Unix time in ms with fractions, from the monotonic clock, so that spans of one process begin and end in the order
 * that they did. It follows the wall clock when that is set.
 */
class SpanClock {
  readonly #clock: Clock;
  #originMs: number;

  constructor(clock: Clock) {
    this.#clock = clock;
    this.#originMs = clock.wallMs() - clock.monotonicMs();
  }

  at(monotonicMs: number): number {
    const originMs = this.#clock.wallMs() - this.#clock.monotonicMs();
    if (Math.abs(originMs - this.#originMs) > CLOCK_STEP_MS) this.#originMs = originMs;
    return this.#originMs + monotonicMs;
  }

  now(): number {
    return this.at(this.#clock.monotonicMs());
  }
}

/** Trace ids as X-Ray has them: eight digits of the time, then randomness. */
class XRayIds implements IdGenerator {
  /** Id of the next trace, when another system has chosen it. */
  given: string | null = null;
  readonly #clock: Clock;
  readonly #ids: Ids;

  constructor(clock: Clock, ids: Ids) {
    this.#clock = clock;
    this.#ids = ids;
  }

  generateTraceId(): string {
    const { given } = this;
    this.given = null;
    const seconds = Math.floor(this.#clock.wallMs() / MS_PER_S).toString(HEX);
    return given ?? `${seconds.padStart(8, "0")}${randomHex(this.#ids, 24)}`;
  }

  generateSpanId(): string {
    return randomHex(this.#ids, 16);
  }
}

/** From UUIDs, which Node draws from a store of randomness; their fixed digits are in the first half and left out. */
const randomHex = (ids: Ids, digits: number): string => {
  let text = "";
  while (text.length < digits) text += ids.uuid().slice(-12);
  return text.slice(0, digits);
};

const otelContext = (from: TraceContext): SpanContext => ({
  traceId: from.traceId,
  spanId: from.spanId,
  traceFlags: from.sampled ? TraceFlags.SAMPLED : TraceFlags.NONE,
  isRemote: true,
  ...(from.state === null ? {} : { traceState: createTraceState(from.state) }),
});

const plainContext = ({ traceId, spanId, traceFlags, traceState }: SpanContext): TraceContext => ({
  traceId,
  spanId,
  sampled: (traceFlags & TraceFlags.SAMPLED) !== 0,
  state: traceState === undefined ? null : traceState.serialize(),
});

class OtlpSpan implements Span {
  readonly context: TraceContext;
  readonly #span: OtelSpan;
  readonly #clock: SpanClock;
  #ended = false;

  constructor(span: OtelSpan, clock: SpanClock) {
    this.#span = span;
    this.#clock = clock;
    this.context = plainContext(span.spanContext());
  }

  set(attributes: Attributes): void {
    this.#span.setAttributes(attributes);
  }

  event(name: string): void {
    this.#span.addEvent(name, this.#clock.now());
  }

  fail(errorType: string, message: string): void {
    this.#span.setAttribute("error.type", errorType);
    this.#span.setStatus({ code: SpanStatusCode.ERROR, message });
  }

  end(): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#span.end(this.#clock.now());
  }

  [Symbol.dispose](): void {
    this.end();
  }
}

const startSpan = (
  tracer: OtelTracer,
  clock: SpanClock,
  name: string,
  parent: Context,
  { kind = "internal", attributes, links, startedMs }: SpanOptions = {},
): Span => {
  const span = tracer.startSpan(
    name,
    {
      kind: KINDS[kind],
      startTime: startedMs === undefined ? clock.now() : clock.at(startedMs),
      ...(attributes === undefined ? {} : { attributes }),
      ...(links === undefined ? {} : { links: links.map((link): Link => ({ context: otelContext(link) })) }),
    },
    parent,
  );
  return new OtlpSpan(span, clock);
};

const numberOf = (text: string | undefined): number | undefined => {
  const value = text === undefined || text === "" ? Number.NaN : Number(text);
  return Number.isFinite(value) && value >= 0 ? value : undefined;
};

/** OTEL_TRACES_SAMPLER and its argument ("General SDK configuration" in OpenTelemetry's specification). */
export const samplerOf = (env: OtlpOptions["env"]): Sampler => {
  const name = env["OTEL_TRACES_SAMPLER"] ?? "parentbased_always_on";
  const ratio = Math.min(1, numberOf(env["OTEL_TRACES_SAMPLER_ARG"]) ?? 1);
  const roots: Readonly<Record<string, () => Sampler>> = {
    always_on: () => new AlwaysOnSampler(),
    always_off: () => new AlwaysOffSampler(),
    traceidratio: () => new TraceIdRatioBasedSampler(ratio),
  };
  const root = roots[name.replace(/^parentbased_/, "")]?.();
  if (root === undefined) {
    throw new Error(
      `OTEL_TRACES_SAMPLER is "${name}"; there are ${Object.keys(roots)
        .flatMap((each) => [each, `parentbased_${each}`])
        .join(", ")}.`,
    );
  }
  return name.startsWith("parentbased_") ? new ParentBasedSampler({ root }) : root;
};

/** An exporter whose failures are told, but not more often than every TRACE_WARN_MS, and disturb nothing. */
const quietly = (exporter: SpanExporter, clock: Clock, log: Logger): SpanExporter => {
  let [toldAtMs, lost] = [Number.NEGATIVE_INFINITY, 0];
  return {
    export: (spans, done) => {
      exporter.export(spans, ({ code, error }) => {
        if (code !== ExportResultCode.SUCCESS) {
          lost += spans.length;
          if (clock.monotonicMs() - toldAtMs > TRACE_WARN_MS) {
            log.warn({ err: error, spans: lost }, "spans could not be sent and are lost");
            [toldAtMs, lost] = [clock.monotonicMs(), 0];
          }
        }
        done({ code: ExportResultCode.SUCCESS });
      });
    },
    shutdown: () => exporter.shutdown(),
    ...(exporter.forceFlush === undefined ? {} : { forceFlush: () => exporter.forceFlush?.() ?? Promise.resolve() }),
  };
};

const processorOf = ({ endpoint, env, log, clock }: OtlpOptions): BatchSpanProcessor => {
  const batch = numberOf(env["OTEL_BSP_MAX_EXPORT_BATCH_SIZE"]);
  const queue = numberOf(env["OTEL_BSP_MAX_QUEUE_SIZE"]);
  const timeoutMs = numberOf(env["OTEL_BSP_EXPORT_TIMEOUT"]);
  const url = endpoint === null ? {} : { url: `${endpoint.replace(/\/+$/, "")}/v1/traces` };
  return new BatchSpanProcessor({
    exporter: quietly(new OTLPTraceExporter(url), clock, log),
    scheduledDelayMillis: numberOf(env["OTEL_BSP_SCHEDULE_DELAY"]) ?? TRACE_EXPORT_MS,
    ...(batch === undefined ? {} : { maxExportBatchSize: batch }),
    ...(queue === undefined ? {} : { maxQueueSize: queue }),
    ...(timeoutMs === undefined ? {} : { exportTimeoutMillis: timeoutMs }),
  });
};

/**
 * A tracer for the receiver that the options or OpenTelemetry's variables name. Throws an Error with what is wrong when
 * a variable has a value that cannot be followed.
 */
export const createOtlpTracer = (options: OtlpOptions): OtlpTracer => {
  const protocol = options.env["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"] ?? options.env["OTEL_EXPORTER_OTLP_PROTOCOL"];
  if (protocol !== undefined && protocol !== "http/protobuf") {
    throw new Error(`OTEL_EXPORTER_OTLP_PROTOCOL is "${protocol}"; Hearth sends http/protobuf.`);
  }
  const ids = new XRayIds(options.clock, options.ids);
  const clock = new SpanClock(options.clock);
  const own = resourceFromAttributes({ "service.name": "hearth", "service.version": options.version });
  const provider = new TracerProvider({
    resource: defaultResource()
      .merge(own)
      .merge(detectResources({ detectors: [envDetector] })),
    idGenerator: ids,
    sampler: samplerOf(options.env),
    spanProcessors: [processorOf(options)],
  });
  const tracer = provider.getTracer("hearth", options.version);
  return {
    start: (name, parent, more) => {
      const context = parent === null ? ROOT_CONTEXT : trace.setSpanContext(ROOT_CONTEXT, otelContext(parent));
      return startSpan(tracer, clock, name, context, more);
    },
    startTrace: (name, traceId, more) => {
      ids.given = traceId;
      return startSpan(tracer, clock, name, ROOT_CONTEXT, more);
    },
    [Symbol.asyncDispose]: async () => {
      const over = new AbortController();
      await Promise.race([provider.shutdown().catch(() => {}), options.clock.sleep(TRACE_FLUSH_MS_MAX, over.signal)]);
      over.abort();
    },
  };
};
