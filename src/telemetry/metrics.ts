import { collectDefaultMetrics, Counter, Gauge, Histogram, Registry } from "prom-client";
import { TURN_KINDS } from "../lib/turn-meter.ts";
import type { TurnKind } from "../lib/turn-meter.ts";
import { THROTTLE_REASONS } from "../wire/errors.ts";
import type { ThrottleReason } from "../wire/errors.ts";
import type { WorkerReport } from "../wire/roles.ts";
import type { SlotState } from "../wire/slot.ts";

/** Where a failure was met that nobody had taken upon themselves. */
export const UNOWNED = ["timer", "exception", "promise"] as const;
export type Unowned = (typeof UNOWNED)[number];

/** Why a connection of the API was closed or refused. */
export const CONNECTION_ENDS = ["evicted", "refused", "pipelined"] as const;
export type ConnectionEnd = (typeof CONNECTION_ENDS)[number];

/** What the roles tell about themselves. Every method returns at once. Durations are in ms. */
export interface Metrics {
  /** Spawn of a microVM until its shim said hello. */
  boot(durationMs: number, outcome: "ready" | "failed"): void;
  /** Runtime and function init in a slot. */
  init(durationMs: number, outcome: "ready" | "failed"): void;
  /** The Worker Manager's answer to a reservation. */
  reserve(durationMs: number, outcome: "warm" | "cold" | "throttled" | "failed"): void;
  placement(durationMs: number): void;
  /** A reservation that found no idle slot waits no longer. */
  slotWait(durationMs: number, outcome: SlotWaitOutcome): void;
  /** One invocation as the client saw it, from request to answer. */
  invoke(durationMs: number, outcome: InvokeOutcome): void;
  /**
   * A slot was made from a microVM booted beforehand (hit) or had to boot one (miss). `kind` is one of few words: what
   * the microVM had ready.
   */
  pool(result: "hit" | "miss", kind?: string): void;
  /** A slot was ended. `reason` is one of few words: idle, age, retired, broken, pressure, drain, once. */
  evicted(reason: string): void;
  throttled(reason: ThrottleReason): void;
  /** What became of an asynchronous event: accepted into the queue, or how an attempt at it ended. */
  event(outcome: EventOutcome): void;
  /** A turn of the main loop took longer than it may. */
  longTurn(owner: TurnKind): void;
  /** Something failed that nobody had taken upon themselves. */
  unowned(where: Unowned): void;
  /** An HTTP request was answered. `operation` is a name of Lambda's API, or "unknown". */
  request(operation: string, status: number): void;
  /** A connection of the API was closed or refused to keep its limits. */
  connectionEnded(reason: ConnectionEnd): void;
}

/**
 * How a reservation's wait ended: its start began, another invocation gave a slot back, it waited too long, or the slot could
 * not be made.
 */
export type SlotWaitOutcome = "start" | "release" | "refused" | "failed";

export interface InvokeOutcome {
  readonly cold: boolean;
  readonly result: "success" | "function-error" | "throttled" | "service-error";
}

/** `retried` waits after a function's error, `delayed` after a throttle or an error of the service. */
export type EventOutcome = "accepted" | "done" | "retried" | "delayed" | "dropped";

/** What the API's HTTP server holds. */
export interface HttpReading {
  /** Connections by what they do: silent, unproven, idle, working. */
  readonly connections: Readonly<Record<string, number>>;
  /** Bytes of bodies whose senders have not proven a key yet, and of all others. */
  readonly bodies: { readonly unprovenBytes: number; readonly bytes: number };
  /** Unix ms; null without TLS. */
  readonly certificateExpiresAtMs: number | null;
}

/** What is looked up when somebody asks for the metrics, and not before. */
export interface MetricsReading {
  readonly workers: readonly WorkerReading[];
  /** Concurrent executions now, and how many the account may have. */
  readonly concurrency: { readonly account: number; readonly limit: number };
  readonly events: { readonly waiting: number; readonly oldestAgeMs: number | null };
  /** Lines of functions' logs that were dropped since the start. */
  readonly logLinesDropped: number;
  /** Of Hearth's own log: lines dropped and writes failed since the start. */
  readonly hostLog: { readonly lines: number; readonly failures: number };
  readonly http: HttpReading;
}

