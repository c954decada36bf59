import type { Claimer, EventRecord } from "../store/store.ts";
import type { EventOutcome } from "../telemetry/metrics.ts";
import { ServiceError } from "../wire/errors.ts";
import * as limits from "../wire/limits.ts";
import type { TraceContext } from "../wire/trace.ts";
import { LATEST } from "./api/names.ts";
import { invoke } from "./invoke.ts";
import { EventTime } from "./event-time.ts";
import type { InvokeServices } from "./invoke.ts";
import { queueAttributes, storedContext } from "./request-trace.ts";

const MS_PER_S = 1_000;
const RENEWALS_PER_LEASE = 3;
const SERVER_ERROR = 500;
const TOO_MANY_REQUESTS = 429;
const CONFLICT = 409;

/** What becomes of an event after an attempt. */
export type Verdict =
  | { readonly kind: "done" }
  | { readonly kind: "dropped"; readonly why: string }
  | { readonly kind: "again"; readonly event: EventRecord; readonly dueAtMs: number };

const againIfYoung = (event: EventRecord, dueAtMs: number, why: string): Verdict => {
  const endsAtMs = event.acceptedAtMs + limits.ASYNC_EVENT_AGE_S_MAX_DEFAULT * MS_PER_S;
  return dueAtMs > endsAtMs
    ? { kind: "dropped", why: `EventAgeExceeded after: ${why}` }
    : { kind: "again", event, dueAtMs };
};

/** After a function error: two more attempts, after one and two minutes. */
export const afterFunctionError = (event: EventRecord, nowMs: number, errorType: string): Verdict => {
  const attempts = event.attempts + 1;
  const delayMs = limits.ASYNC_RETRY_DELAYS_MS[event.attempts];
  if (attempts > limits.ASYNC_RETRIES_MAX_DEFAULT || delayMs === undefined) {
    return { kind: "dropped", why: `RetriesExhausted: ${errorType}` };
  }
  return againIfYoung({ ...event, attempts }, nowMs + delayMs, errorType);
};

/** After an attempt that could not be run: throttles and service errors wait longer each time, other errors are final. */
export const afterServiceError = (event: EventRecord, nowMs: number, error: unknown): Verdict => {
  const why = error instanceof Error ? `${error.name}: ${error.message}` : String(error);
  const status = error instanceof ServiceError ? error.status : SERVER_ERROR;
  if (status < SERVER_ERROR && status !== TOO_MANY_REQUESTS && status !== CONFLICT) return { kind: "dropped", why };
  const delayMs = Math.min(limits.ASYNC_BACKOFF_MS_MIN * 2 ** event.throttles, limits.ASYNC_BACKOFF_MS_MAX);
  return againIfYoung({ ...event, throttles: event.throttles + 1 }, nowMs + delayMs, why);
};

const outcomeOf = (event: EventRecord, verdict: Verdict): EventOutcome => {
  if (verdict.kind !== "again") return verdict.kind;
  return verdict.event.attempts > event.attempts ? "retried" : "delayed";
};

/**
 * Runs accepted events through the synchronous path. Events are leased while they run and the leases renewed, so that
 * what a crash interrupts runs again: at once when the same instance starts again, else when the lease has ended. An
 * event may therefore run twice, as Lambda's may: once more for every crash in its midst.
 */
export class AsyncQueue {
  readonly #services: InvokeServices;
  readonly #parallelMax: number;
  readonly #claimer: Claimer;
  readonly #time: EventTime;
  readonly #running = new Map<string, Promise<void>>();
  readonly #stopped = new AbortController();
  #wake = new AbortController();
  #loops: Promise<unknown> = Promise.resolve();

  constructor(services: InvokeServices, parallelMax: number) {
    this.#services = services;
    this.#parallelMax = parallelMax;
    this.#time = new EventTime(services.clock, services.store);
    this.#claimer = { instance: services.config.instance, incarnation: services.ids.uuid() };
  }

  start(): void {
    this.#loops = Promise.all([this.#pollForever(), this.#renewForever()]);
  }

  /** Durable when it resolves; it runs as soon as there is room. */
  async enqueue(event: Omit<EventRecord, "acceptedAtMs">): Promise<void> {
    await this.#services.store.enqueue({ ...event, acceptedAtMs: await this.#time.now() });
    this.#services.metrics.event("accepted");
    this.#wake.abort();
  }

  /** Takes no more events; those that run go on. What is not finished stays in the store. */
  stop(): void {
    this.#stopped.abort();
    this.#wake.abort();
  }

