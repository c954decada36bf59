import { Counter, Gauge, Histogram, Registry } from "prom-client";
import type { SlotState } from "../wire/slot.ts";

/** What the roles tell about themselves. Every method returns at once. Durations are in ms. */
export interface Metrics {
  /** Spawn of a microVM until its shim said hello. */
  boot(durationMs: number, outcome: "ready" | "failed"): void;
  /** Runtime and function init in a slot. */
  init(durationMs: number, outcome: "ready" | "failed"): void;
  /** The Worker Manager's answer to a reservation. */
  reserve(durationMs: number, outcome: "warm" | "cold" | "throttled" | "failed"): void;
  placement(durationMs: number): void;
  /** One invocation as the client saw it, from request to answer. */
  invoke(durationMs: number, outcome: InvokeOutcome): void;
  /** Slots by state, now. */
  slots(counts: Readonly<Record<SlotState, number>>): void;
  /** A slot was made from a microVM booted beforehand (hit) or had to boot one (miss). */
  pool(result: "hit" | "miss"): void;
  /** A slot was ended. `reason` is one of few words: idle, age, retired, broken, pressure, drain, once. */
  evicted(reason: string): void;
}

export interface InvokeOutcome {
  readonly cold: boolean;
  readonly result: "success" | "function-error" | "throttled" | "service-error";
}

/** Metrics for a registry, and its text in the Prometheus exposition format. */
export interface MetricsRegistry extends Metrics {
  readonly contentType: string;
  text(): Promise<string>;
}

const SLOT_STATES: readonly SlotState[] = ["Init", "Idle", "Busy", "Dead"];
/** From a millisecond to a quarter of an hour, in seconds as Prometheus wants them. */
const BUCKETS_S = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 300, 900];
const MS_PER_S = 1000;

/** A registry of its own, so that two Hearths in one process (tests) do not mix. */
export const createMetrics = (): MetricsRegistry => {
  const registry = new Registry();
  const registers = [registry];
  const histogram = <Label extends string>(name: string, help: string, labelNames: Label[]): Histogram<Label> =>
    new Histogram({ name: `hearth_${name}_seconds`, help, labelNames, buckets: BUCKETS_S, registers });
  const boot = histogram("boot", "Spawn of a microVM until its shim is connected", ["outcome"]);
  const init = histogram("init", "Init of runtime and function", ["outcome"]);
  const reserve = histogram("reserve", "Reservation of a slot at the Worker Manager", ["outcome"]);
  const placement = histogram("placement", "Placement's decision", []);
  const invoke = histogram("invoke", "Invocation, from request to answer", ["start", "result"]);
  const slots = new Gauge({ name: "hearth_slots", help: "Slots by state", labelNames: ["state"], registers });
  const pool = new Counter({
    name: "hearth_pool_total",
    help: "Slots made from a microVM booted beforehand (hit) or not (miss)",
    labelNames: ["result"],
    registers,
  });
  const evicted = new Counter({
    name: "hearth_slots_ended_total",
    help: "Slots ended, by reason",
    labelNames: ["reason"],
    registers,
  });
  return {
    contentType: registry.contentType,
    text: () => registry.metrics(),
    boot: (durationMs, outcome) => boot.observe({ outcome }, durationMs / MS_PER_S),
    init: (durationMs, outcome) => init.observe({ outcome }, durationMs / MS_PER_S),
    reserve: (durationMs, outcome) => reserve.observe({ outcome }, durationMs / MS_PER_S),
    placement: (durationMs) => placement.observe(durationMs / MS_PER_S),
    invoke: (durationMs, { cold, result }) =>
      invoke.observe({ start: cold ? "cold" : "warm", result }, durationMs / MS_PER_S),
    slots: (counts) => {
      for (const state of SLOT_STATES) slots.set({ state }, counts[state]);
    },
    pool: (result) => pool.inc({ result }),
    evicted: (reason) => evicted.inc({ reason }),
  };
};