export interface WorkerReading {
  readonly report: WorkerReport;
  readonly slots: Readonly<Record<SlotState, number>>;
  /** Starts that wait for their turn, and those that have it. */
  readonly starts: { readonly waiting: number; readonly underWay: number };
  /** Host memory of its slots as measured, in bytes. */
  readonly slotMemoryBytes: number;
  /** What its slots' `/tmp` take of the disk as measured, in bytes, and how many of them may write no more. */
  readonly slotScratchBytes: number;
  readonly scratchStopped: number;
  /** Booted microVMs that wait, by what they have ready. */
  readonly poolReady: Readonly<Record<string, number>>;
}

/** What the main loop's turns took, in ms of its thread's CPU time, since this was last read. */
export interface TurnsReading {
  /** The longest turn, by what the loop worked for. */
  readonly turnsMs: ReadonlyMap<TurnKind, number>;
  /** The longest iteration: all turns in it together. */
  readonly iterationMs: number;
}

/** Metrics for a registry, and its text in the Prometheus exposition format. */
export interface MetricsRegistry extends Metrics {
  readonly contentType: string;
  /** Sets what `text` asks for the reading; without it the text has none of its metrics. */
  readFrom(read: () => Promise<MetricsReading>): void;
  /** The same for the main loop's turns, which each `text` takes: a turn is told to one who asks. */
  readTurnsFrom(take: () => TurnsReading): void;
  text(): Promise<string>;
}

/** From 0.1 ms to 10 s, six to a decade, in seconds as Prometheus wants them: no step is wider than the half of itself. */
const BUCKETS_S: readonly number[] = [-4, -3, -2, -1, 0].flatMap((exponent) =>
  // By division: 7 * 10 ** -4 is no 0.0007.
  [1, 1.5, 2, 3, 5, 7].map((step) => step / 10 ** -exponent),
);
/** An init or an invocation may go on to the longest timeout. */
const LONG_BUCKETS_S: readonly number[] = [...BUCKETS_S, 10, 30, 60, 300, 900];
const MS_PER_S = 1000;
const BYTES_PER_MB = 1024 * 1024;
/** How often the delay of the event loop is looked at; the default of 10 ms would wake an idle Hearth too often. */
const EVENT_LOOP_PRECISION_MS = 100;

type Registers = Registry[];

const histogramMaker =
  (registers: Registers) =>
  <Label extends string>(
    name: string,
    help: string,
    labelNames: Label[],
    buckets: readonly number[] = [...BUCKETS_S, 10],
  ): Histogram<Label> =>
    new Histogram({ name: `hearth_${name}_seconds`, help, labelNames, buckets: [...buckets], registers });

const counterMaker =
  (registers: Registers) =>
  <Label extends string>(name: string, help: string, labelNames: Label[]): Counter<Label> =>
    new Counter({ name: `hearth_${name}_total`, help, labelNames, registers });

