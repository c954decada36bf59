import { fork } from "node:child_process";
import { once } from "node:events";
import { chmod, mkdir, readFile } from "node:fs/promises";
import { totalmem } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { LambdaClient } from "@aws-sdk/client-lambda";
import type { Result } from "./result.ts";
import type { CrowdOrder, CrowdReport } from "./crowd.ts";
import { call, warm } from "./invoke.ts";
import { memoryAvailable } from "./machine.ts";
import { round, spread, timed } from "./statistics.ts";

const AT_ONCE = 50;
/** A microVM takes a dozen and more descriptors, and a process may have 20,000 where nothing else was set. */
const MICROVMS_PER_PROCESS = 1_000;
const CALLS = 200;
const CALL_PAUSE_MS = 20;
const SETTLE_MS = 10_000;
const IDLE_MS = 5_000;
/** No more are booted when the host has less than this left: the bench measures, it does not break the machine. */
const MEMORY_LEFT_BYTES: number = 1_200 * 2 ** 20;

/** A crowd of booted microVMs, beside a Hearth on the same machine that goes on answering. */
export type DensityBench = (scratch: string, client: LambdaClient) => Promise<Result>;

/** Share of the host's CPU time that was used since `before`, in per cent, and the counters now (proc(5), /proc/stat). */
const cpuUsed = async (before: readonly number[] | null): Promise<{ counters: number[]; percent: number }> => {
  const line = (await readFile("/proc/stat", "utf8")).split("\n", 1)[0] ?? "";
  const counters = line.split(/\s+/).slice(1, 9).map(Number);
  const spent = counters.map((value, i) => value - (before?.[i] ?? 0));
  const all = spent.reduce((sum, value) => sum + value, 0);
  const idle = (spent[3] ?? 0) + (spent[4] ?? 0);
  return { counters, percent: round((100 * (all - idle)) / Math.max(1, all)) };
};

const callsOf = async (client: LambdaClient, name: string): Promise<Readonly<Record<string, number>>> => {
  const timesMs: number[] = [];
  for (let n = 0; n < CALLS; n += 1) timesMs.push(await timed(() => call(client, name)));
  return spread(timesMs);
};

/** Boots up to `count` microVMs in processes of their own, which keep them. Calls go on all the while. */
const fill = async (
  owned: AsyncDisposableStack,
  order: Pick<CrowdOrder, "count" | "memoryMib" | "scratch">,
  onCall: () => Promise<unknown>,
): Promise<{
  readonly up: number;
  readonly failed: number;
  readonly timesMs: number[];
  readonly failedCalls: number;
}> => {
  const ended = new AbortController();
  const calls = callUntil(ended.signal, onCall);
  const processes = Math.ceil(order.count / MICROVMS_PER_PROCESS);
  const reports = await Promise.all(
    Array.from({ length: processes }, (_, i) =>
      crowd(owned, {
        count: Math.floor(order.count / processes) + (i < order.count % processes ? 1 : 0),
        atOnce: Math.ceil(AT_ONCE / processes),
        memoryMib: order.memoryMib,
        memoryLeftBytes: MEMORY_LEFT_BYTES,
        scratch: join(order.scratch, `crowd-${i}`),
      }),
    ),
  );
  ended.abort();
  const sum = (of: (report: CrowdReport) => number): number => reports.reduce((all, report) => all + of(report), 0);
  return { up: sum(({ up }) => up), failed: sum(({ failed }) => failed), ...(await calls) };
};

const callUntil = async (
  end: AbortSignal,
  onCall: () => Promise<unknown>,
): Promise<{ timesMs: number[]; failedCalls: number }> => {
  const result = { timesMs: [] as number[], failedCalls: 0 };
  while (!end.aborted) {
    try {
      result.timesMs.push(await timed(onCall));
    } catch {
      result.failedCalls += 1;
    }
    await sleep(CALL_PAUSE_MS);
  }
  return result;
};

/** One process of microVMs, which ends with `owned`. */
const crowd = async (owned: AsyncDisposableStack, order: CrowdOrder): Promise<CrowdReport> => {
  await mkdir(order.scratch, { mode: 0o711 });
  const child = fork(new URL("crowd.ts", import.meta.url), [JSON.stringify(order)]);
  const exited = once(child, "exit");
  owned.defer(async () => {
    if (child.connected) child.disconnect();
    await exited;
  });
  const answer = await Promise.race([once(child, "message"), exited.then(() => null)]);
  if (answer === null)
    throw new Error(`A process of ${order.count} microVMs ended with code ${String(child.exitCode)}`);
  return (answer as [CrowdReport])[0];
};

const density =
  (count: number, memoryMib: number): DensityBench =>
  async (scratch, client) => {
    await chmod(scratch, 0o711);
    const name = await warm(client);
    const alone = await callsOf(client, name);
    await using owned = new AsyncDisposableStack();
    await sleep(SETTLE_MS);
    const before = await memoryAvailable();
    const startedMs = performance.now();
    const filled = await fill(owned, { count, memoryMib, scratch }, () => call(client, name));
    const seconds = (performance.now() - startedMs) / 1000;
    await sleep(SETTLE_MS);
    const used = before - (await memoryAvailable());
    const { counters } = await cpuUsed(null);
    await sleep(IDLE_MS);
    const { percent } = await cpuUsed(counters);
    const beside = await callsOf(client, name);
    const meanwhile = spread(filled.timesMs);
    return {
      wanted: count,
      up: filled.up,
      failed: filled.failed,
      nominalMb: memoryMib,
      perSecond: round(filled.up / seconds),
      mbEach: round(used / filled.up / 2 ** 20),
      oversubscription: round((filled.up * memoryMib * 2 ** 20) / totalmem()),
      idleCpuPercent: percent,
      warmAloneP50Ms: alone["p50Ms"] ?? 0,
      warmAloneP99Ms: alone["p99Ms"] ?? 0,
      warmWhileBootingP50Ms: meanwhile["p50Ms"] ?? 0,
      warmBesideP50Ms: beside["p50Ms"] ?? 0,
      warmBesideP99Ms: beside["p99Ms"] ?? 0,
      failedCalls: filled.failedCalls,
    };
  };

/** 512 MB is a common size; the paper's oversubscription is 20 times a host's memory. */
export const densityOf512: DensityBench = density(1_800, 512);
/** The smallest size, and as many of them as the paper has slots on a worker. */
export const densityOf128: DensityBench = density(3_000, 128);
