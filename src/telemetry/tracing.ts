import type { TraceContext } from "../wire/trace.ts";

/*
 * What the roles need of tracing. Without an exporter `noTracer` stands for it: then a span costs a call and nothing
 * more, and no OpenTelemetry code is even loaded (otlp.ts has it).
 *
 * Names of attributes are those of OpenTelemetry's semantic conventions 1.45 where they have one (FaaS, HTTP, cloud,
 * messaging), else begin with `hearth.`.
 */

export type Attributes = Readonly<Record<string, string | number | boolean>>;

/** `server`, `client`, `producer` and `consumer` are the two ends of a call or of a queue; all else is `internal`. */
export type SpanKind = "internal" | "server" | "client" | "producer" | "consumer";

export interface SpanOptions {
  readonly kind?: SpanKind;
  readonly attributes?: Attributes;
  /** Other spans that this one has to do with. */
  readonly links?: readonly TraceContext[];
  /** When it began, on the monotonic clock, when that was before now. */
  readonly startedMs?: number;
}

/** One piece of work. Disposing it ends it; whatever is done to it after its end is ignored. */
export interface Span extends Disposable {
  /** Where what is done for this work belongs in the trace; null when there is no tracing. */
  readonly context: TraceContext | null;
  set(attributes: Attributes): void;
  /** Something that happened at this moment. */
  event(name: string): void;
  /** It failed: with an error of that name, in one sentence. */
  fail(errorType: string, message: string): void;
  end(): void;
}

export interface Tracer {
  /** Begins a span below `parent`, or (null) one that nothing is above of. */
  start(name: string, parent: TraceContext | null, options?: SpanOptions): Span;
  /** Begins the first span of a trace that another system has given its id, but no span. */
  startTrace(name: string, traceId: string, options?: SpanOptions): Span;
}

const NO_SPAN: Span = Object.freeze({
  context: null,
  set: () => {},
  event: () => {},
  fail: () => {},
  end: () => {},
  [Symbol.dispose]: () => {},
});

export const noTracer: Tracer = Object.freeze({ start: () => NO_SPAN, startTrace: () => NO_SPAN });

/** Runs `work` in a span, which fails when it does. */
export const traced = async <T>(span: Span, work: (span: Span) => Promise<T>): Promise<T> => {
  try {
    return await work(span);
  } catch (error) {
    span.fail(
      ...(error instanceof Error ? ([error.name, error.message] as const) : (["unknown", String(error)] as const)),
    );
    throw error;
  } finally {
    span.end();
  }
};