/** What is counted and timed as it happens. */
const liveMetrics = (registers: Registers): Metrics => {
  const histogram = histogramMaker(registers);
  const counter = counterMaker(registers);
  const boot = histogram("boot", "Spawn of a microVM until its shim is connected", ["outcome"]);
  const init = histogram("init", "Init of runtime and function", ["outcome"], LONG_BUCKETS_S);
  const reserve = histogram("reserve", "Reservation of a slot at the Worker Manager", ["outcome"]);
  const placement = histogram("placement", "Placement's decision", []);
  const slotWait = histogram(
    "slot_wait",
    "Wait of reservations that found no idle slot, by how it ended",
    ["outcome"],
    LONG_BUCKETS_S,
  );
  const invoke = histogram("invoke", "Invocation, from request to answer", ["start", "result"], LONG_BUCKETS_S);
  const pool = counter("pool", "Slots made from a microVM booted beforehand (hit) or not (miss)", ["result", "kind"]);
  const evicted = counter("slots_ended", "Slots ended, by reason", ["reason"]);
  const throttles = counter("throttles", "Reservations refused, by the limit that was reached", ["reason"]);
  const events = counter("events", "Asynchronous events accepted, and how attempts at them ended", ["outcome"]);
  const longTurns = counter("loop_long_turns", "Turns of the main loop that took longer than 50 ms of CPU", ["owner"]);
  const unowned = counter("unowned_failures", "Failures that ended nowhere but in the last resort", ["where"]);
  const requests = counter("http_requests", "Requests answered, by operation and status", ["operation", "status"]);
  const connections = counter("http_connections_ended", "Connections closed or refused to keep limits", ["reason"]);
  // A counter that appears with its first count has not increased for Prometheus: what alerts ask about begins at 0.
  for (const where of UNOWNED) unowned.inc({ where }, 0);
  for (const reason of CONNECTION_ENDS) connections.inc({ reason }, 0);
  for (const reason of THROTTLE_REASONS) throttles.inc({ reason }, 0);
  for (const owner of TURN_KINDS) longTurns.inc({ owner }, 0);
  return {
    boot: (durationMs, outcome) => boot.observe({ outcome }, durationMs / MS_PER_S),
    init: (durationMs, outcome) => init.observe({ outcome }, durationMs / MS_PER_S),
    reserve: (durationMs, outcome) => reserve.observe({ outcome }, durationMs / MS_PER_S),
    slotWait: (durationMs, outcome) => slotWait.observe({ outcome }, durationMs / MS_PER_S),
    placement: (durationMs) => placement.observe(durationMs / MS_PER_S),
    invoke: (durationMs, { cold, result }) =>
      invoke.observe({ start: cold ? "cold" : "warm", result }, durationMs / MS_PER_S),
    pool: (result, kind = "bare") => pool.inc({ result, kind }),
    evicted: (reason) => evicted.inc({ reason }),
    throttled: (reason) => throttles.inc({ reason }),
    event: (outcome) => events.inc({ outcome }),
    longTurn: (owner) => longTurns.inc({ owner }),
    unowned: (where) => unowned.inc({ where }),
    request: (operation, status) => requests.inc({ operation, status }),
    connectionEnded: (reason) => connections.inc({ reason }),
  };
};

