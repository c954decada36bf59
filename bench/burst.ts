import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { deploy } from "../src/cli/deploy.ts";
import { QUIETLY, startHearth } from "./hearth.ts";
import type { BenchHearth } from "./hearth.ts";
import { nativeFunction } from "./invoke.ts";
import { isGood, PlainClient } from "./plain-client.ts";
import type { Result } from "./result.ts";
import { spin } from "./spinners.ts";
import { percentile, round, timed } from "./statistics.ts";

const CALLS = 300;
const ALONE = 20;
const NAME = "burst";
/** Calls of another function, one after the other, while the burst is under way. */
const OTHER = "burst-other";

interface Burst {
  readonly failed: number;
  readonly firstMs: number;
  readonly lastMs: number;
  /** The first call of another function, made when the burst had just begun. */
  readonly otherMs: number;
}

/** All calls at once, each of which needs a microVM of its own (`reuse: never`), and one of another function behind them. */
const burst = async (client: PlainClient): Promise<Burst> => {
  const startedMs = performance.now();
  const endedMs: number[] = [];
  let failed = 0;
  const count = async (): Promise<void> => {
    const answer = await client.invoke(NAME);
    endedMs.push(performance.now() - startedMs);
    if (!isGood(answer)) failed += 1;
  };
  const calls = Array.from({ length: CALLS }, count);
  const otherMs = await timed(async () => {
    if (!isGood(await client.invoke(OTHER))) failed += 1;
  });
  await Promise.all(calls);
  return { failed, firstMs: Math.min(...endedMs), lastMs: Math.max(...endedMs), otherMs };
};

/** One start alone: the same call one after the other. */
const alone = async (client: PlainClient): Promise<number> => {
  const timesMs: number[] = [];
  for (let n = 0; n < ALONE; n += 1) timesMs.push(await timed(() => client.invoke(NAME)));
  return percentile(timesMs, 0.5);
};

const upper = (name: string): string => name.charAt(0).toUpperCase() + name.slice(1);

const measure = async ({ endpoint }: BenchHearth, prefix: string): Promise<Record<string, number>> => {
  using client = new PlainClient(endpoint, CALLS + 1);
  const aloneMs = await alone(client);
  const { failed, firstMs, lastMs, otherMs } = await burst(client);
  const named = {
    failed,
    aloneMs: round(aloneMs),
    firstMs: round(firstMs),
    lastMs: round(lastMs),
    lastToAlone: round(lastMs / (CALLS * aloneMs)),
    otherMs: round(otherMs),
  };
  return Object.fromEntries(
    Object.entries(named).map(([name, value]) => [prefix === "" ? name : prefix + upper(name), value]),
  );
};

/**
 * As many cold calls at once as a machine of few CPUs cannot start at once: how many fail, when the first and the last is
 * answered (beside as many starts, one after the other), and how long another function's first call waits. On the machine
 * as it is, then beside spinning processes (`busy…`).
 */
export const coldBurst = async (): Promise<Result | null> => {
  await using owned = new AsyncDisposableStack();
  const scratch = await mkdtemp(join(tmpdir(), "hearth-burst-"));
  owned.defer(() => rm(scratch, { recursive: true, force: true }));
  const wanted = await nativeFunction(NAME, scratch);
  if (wanted === null) return null;
  const hearth = owned.use(await startHearth(join(scratch, "data"), "--pool", "0", ...QUIETLY));
  for (const name of [NAME, OTHER]) await deploy(hearth.client, { ...wanted, name, timeoutS: 30, reuse: "never" });
  const quiet = await measure(hearth, "");
  const spinners = await spin();
  try {
    return { calls: CALLS, ...quiet, ...(await measure(hearth, "busy")) };
  } finally {
    await spinners[Symbol.asyncDispose]();
  }
};
