import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { deploy } from "../src/cli/deploy.ts";
import type { Deployment } from "../src/cli/deploy.ts";
import { QUIETLY, startHearth } from "./hearth.ts";
import { nativeFunction, nodeFunction } from "./invoke.ts";
import { isGood, PlainClient } from "./plain-client.ts";
import type { Result } from "./result.ts";
import { spin } from "./spinners.ts";
import { percentile, round } from "./statistics.ts";

const FEW = 8;
const MANY = 256;
/** The two take turns, so that what else the machine does meets both. */
const ROUNDS = 3;
const ROUND_MS = 4_000;
/** A round begins with so much that is not counted: slots that are missing are started. */
const WARM_UP_MS = 2_000;
const SLEEP_MS = 100;
const SLEEPS = `export const handler = async () => { await new Promise((resolve) => setTimeout(resolve, ${SLEEP_MS})); return { ok: true }; };`;

interface Round {
  readonly perSecond: number;
  readonly p99Ms: number;
  readonly failed: number;
}

/** Closed-loop clients: each calls again as soon as it has its answer. */
const measure = async (endpoint: string, name: string, clients: number): Promise<Round> => {
  using client = new PlainClient(endpoint, clients);
  const timesMs: number[] = [];
  let failed = 0;
  const countFromMs = performance.now() + WARM_UP_MS;
  const endMs = countFromMs + ROUND_MS;
  const loop = async (): Promise<void> => {
    while (performance.now() < endMs) {
      const startedMs = performance.now();
      const good = isGood(await client.invoke(name));
      if (!good) failed += 1;
      const answeredMs = performance.now();
      if (good && answeredMs >= countFromMs && answeredMs <= endMs) timesMs.push(answeredMs - startedMs);
    }
  };
  await Promise.all(Array.from({ length: clients }, loop));
  return { perSecond: timesMs.length / (ROUND_MS / 1000), p99Ms: percentile(timesMs, 0.99), failed };
};

const median = (values: readonly number[]): number => round(percentile(values, 0.5));

/** Few clients against many, on one warm function. */
const compare = async (endpoint: string, name: string, prefix: string): Promise<Record<string, number>> => {
  const rounds: { readonly few: Round; readonly many: Round }[] = [];
  for (let n = 0; n < ROUNDS; n += 1) {
    rounds.push({ few: await measure(endpoint, name, FEW), many: await measure(endpoint, name, MANY) });
  }
  return {
    [`${prefix}Few`]: median(rounds.map(({ few }) => few.perSecond)),
    [`${prefix}Many`]: median(rounds.map(({ many }) => many.perSecond)),
    [`${prefix}ManyToFew`]: median(rounds.map(({ few, many }) => many.perSecond / few.perSecond)),
    [`${prefix}ManyP99Ms`]: median(rounds.map(({ many }) => many.p99Ms)),
    errors: rounds.reduce((sum, { few, many }) => sum + few.failed + many.failed, 0),
  };
};

/**
 * Warm throughput of many clients against that of few: what more of them ask for at once must not cost what is answered. On
 * the machine as it is, then beside spinning processes (`…Busy…`). And of a function that only sleeps: there, many at once
 * get many times as much (`sleepingPerSecond`; MANY clients could have 1,000 / SLEEP_MS times MANY).
 */
export const manyClients = async (): Promise<Result | null> => {
  await using owned = new AsyncDisposableStack();
  const scratch = await mkdtemp(join(tmpdir(), "hearth-clients-"));
  owned.defer(() => rm(scratch, { recursive: true, force: true }));
  const { client, endpoint } = owned.use(await startHearth(join(scratch, "data"), ...QUIETLY));
  const native = await nativeFunction("native", scratch);
  const functions: readonly Deployment[] = [await nodeFunction("node"), ...(native === null ? [] : [native])];
  for (const one of functions) await deploy(client, { ...one, timeoutS: 30 });
  const figures: Record<string, number> = {};
  let errors = 0;
  const add = ({ errors: more = 0, ...others }: Record<string, number>): void => {
    errors += more;
    Object.assign(figures, others);
  };
  for (const { name } of functions) add(await compare(endpoint, name, name));
  const sleeping = await nodeFunction("sleeping", SLEEPS);
  await deploy(client, sleeping);
  const many = await measure(endpoint, sleeping.name, MANY);
  add({ sleepingPerSecond: round(many.perSecond), errors: many.failed });
  const spinners = await spin();
  try {
    for (const { name } of functions) add(await compare(endpoint, name, `${name}Busy`));
  } finally {
    await spinners[Symbol.asyncDispose]();
  }
  return { few: FEW, many: MANY, ...figures, errors };
};