/** What a reading is turned into. */
const readMetrics = (registers: Registers): ((reading: MetricsReading) => void) => {
  const gauge = <Label extends string>(name: string, help: string, labelNames: Label[]): Gauge<Label> =>
    new Gauge({ name: `hearth_${name}`, help, labelNames, registers });
  const slots = gauge("slots", "Slots by state", ["worker", "state"]);
  const slotsMax = gauge("slots_max", "Slots that a worker may have", ["worker"]);
  const pool = gauge("pool_ready", "Booted microVMs that wait, by what they have ready", ["worker", "kind"]);
  const starts = gauge("slot_starts", "Starts of slots that wait for their turn, or have it", ["worker", "state"]);
  const committed = gauge("memory_committed_bytes", "Nominal memory of a worker's slots", ["worker"]);
  const measured = gauge("slots_memory_bytes", "Host memory of a worker's slots, as measured", ["worker"]);
  const scratch = gauge("slots_scratch_bytes", "What the /tmp of a worker's slots takes of its disk", ["worker"]);
  const stopped = gauge("slots_scratch_stopped", "Slots whose /tmp takes no more for want of disk", ["worker"]);
  const total = gauge("host_memory_bytes", "Memory of a worker's host", ["worker"]);
  const available = gauge("host_memory_available_bytes", "Memory of a worker's host that can be had", ["worker"]);
  const storageTotal = gauge("storage_bytes", "Size of the disk of a worker's data directory", ["worker"]);
  const storage = gauge("storage_available_bytes", "What of that disk can be had", ["worker"]);
  const concurrency = gauge("concurrent_executions", "Invocations that hold a slot", []);
  const limit = gauge("concurrent_executions_max", "Invocations that may hold a slot at once", []);
  const depth = gauge("events_waiting", "Asynchronous events in the queue, those that run included", []);
  const age = gauge("events_oldest_age_seconds", "Age of the oldest event in the queue; 0 when it is empty", []);
  const counter = counterMaker(registers);
  const dropped = counter("log_lines_dropped", "Lines of functions' logs that were dropped", []);
  const hostLines = counter("host_log_lines_dropped", "Lines of Hearth's own log that were dropped", []);
  const hostFailures = counter("host_log_failures", "Writes of Hearth's own log that failed", []);
  const connections = gauge("http_connections", "Connections of the API, by what they do", ["state"]);
  const expiry = gauge(
    "tls_certificate_expiry_timestamp_seconds",
    "When the API's certificate ends; 0 without one",
    [],
  );
  const bodies = gauge("http_bodies_bytes", "Bodies of requests that are held, by whether a key is proven", ["proven"]);
  return (reading) => {
    for (const [state, count] of Object.entries(reading.http.connections)) connections.set({ state }, count);
    const { certificateExpiresAtMs } = reading.http;
    if (certificateExpiresAtMs !== null) expiry.set(certificateExpiresAtMs / MS_PER_S);
    bodies.set({ proven: "no" }, reading.http.bodies.unprovenBytes);
    bodies.set({ proven: "yes" }, reading.http.bodies.bytes);
    // Workers that went away, and kinds that are no more, go from the text too.
    for (const one of [
      slots,
      slotsMax,
      pool,
      starts,
      committed,
      measured,
      scratch,
      stopped,
      total,
      available,
      storageTotal,
      storage,
    ])
      one.reset();
    for (const {
      report,
      slots: counts,
      starts: turns,
      slotMemoryBytes,
      slotScratchBytes,
      scratchStopped,
      poolReady,
    } of reading.workers) {
      const worker = report.workerId;
      scratch.set({ worker }, slotScratchBytes);
      stopped.set({ worker }, scratchStopped);
      for (const [state, count] of Object.entries(counts)) if (state !== "Dead") slots.set({ worker, state }, count);
      for (const [kind, count] of Object.entries(poolReady)) pool.set({ worker, kind }, count);
      starts.set({ worker, state: "waiting" }, turns.waiting);
      starts.set({ worker, state: "under_way" }, turns.underWay);
      slotsMax.set({ worker }, report.slotsMax);
      committed.set({ worker }, report.memoryMbCommitted * BYTES_PER_MB);
      measured.set({ worker }, slotMemoryBytes);
      total.set({ worker }, report.memoryBytesTotal);
      available.set({ worker }, report.memoryBytesAvailable);
      storageTotal.set({ worker }, report.storageBytesTotal);
      storage.set({ worker }, report.storageBytesAvailable);
    }
    concurrency.set(reading.concurrency.account);
    limit.set(reading.concurrency.limit);
    const { waiting, oldestAgeMs } = reading.events;
    depth.set(waiting);
    age.set((oldestAgeMs ?? 0) / MS_PER_S);
    dropped.reset();
    dropped.inc(reading.logLinesDropped);
    hostLines.reset();
    hostLines.inc(reading.hostLog.lines);
    hostFailures.reset();
    hostFailures.inc(reading.hostLog.failures);
  };
};

const turnMetrics = (registers: Registers): ((reading: TurnsReading) => void) => {
  const since = "of CPU time, since the metrics were last asked for";
  const turn = new Gauge({
    name: "hearth_loop_turn_max_seconds",
    help: `Longest turn of the main loop ${since}, by what it worked for`,
    labelNames: ["owner"],
    registers,
  });
  const iteration = new Gauge({
    name: "hearth_loop_iteration_max_seconds",
    help: `Longest iteration of the main loop ${since}`,
    registers,
  });
  return ({ turnsMs, iterationMs }) => {
    for (const [owner, ms] of turnsMs) turn.set({ owner }, ms / MS_PER_S);
    iteration.set(iterationMs / MS_PER_S);
  };
};

/**
 * A registry of its own, so that two Hearths in one process (tests) do not mix. No label has more values than there
 * are workers, operations or words in this code: no function's name is one.
 */
export const createMetrics = (): MetricsRegistry => {
  const registry = new Registry();
  const registers = [registry];
  const live = liveMetrics(registers);
  const show = readMetrics(registers);
  collectDefaultMetrics({ register: registry, eventLoopMonitoringPrecision: EVENT_LOOP_PRECISION_MS });
  const showTurns = turnMetrics(registers);
  let source: (() => Promise<MetricsReading>) | null = null;
  let turns: (() => TurnsReading) | null = null;
  return {
    ...live,
    contentType: registry.contentType,
    readFrom: (read) => (source = read),
    readTurnsFrom: (take) => (turns = take),
    text: async () => {
      if (source !== null) show(await source());
      if (turns !== null) showTurns(turns());
      return registry.metrics();
    },
  };
};