  /** Stops, and waits for those that run. */
  async drain(): Promise<void> {
    this.stop();
    await this.#loops;
    await Promise.all(this.#running.values());
  }

  async #pollForever(): Promise<void> {
    const { log, clock } = this.#services;
    let tookOver = false;
    while (!this.#stopped.signal.aborted) {
      // Before the look into the store: an event accepted during it wakes the sleep after it.
      this.#wake = new AbortController();
      try {
        if (!tookOver) await this.#takeOver();
        tookOver = true;
        await clock.sleep(await this.#poll(), this.#wake.signal);
      } catch (error) {
        log.error({ err: error }, "the queue of asynchronous invocations could not be read");
        await clock.sleep(limits.ASYNC_BACKOFF_MS_MIN, this.#stopped.signal);
      }
    }
  }

  /** What an earlier process of this instance had begun is due now. The clock may have been set back since. */
  async #takeOver(): Promise<void> {
    const { store, log } = this.#services;
    const nowMs = await this.#time.now();
    await store.boundEvents(nowMs + limits.ASYNC_BACKOFF_MS_MAX);
    const count = await store.takeOver(this.#claimer, nowMs);
    if (count > 0) log.warn({ count }, "invocations that were interrupted by the end of Hearth begin again");
  }

  /** Starts what is due and fits; says for how long there is nothing to do unless something happens. */
  async #poll(): Promise<number> {
    const { store } = this.#services;
    const room = this.#parallelMax - this.#running.size;
    if (room <= 0) return limits.ASYNC_BACKOFF_MS_MAX;
    const now = await this.#time.now();
    const events = await store.claim(room, now, limits.ASYNC_LEASE_MS, this.#claimer);
    for (const event of events) this.#begin(event);
    const dueMs = events.length === room ? null : await store.nextDueMs();
    return dueMs === null ? limits.ASYNC_BACKOFF_MS_MAX : Math.max(0, dueMs - (await this.#time.now()));
  }

  #begin(event: EventRecord): void {
    // An event whose lease ended while it still runs here is not begun again here.
    if (this.#running.has(event.eventId)) return;
    const run = this.#run(event)
      .catch((error: unknown) => {
        const { eventId, functionName } = event;
        this.#services.log.error({ err: error, requestId: eventId, functionName }, "an event could not be settled");
      })
      .finally(() => {
        this.#running.delete(event.eventId);
        this.#wake.abort();
      });
    this.#running.set(event.eventId, run);
  }

  async #run(event: EventRecord): Promise<void> {
    const { store, log, metrics } = this.#services;
    const { eventId, functionName } = event;
    const verdict = await this.#attempt(event);
    metrics.event(outcomeOf(event, verdict));
    if (verdict.kind === "dropped") {
      log.warn({ requestId: eventId, functionName, why: verdict.why }, "an asynchronous invocation was given up");
    }
    await this.#untilStored(() =>
      verdict.kind === "again" ? store.retry(verdict.event, verdict.dueAtMs) : store.settle(eventId),
    );
  }

  /** What became of an event is written down however long the disk is full: it must not run again for that. */
  async #untilStored(write: () => Promise<void>): Promise<void> {
    const { clock, log } = this.#services;
    for (;;) {
      try {
        return await write();
      } catch (error) {
        if (this.#stopped.signal.aborted) throw error;
        log.error({ err: error }, "the queue could not be written; trying again");
        await clock.sleep(limits.ASYNC_BACKOFF_MS_MIN, this.#stopped.signal);
      }
    }
  }

  /** One attempt, as a span of its own below the one that sent the event, and linked with it. */
  async #attempt(event: EventRecord): Promise<Verdict> {
    const sent = storedContext(event.traceId);
    using span = this.#services.tracer.start(`process ${event.functionName}`, sent, {
      kind: "consumer",
      links: sent === null ? [] : [sent],
      attributes: {
        ...queueAttributes("process", event.functionName, event.eventId),
        "hearth.attempt": event.attempts + 1,
      },
    });
    const verdict = await this.#try(event, span.context);
    span.set({ "hearth.outcome": outcomeOf(event, verdict) });
    return verdict;
  }

  async #try(event: EventRecord, trace: TraceContext | null): Promise<Verdict> {
    try {
      const result = await invoke(this.#services, {
        functionName: event.functionName,
        qualifier: event.qualifier === LATEST ? null : event.qualifier,
        requestId: event.eventId,
        payload: event.payload,
        asynchronous: true,
        clientContext: null,
        traceId: event.traceId,
        trace,
      });
      return result.error === null
        ? { kind: "done" }
        : afterFunctionError(event, await this.#time.now(), result.error.errorType);
    } catch (error) {
      return afterServiceError(event, await this.#time.now(), error);
    }
  }

  async #renewForever(): Promise<void> {
    const { store, clock, log } = this.#services;
    while (!this.#stopped.signal.aborted) {
      await clock.sleep(limits.ASYNC_LEASE_MS / RENEWALS_PER_LEASE, this.#stopped.signal);
      try {
        await this.#time.keepStep();
        if (this.#running.size === 0) continue;
        await store.renew([...this.#running.keys()], (await this.#time.now()) + limits.ASYNC_LEASE_MS);
      } catch (error) {
        log.error({ err: error }, "leases of running events could not be renewed");
      }
    }
  }
}
