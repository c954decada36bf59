import { parseSamples } from "../telemetry/prometheus-text.ts";
import type { Sample } from "../telemetry/prometheus-text.ts";
import type { SlotInfo } from "../wire/slot.ts";
import type { ControlStats } from "../daemon/control.ts";

/** What a Hearth said of itself at one moment. */
export interface Reading {
  /** `performance.now()` of the reader. */
  readonly atMs: number;
  readonly stats: ControlStats;
  readonly slots: readonly SlotInfo[];
  readonly samples: readonly Sample[];
}

export const DURATIONS = ["reserve", "boot", "init", "invoke"] as const;
export type Duration = (typeof DURATIONS)[number];

/** p50 and p99 in ms, and how many there were; null where there were none. */
export interface Quantiles {
  readonly count: number;
  readonly p50Ms: number | null;
  readonly p99Ms: number | null;
}

/** What happened between two readings. */
export interface Figures {
  readonly seconds: number;
  readonly durations: Readonly<Record<Duration, Quantiles>>;
  /** Per second. */
  readonly rates: {
    readonly invocations: number;
    readonly errors: number;
    readonly coldStarts: number;
    readonly throttles: number;
  };
  readonly pool: { readonly hits: number; readonly misses: number };
  /** CPUs in use: by this Hearth's process, and by each slot. */
  readonly processCpus: number;
  readonly slotCpus: ReadonlyMap<string, number>;
}

export const readingOf = (stats: ControlStats, slots: readonly SlotInfo[], metrics: string): Reading => ({
  atMs: performance.now(),
  stats,
  slots,
  samples: parseSamples(metrics),
});

type Labels = Readonly<Record<string, string>>;

const fits = (sample: Sample, labels: Labels): boolean =>
  Object.entries(labels).every(([name, value]) => sample.labels[name] === value);

/** The sum of all samples of that name with these labels. */
export const sumOf = (reading: Reading | null, name: string, labels: Labels = {}): number =>
  (reading?.samples ?? [])
    .filter((sample) => sample.name === name && fits(sample, labels))
    .reduce((sum, sample) => sum + sample.value, 0);

/** By the upper bounds of its buckets, in s, how many observations of a histogram are in or below each. */
const bucketsOf = (reading: Reading | null, name: string): Map<number, number> => {
  const buckets = new Map<number, number>();
  for (const sample of reading?.samples ?? []) {
    if (sample.name !== `${name}_bucket`) continue;
    const upTo = Number(sample.labels["le"]?.replace("+Inf", "Infinity"));
    buckets.set(upTo, (buckets.get(upTo) ?? 0) + sample.value);
  }
  return buckets;
};

/** As Prometheus's histogram_quantile does: evenly spread within a bucket, and the last bound for what is beyond it. */
const quantile = (counts: readonly (readonly [upTo: number, count: number])[], rank: number): number | null => {
  const total = counts.at(-1)?.[1] ?? 0;
  if (total === 0) return null;
  let [lower, below] = [0, 0];
  for (const [upper, count] of counts) {
    if (count >= rank * total) {
      return upper === Number.POSITIVE_INFINITY
        ? lower
        : lower + ((upper - lower) * (rank * total - below)) / (count - below);
    }
    [lower, below] = [upper, count];
  }
  return lower;
};

const inMs = (seconds: number | null): number | null => (seconds === null ? null : seconds * 1000);

const quantilesOf = (from: Reading | null, to: Reading, name: string): Quantiles => {
  const before = bucketsOf(from, name);
  const counts = [...bucketsOf(to, name)]
    .map(([upTo, count]) => [upTo, count - (before.get(upTo) ?? 0)] as const)
    .sort(([a], [b]) => a - b);
  return {
    count: counts.at(-1)?.[1] ?? 0,
    p50Ms: inMs(quantile(counts, 0.5)),
    p99Ms: inMs(quantile(counts, 0.99)),
  };
};

/** CPUs that slots have used on average since the last time, or (without one) since they were made. */
const slotCpus = (from: Reading | null, to: Reading, seconds: number): Map<string, number> => {
  const before = new Map(from?.slots.map((slot) => [slot.slotId, slot.cpuTimeUs]));
  return new Map(
    to.slots.map((slot) => {
      const known = before.get(slot.slotId);
      const lifeS = Math.max(1, to.stats.worker.atMs - slot.createdAtMs) / 1000;
      const [usedUs, overS] = known === undefined ? [slot.cpuTimeUs, lifeS] : [slot.cpuTimeUs - known, seconds];
      return [slot.slotId, Math.max(0, usedUs / 1e6 / overS)] as const;
    }),
  );
};

/**
 * What happened from one reading to a later one of the same process; with null, from its start on. A counter that fell
 * (another process answers now) counts from nothing.
 */
export const figuresBetween = (earlier: Reading | null, to: Reading): Figures => {
  const from = earlier?.stats.pid === to.stats.pid ? earlier : null;
  const sinceMs = from === null ? to.stats.worker.atMs - to.stats.startedAtMs : to.atMs - from.atMs;
  const seconds = Math.max(0.001, sinceMs / 1000);
  const gained = (name: string, labels: Labels = {}): number => sumOf(to, name, labels) - sumOf(from, name, labels);
  const rate = (name: string, labels: Labels = {}): number => gained(name, labels) / seconds;
  const quantiles = (name: Duration): Quantiles => quantilesOf(from, to, `hearth_${name}_seconds`);
  return {
    seconds,
    durations: {
      reserve: quantiles("reserve"),
      boot: quantiles("boot"),
      init: quantiles("init"),
      invoke: quantiles("invoke"),
    },
    rates: {
      invocations: rate("hearth_invoke_seconds_count"),
      errors:
        rate("hearth_invoke_seconds_count", { result: "function-error" }) +
        rate("hearth_invoke_seconds_count", { result: "service-error" }),
      coldStarts: rate("hearth_invoke_seconds_count", { start: "cold" }),
      throttles: rate("hearth_throttles_total"),
    },
    pool: {
      hits: gained("hearth_pool_total", { result: "hit" }),
      misses: gained("hearth_pool_total", { result: "miss" }),
    },
    processCpus: rate("process_cpu_seconds_total"),
    slotCpus: slotCpus(from, to, seconds),
  };
};
