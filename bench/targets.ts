import type { Result } from "./result.ts";

/** What a figure is to reach: `limit` is the least that is good enough, `aim` what we are after. */
export interface Target {
  readonly bench: string;
  /** Name of the figure in the bench's result. */
  readonly figure: string;
  readonly limit: number;
  readonly aim: number;
  /** Whether less of it is better. */
  readonly lower: boolean;
}

const atMost = (bench: string, figure: string, limit: number, aim: number): Target => ({
  bench,
  figure,
  limit,
  aim,
  lower: true,
});

const atLeast = (bench: string, figure: string, limit: number, aim: number): Target => ({
  bench,
  figure,
  limit,
  aim,
  lower: false,
});

export const TARGETS: readonly Target[] = [
  atMost("boot", "p50Ms", 15, 10),
  atMost("boot", "p99Ms", 25, 14),
  atLeast("boot-50", "perSecond", 80, 150),
  atMost("boot-50", "failed", 0, 0),
  atMost("idle-memory", "mbEach", 7, 5),
  atMost("cold-native", "emptyPoolP50Ms", 30, 18),
  atMost("cold-node", "emptyPoolP50Ms", 180, 110),
  atMost("cold-native", "p50Ms", 15, 8),
  atMost("cold-node", "p50Ms", 60, 25),
  atMost("warm-node", "p50Ms", 3, 1.2),
  atMost("warm-node", "p99Ms", 10, 4),
  atLeast("throughput", "perSecond", 500, 1_500),
  atMost("payload-6mb", "inP50Ms", 300, 80),
  atMost("payload-6mb", "outP50Ms", 300, 80),
  atLeast("density-512", "up", 1_000, 1_800),
  atLeast("density-128", "up", 3_000, 3_000),
  atMost("burst", "failed", 0, 0),
  atMost("burst", "firstMs", 1_000, 200),
  atMost("burst", "lastToAlone", 1.3, 1),
  atMost("burst", "busyFailed", 0, 0),
  atMost("burst", "busyFirstMs", 1_000, 200),
  atMost("burst", "busyLastToAlone", 1.3, 1),
  atLeast("clients", "nodeManyToFew", 0.6, 0.9),
  atLeast("clients", "nativeManyToFew", 0.6, 0.9),
  atLeast("clients", "nodeBusyManyToFew", 0.6, 0.9),
  atLeast("clients", "nativeBusyManyToFew", 0.6, 0.9),
  atMost("clients", "errors", 0, 0),
  atMost("queue", "otherMs", 2_000, 300),
  atMost("queue", "reservedMs", 6_000, 3_500),
  atLeast("queue", "acceptsPerSecond", 1_000, 3_000),
  atMost("queue", "refused", 0, 0),
  atMost("queue", "busyOtherMs", 2_000, 300),
  atMost("queue", "busyReservedMs", 6_000, 3_500),
  atLeast("queue", "busyAcceptsPerSecond", 1_000, 3_000),
  atMost("queue", "busyRefused", 0, 0),
  atLeast("reuse-never", "perSecond", 50, 100),
  atMost("reserve", "p999Ms", 10, 2),
  atMost("placement", "p999Ms", 2, 0.5),
  atMost("neighbours", "cpuRatio", 2.5, 1.3),
  atMost("neighbours", "fsyncRatio", 2.5, 1.3),
  atMost("neighbours", "writeRatio", 2.5, 1.3),
  atMost("neighbours", "outputRatio", 2.5, 1.3),
  atMost("neighbours", "networkRatio", 2.5, 1.3),
];

export type Verdict = "aim" | "limit" | "missed" | "not measured";

/** A target with what was measured for it. */
export interface Judged extends Target {
  readonly measured: number | null;
  readonly verdict: Verdict;
}

/** Holds the results of one run against the targets of the benches that ran. */
export const judge = (results: ReadonlyMap<string, Result>): Judged[] =>
  TARGETS.filter(({ bench }) => results.has(bench)).map((target) => judged(target, results.get(target.bench)));

const judged = (target: Target, result: Result | undefined): Judged => {
  const value = result?.[target.figure];
  const measured = typeof value === "number" ? value : null;
  return { ...target, measured, verdict: measured === null ? "not measured" : verdictOf(target, measured) };
};

const verdictOf = ({ limit, aim, lower }: Target, measured: number): Verdict => {
  const reaches = (bound: number): boolean => (lower ? measured <= bound : measured >= bound);
  if (reaches(aim)) return "aim";
  return reaches(limit) ? "limit" : "missed";
};
