import type { Clock } from "../lib/clock.ts";
import { traced } from "../telemetry/tracing.ts";
import type { Attributes, Span, Tracer } from "../telemetry/tracing.ts";
import type { FunctionSpec } from "../wire/function.ts";
import type { TraceContext } from "../wire/trace.ts";
import type { Taken } from "./pool.ts";

const BYTES_PER_MIB = 1024 * 1024;

/** What every span of a slot says of its function. */
const functionAttributes = (spec: FunctionSpec): Attributes => ({
  "faas.name": spec.functionName,
  "faas.version": spec.version,
  "faas.max_memory": spec.memoryMb * BYTES_PER_MIB,
  "cloud.region": spec.region,
  "cloud.account.id": spec.accountId,
});

/** The spans of a slot's start: `start slot`, and below it the microVM, its drives, and the init in the guest. */
export class StartTrace {
  readonly #tracer: Tracer;
  readonly #clock: Clock;
  readonly #whole: Span;
  #init: Span | null = null;

  constructor(
    { tracer, clock }: { readonly tracer: Tracer; readonly clock: Clock },
    trace: TraceContext | null,
    slotId: string,
    spec: FunctionSpec,
  ) {
    this.#tracer = tracer;
    this.#clock = clock;
    const attributes = { ...functionAttributes(spec), "hearth.slot": slotId };
    this.#whole = tracer.start("start slot", trace, { attributes });
  }

  /** A microVM is taken from the pool, or booted. */
  microVm(take: () => Promise<Taken>): Promise<Taken> {
    return traced(this.#tracer.start("take microVM", this.#whole.context), async (span) => {
      const taken = await take();
      span.set({ "hearth.pool": taken.result, "hearth.microvm": taken.booted.vm.id });
      if (taken.result === "none") {
        // The pool knows nothing of traces; it hands out what it boots at once.
        const startedMs = this.#clock.monotonicMs() - taken.booted.bootMs;
        this.#tracer.start("boot microVM", span.context, { startedMs }).end();
      }
      return taken;
    });
  }

  attach<T>(work: () => Promise<T>): Promise<T> {
    return traced(this.#tracer.start("attach drives", this.#whole.context), work);
  }

  /** The guest was told what it is to be: runtime and function begin. */
  initBegan(): void {
    this.#init = this.#tracer.start("init", this.#whole.context);
  }

  /** The guest is ready, or (with what went wrong) it is not. Only the first time counts. */
  ended(errorType: string | null, message = ""): void {
    for (const span of [this.#init, this.#whole]) {
      if (errorType !== null) span?.fail(errorType, message);
      span?.end();
    }
  }
}

/** The span of one invocation in a slot. */
export const invocationSpan = (
  tracer: Tracer,
  spec: FunctionSpec,
  invocation: {
    readonly trace: TraceContext | null;
    readonly requestId: string;
    readonly functionArn: string;
    readonly instance: string;
    readonly cold: boolean;
  },
): Span =>
  tracer.start(spec.functionName, invocation.trace, {
    kind: "server",
    attributes: {
      ...functionAttributes(spec),
      "faas.invocation.id": invocation.requestId,
      "faas.instance": invocation.instance,
      "faas.coldstart": invocation.cold,
      "cloud.resource_id": invocation.functionArn,
    },
  });
