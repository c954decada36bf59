import type { Timer } from "../../lib/clock.ts";
import type { Claimer, EventRecord, QueuedFunction } from "../../store/store.ts";
import * as limits from "../../wire/limits.ts";
import type { TraceContext } from "../../wire/trace.ts";
import { functionArn, LATEST } from "../api/names.ts";
import { invoke } from "../invoke.ts";
import type { InvokeServices } from "../invoke.ts";
import { queueAttributes, storedContext } from "../request-trace.ts";
import { FairSchedule } from "./fair-schedule.ts";
import type { Grant } from "./fair-schedule.ts";
import { EventTime } from "./event-time.ts";
import { afterFunctionError, afterServiceError, outcomeOf } from "./verdict.ts";
import type { Verdict } from "./verdict.ts";

const RENEWALS_PER_LEASE = 3;

/** An event as it comes in: when it was accepted is the queue's to say. */
export type NewEvent = Omit<EventRecord, "acceptedAtMs" | "attempts" | "throttles">;

/** The function that a name in the schedule, which is its ARN, stands for. */
const functionOf = (arn: string): QueuedFunction => {
  const [, , , , accountId = "", , functionName = ""] = arn.split(":");
  return { accountId, functionName };
};

/**
 * Runs accepted events through the synchronous path; whose is next says FairSchedule. Only events that run are in memory.
 * They are leased while they run and the leases renewed, so that what a crash interrupts runs again: at once when the same
 * instance starts again, else when the lease has ended. An event may therefore run twice, as Lambda's may: once more for
 * every crash in its midst.
 */
export class AsyncQueue {
  readonly #services: InvokeServices;
  readonly #claimer: Claimer;
  readonly #schedule: FairSchedule;
  readonly #time: EventTime;
  readonly #running: Map<string, Promise<void>> = new Map();
  readonly #claims: Set<Promise<void>> = new Set();
  readonly #stopped: AbortController = new AbortController();
  #listening: (() => void) | null = null;
  #renewing: Timer | null = null;
  #waking: Timer | null = null;
  #looking: Promise<void> = Promise.resolve();
  #started = false;

