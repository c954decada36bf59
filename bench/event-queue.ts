import { PutFunctionConcurrencyCommand } from "@aws-sdk/client-lambda";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { deploy } from "../src/cli/deploy.ts";
import { getControl, getSlots } from "../src/daemon/control.ts";
import { QUIETLY, startHearth } from "./hearth.ts";
import type { BenchHearth } from "./hearth.ts";
import { nodeFunction } from "./invoke.ts";
import { isGood, PlainClient } from "./plain-client.ts";
import type { Result } from "./result.ts";
import { spin } from "./spinners.ts";
import { parallel, round, timed } from "./statistics.ts";

const CLIENTS = 64;
const ACCEPTS = 10_000;
const QUEUED = 10_000;
/** What one function may have running, and for how long they do. */
const SLOW_RUNNING = 64;
const SLOW_MS = 25_000;
/** On a machine that cannot start so many in this time the measurement begins with those that there are. */
const SLOW_START_MS_MAX = 20_000;
const RESERVED_EVENTS = 30;
const RESERVED_MS = 100;
const WAIT_MS_MAX = 120_000;
const LOOK_MS = 10;

const SLEEPS = `export const handler = async ({ ms = 0 }) => { await new Promise((resolve) => setTimeout(resolve, ms)); };`;
const NAMES = { held: "queue-held", reserved: "queue-reserved", slow: "queue-slow", other: "queue-other" } as const;

/** The value of a metric without labels. */
const metric = async (dataDir: string, name: string): Promise<number> => {
  const text = await getControl(dataDir, "/metrics");
  return Number(new RegExp(`^${name} (\\S+)$`, "m").exec(text)?.[1] ?? Number.NaN);
};

const until = async (condition: () => Promise<boolean>, msMax: number = WAIT_MS_MAX): Promise<boolean> => {
  const endMs = performance.now() + msMax;
  while (performance.now() < endMs) {
    if (await condition()) return true;
    await sleep(LOOK_MS);
  }
  return false;
};

/** Sends events by so many clients at once; resolves to how many were not accepted. */
const send = async (client: PlainClient, name: string, count: number, ms: number): Promise<number> => {
  let refused = 0;
  await parallel(count, CLIENTS, async () => {
    if ((await client.invoke(name, JSON.stringify({ ms }), "Event")).status !== 202) refused += 1;
  });
  return refused;
};

interface Figures {
  readonly acceptsPerSecond: number;
  readonly refused: number;
  readonly reservedMs: number;
  readonly otherMs: number;
  readonly slowRunning: number;
}

const measure = async (hearth: BenchHearth, dataDir: string): Promise<Figures> => {
  using client = new PlainClient(hearth.endpoint, CLIENTS);
  for (const name of Object.values(NAMES)) {
    await deploy(hearth.client, { ...(await nodeFunction(name, SLEEPS)), memoryMb: 128, timeoutS: 60 });
  }
  const reserve = (name: string, ReservedConcurrentExecutions: number): Promise<unknown> =>
    hearth.client.send(new PutFunctionConcurrencyCommand({ FunctionName: name, ReservedConcurrentExecutions }));

  await reserve(NAMES.reserved, 1);
  // Its slot is warm: what is measured is the time between events.
  if (!isGood(await client.invoke(NAMES.reserved))) throw new Error(`${NAMES.reserved} failed`);
  let refused = 0;
  const reservedMs = await timed(async () => {
    refused += await send(client, NAMES.reserved, RESERVED_EVENTS, RESERVED_MS);
    if (!(await until(async () => (await metric(dataDir, "hearth_events_waiting")) === 0))) {
      throw new Error(`${RESERVED_EVENTS} events of ${RESERVED_MS} ms did not end within ${WAIT_MS_MAX} ms`);
    }
  });

  // Nothing of it runs, so that accepting is all there is to do.
  await reserve(NAMES.held, 0);
  refused += await send(client, NAMES.held, CLIENTS, 0);
  const acceptsMs = await timed(async () => (refused += await send(client, NAMES.held, ACCEPTS, 0)));

  refused += await send(client, NAMES.slow, QUEUED, SLOW_MS);
  const running = (): Promise<number> => metric(dataDir, "hearth_concurrent_executions");
  await until(async () => (await running()) >= SLOW_RUNNING, SLOW_START_MS_MAX);
  const slowRunning = await running();
  const otherMs = await timed(async () => {
    refused += await send(client, NAMES.other, 1, 0);
    const ran = until(async () =>
      (await getSlots(dataDir)).some((slot) => slot.functionArn.endsWith(NAMES.other) && slot.state !== "Init"),
    );
    if (!(await ran)) throw new Error(`Another function's event did not start within ${WAIT_MS_MAX} ms`);
  });
  const acceptsPerSecond = ACCEPTS / (acceptsMs / 1_000);
  return { acceptsPerSecond, refused, reservedMs, otherMs, slowRunning };
};

const upper = (name: string): string => name.charAt(0).toUpperCase() + name.slice(1);

const named = (figures: Figures, prefix: string): Record<string, number> =>
  Object.fromEntries(
    Object.entries(figures).map(([name, value]) => [prefix === "" ? name : prefix + upper(name), round(Number(value))]),
  );

/**
 * The queue of asynchronous invocations: how many events a second 64 clients get durably accepted, how long 30 events of
 * 100 ms take at reserved concurrency 1, and how long another function's first event waits (its cold start included)
 * behind 10,000 of one function of which as many run as may. On the machine as it is, then beside spinning processes
 * (`busy…`). Each in a Hearth of its own: the first one's queue is full.
 */
export const eventQueue = async (): Promise<Result> => {
  await using owned = new AsyncDisposableStack();
  const scratch = await mkdtemp(join(tmpdir(), "hearth-queue-"));
  owned.defer(() => rm(scratch, { recursive: true, force: true }));
  const once = async (prefix: string): Promise<Record<string, number>> => {
    const dataDir = join(scratch, prefix === "" ? "quiet" : prefix);
    await using hearth = await startHearth(dataDir, ...QUIETLY);
    return named(await measure(hearth, dataDir), prefix);
  };
  const quiet = await once("");
  await using _spinners = await spin();
  return { clients: CLIENTS, queued: QUEUED, ...quiet, ...(await once("busy")) };
};
