/** The value below which a share `rank` (0..1) of the values lies, by the nearest-rank method; NaN for none. */
export const percentile = (values: readonly number[], rank: number): number => {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.max(0, Math.ceil(rank * sorted.length) - 1)] ?? Number.NaN;
};

/** Two digits behind the point are all that a shared machine can tell. */
export const round = (value: number): number => Math.round(value * 100) / 100;

/** p50, p99 and the extremes of durations in ms, with their number. */
export const spread = (valuesMs: readonly number[]): Readonly<Record<string, number>> => ({
  n: valuesMs.length,
  p50Ms: round(percentile(valuesMs, 0.5)),
  p99Ms: round(percentile(valuesMs, 0.99)),
  minMs: round(Math.min(...valuesMs)),
  maxMs: round(Math.max(...valuesMs)),
});

/** How long an action took, in ms. */
export const timed = async (action: () => Promise<unknown>): Promise<number> => {
  const startedMs = performance.now();
  await action();
  return performance.now() - startedMs;
};

/** Runs `count` actions, at most `width` at a time. */
export const parallel = async (
  count: number,
  width: number,
  action: (index: number) => Promise<void>,
): Promise<void> => {
  let next = 0;
  const lane = async (): Promise<void> => {
    while (next < count) {
      const index = next;
      next += 1;
      await action(index);
    }
  };
  await Promise.all(Array.from({ length: Math.min(width, count) }, lane));
};