  constructor(services: InvokeServices, sharedMax: number) {
    const { config, ids, clock, store, random } = services;
    this.#services = services;
    this.#claimer = { instance: config.instance, incarnation: ids.uuid() };
    this.#time = new EventTime(clock, store);
    this.#schedule = new FairSchedule(
      {
        sharedMax,
        firstsMax: limits.ASYNC_FIRSTS_MAX,
        claimMax: limits.ASYNC_CLAIM_MAX,
        backoffMsMin: limits.ASYNC_BACKOFF_MS_MIN,
        backoffMsMax: limits.ASYNC_BACKOFF_MS_MAX,
        freedMsMin: limits.ASYNC_FREED_MS_MIN,
      },
      random,
    );
  }

  /** What the queue is doing, for metrics. */
  get activity(): { readonly running: number; readonly throttledFunctions: number } {
    return { running: this.#schedule.running, throttledFunctions: this.#schedule.throttledFunctions };
  }

  /** Events that wait or run, and for how long the oldest has been here, whatever was done to the wall clock; null with none. */
  async backlog(): Promise<{ readonly waiting: number; readonly oldestAgeMs: number | null }> {
    await this.#time.open();
    const { waiting, oldestAcceptedAtMs } = await this.#services.store.backlog();
    return {
      waiting,
      oldestAgeMs: oldestAcceptedAtMs === null ? null : Math.max(0, this.#time.now() - oldestAcceptedAtMs),
    };
  }

  start(): void {
    this.#looking = this.#lookForever();
  }

  /** Durable when it resolves; it runs when it is its function's turn. */
  async enqueue(event: NewEvent): Promise<void> {
    await this.#time.open();
    const acceptedAtMs = this.#time.now();
    await this.#services.store.enqueue({ ...event, acceptedAtMs, attempts: 0, throttles: 0 });
    this.#services.metrics.event("accepted");
    if (this.#started) this.#due(event, acceptedAtMs);
  }

  /** Takes no more events; those that run go on. What is not finished stays in the store. */
  stop(): void {
    this.#stopped.abort();
    this.#listening?.();
    this.#listening = null;
    this.#waking?.[Symbol.dispose]();
  }

  /** Stops, and waits for those that run. */
  async drain(): Promise<void> {
    this.stop();
    await this.#looking;
    await Promise.all(this.#claims);
    await Promise.all(this.#running.values());
    this.#renewing?.[Symbol.dispose]();
  }

  /**
   * Learns which functions have events: all of them at the start, and now and then those that other Frontends have put
   * there or left behind.
   */
  async #lookForever(): Promise<void> {
    const { log, clock, workerManager } = this.#services;
    const signal = this.#stopped.signal;
    while (!signal.aborted) {
      try {
        if (!this.#started) await this.#takeOver();
        await this.#look();
        if (!this.#started) {
          this.#started = true;
          this.#listening = workerManager.onFreed((arn) => this.#onFreed(arn));
          this.#renewing = clock.every(limits.ASYNC_LEASE_MS / RENEWALS_PER_LEASE, () => this.#renew());
        }
        this.#pump();
        await clock.sleep(limits.ASYNC_LEASE_MS, signal);
      } catch (error) {
        log.error({ err: error }, "the queue of asynchronous invocations could not be read");
        await clock.sleep(limits.ASYNC_BACKOFF_MS_MIN, signal);
      }
    }
  }

  /** What an earlier process of this instance had begun is due now. The clock may have been set back since. */
  async #takeOver(): Promise<void> {
    const { store, log } = this.#services;
    await this.#time.open();
    await store.boundEvents(this.#time.now() + limits.ASYNC_BACKOFF_MS_MAX);
    const count = await store.takeOver(this.#claimer, this.#time.now());
    if (count > 0) log.warn({ count }, "invocations that were interrupted by the end of Hearth begin again");
  }

  async #look(): Promise<void> {
    let after: QueuedFunction | null = null;
    do {
      const page = await this.#services.store.queuedFunctions(after, limits.ASYNC_FUNCTIONS_PER_LOOK);
      for (const { dueMs, ...of } of page) this.#learn(of, dueMs);
      after = page.length < limits.ASYNC_FUNCTIONS_PER_LOOK ? null : (page.at(-1) ?? null);
    } while (after !== null && !this.#stopped.signal.aborted);
  }

  #due(of: QueuedFunction, dueMs: number): void {
    this.#learn(of, dueMs);
    this.#pump();
  }

  #learn({ accountId, functionName }: QueuedFunction, dueMs: number): void {
    const name = functionArn({ ...this.#services.config, accountId }, functionName);
    this.#schedule.due(name, dueMs, this.#time.now());
  }

  #onFreed(functionArnFreed: string): void {
    this.#schedule.freed(functionArnFreed, this.#time.now());
    this.#pump();
  }

  /** Claims what may run now, and sees to it that it is called again when more may. */
  #pump(): void {
    if (!this.#started || this.#stopped.signal.aborted) return;
    for (const grant of this.#schedule.take(this.#time.now())) {
      const claim = this.#claim(grant).finally(() => this.#claims.delete(claim));
      this.#claims.add(claim);
    }
    this.#waking?.[Symbol.dispose]();
    this.#waking = null;
    const wakeMs = this.#schedule.wakeMs();
    if (wakeMs !== null) this.#waking = this.#services.clock.after(wakeMs - this.#time.now(), () => this.#pump());
  }

  async #claim(grant: Grant): Promise<void> {
    const { store, log } = this.#services;
    const of = functionOf(grant.name);
    const nowMs = this.#time.now();
    try {
      const { events, nextDueMs } = await store.claim(
        of,
        { count: grant.count, nowMs, leaseMs: limits.ASYNC_LEASE_MS },
        this.#claimer,
      );
      // An event whose lease ended while it still runs here is not begun again here.
      const begun = events.filter((event) => !this.#running.has(event.eventId));
      this.#schedule.claimed(grant, begun.length, nextDueMs, this.#time.now());
      for (const event of begun) this.#begin(event, grant.name);
    } catch (error) {
      log.error({ err: error, functionName: of.functionName }, "events could not be taken from the queue");
      this.#schedule.claimed(grant, 0, nowMs + limits.ASYNC_BACKOFF_MS_MIN, this.#time.now());
    }
    this.#pump();
  }

  #begin(event: EventRecord, name: string): void {
    const { eventId, functionName } = event;
    const run = this.#run(event, name)
      .catch((error: unknown) => {
        this.#services.log.error({ err: error, requestId: eventId, functionName }, "an event could not be settled");
      })
      .finally(() => this.#running.delete(eventId));
    this.#running.set(eventId, run);
  }

  async #run(event: EventRecord, name: string): Promise<void> {
    const { store, log, metrics } = this.#services;
    const { eventId, functionName } = event;
    // Taken while Hearth was told to stop: it has not begun, and waits for the next start.
    const verdict: Verdict = this.#stopped.signal.aborted
      ? { kind: "throttled", event, by: "function" }
      : await this.#attempt(event);
    metrics.event(outcomeOf(event, verdict));
    switch (verdict.kind) {
      case "dropped":
        log.warn({ requestId: eventId, functionName, why: verdict.why }, "an asynchronous invocation was given up");
        break;
      case "done":
        break;
      case "again":
        await this.#untilStored(() => store.retry(verdict.event, verdict.dueAtMs));
        this.#learn(event, verdict.dueAtMs);
        return this.#ended(name);
      case "throttled": {
        // Due in the order of arrival, but never later than now: a clock set back before this process may have been unseen.
        const dueAtMs = Math.min(verdict.event.acceptedAtMs, this.#time.now());
        await this.#untilStored(() => store.retry(verdict.event, dueAtMs));
        this.#schedule.throttled(name, verdict.by, this.#time.now());
        return this.#pump();
      }
    }
    // The next event is claimed in the same commit: a slot that waits for the disk twice would be idle for as long.
    const settled = this.#untilStored(() => store.settle(eventId));
    this.#ended(name);
    await settled;
  }

  #ended(name: string): void {
    this.#schedule.ended(name, this.#time.now());
    this.#pump();
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
      if (result.error === null) return { kind: "done" };
      return afterFunctionError(event, this.#time.now(), result.error.errorType);
    } catch (error) {
      return afterServiceError(event, this.#time.now(), error);
    }
  }

  async #renew(): Promise<void> {
    const { store, log } = this.#services;
    try {
      await this.#time.keepStep();
      if (this.#running.size === 0) return;
      await store.renew([...this.#running.keys()], this.#time.now() + limits.ASYNC_LEASE_MS);
    } catch (error) {
      log.error({ err: error }, "leases of running events could not be renewed");
    }
  }
}
