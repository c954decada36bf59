import { setTimeout as sleep } from "node:timers/promises";
import { VirtualClock } from "../src/lib/virtual-clock.ts";
import { systemIds } from "../src/lib/ids.ts";
import { systemClock } from "../src/lib/clock.ts";
import { seededRandom } from "../src/lib/random.ts";
import { Placement } from "../src/placement/placement.ts";
import { createMetrics, noTracer } from "../src/telemetry/index.ts";
import { FUNCTION_GROUPS, HEARTBEAT_MS } from "../src/wire/limits.ts";
import type { WorkerReport } from "../src/wire/roles.ts";
import { ListedWorker, specOf } from "../src/worker-manager/testing.ts";
import { WorkerManager } from "../src/worker-manager/worker-manager.ts";
import type { Result } from "./result.ts";
import { percentile } from "./statistics.ts";

/*
 * The deciding parts alone, with workers that only keep lists: what is measured is the Worker Manager and Placement,
 * at the sizes and rates they are made for, in the wall-clock time that a caller waits.
 */

const GIB = 1024 ** 3;
const RESERVES_PER_S = 2_000;
const RESERVE_S = 15;
const WARM_UP_S = 5;
const FUNCTIONS = 1_000;
const WORKERS = 30;
/** Invocations run for 1.5 s on average, so that about 3,000 slots are in use at once. */
const RUN_MS_MEAN = 1_500;
const TICK_MS = 5;

const FLEET = 10_000;
const DECISIONS = 20_000;
/** So many decisions between two heartbeats of a worker: slow enough that what grows together shows within the run. */
const DECISIONS_PER_HEARTBEATS = 100;

const micro = (ms: number): number => Math.round(ms * 1_000_000) / 1_000_000;

const latencies = (timesMs: readonly number[]): Readonly<Record<string, number>> => ({
  n: timesMs.length,
  p50Ms: micro(percentile(timesMs, 0.5)),
  p99Ms: micro(percentile(timesMs, 0.99)),
  p999Ms: micro(percentile(timesMs, 0.999)),
  maxMs: micro(Math.max(...timesMs)),
});

const report = (workerId: string, random: () => number, atMs: number): WorkerReport => {
  const slots = Math.floor(random() * 300);
  const groups = Array.from({ length: FUNCTION_GROUPS }, () => 0);
  for (let slot = 0; slot < slots; slot += 1) {
    const group = Math.floor(random() * FUNCTION_GROUPS);
    groups[group] = (groups[group] ?? 0) + 1;
  }
  return {
    workerId,
    atMs,
    placementLeases: [],
    cpus: 64,
    memoryBytesTotal: 256 * GIB,
    memoryBytesAvailable: (256 - slots / 4) * GIB,
    memoryBytesIdle: 0,
    memoryMbCommitted: slots * 512,
    slots,
    slotsMax: 3_000,
    busy: Math.floor(slots * random()),
    groups,
    cpuShare: random() * 0.8,
    networkShare: random() * 0.3,
    storageBytesTotal: 1_000 * GIB,
    storageBytesAvailable: 500 * GIB,
    draining: random() < 0.01,
  };
};

/** Few functions have most of the calls: the n-th most popular one a share of 1/n (Zipf). */
const popularity = (random: () => number): (() => number) => {
  const sums: number[] = [];
  let sum = 0;
  for (let rank = 1; rank <= FUNCTIONS; rank += 1) sums.push((sum += 1 / rank));
  return () => {
    const drawn = random() * sum;
    return sums.findIndex((upTo) => drawn <= upTo);
  };
};

/** Reservations as they come, 2,000 a second whether or not the ones before were answered, and their releases. */
export const reserve = async (): Promise<Result> => {
  const random = seededRandom(1);
  const next = popularity(random);
  const specs = Array.from({ length: FUNCTIONS }, (_, at) => specOf(`f${at}`));
  const workers = Array.from({ length: WORKERS }, (_, at) => new ListedWorker(`w${at}`));
  const placement = new Placement({ clock: systemClock, ids: systemIds, random });
  const metrics = createMetrics();
  const manager = new WorkerManager({
    placement,
    metrics,
    tracer: noTracer,
    clock: systemClock,
    ids: systemIds,
    accountConcurrency: 100_000,
  });
  for (const worker of workers) await manager.addWorker(worker);
  const heartbeat = (): void => {
    for (const { workerId, slots } of workers) {
      placement.heartbeat({ ...report(workerId, random, Date.now()), slots: slots.size, draining: false });
    }
    void manager.sweep();
  };
  heartbeat();
  const beating = setInterval(heartbeat, HEARTBEAT_MS);
  const timesMs: number[] = [];
  let [slotsMost, failed, cold] = [0, 0, 0];
  const invocation = async (measured: boolean): Promise<void> => {
    const spec = specs[next()];
    if (spec === undefined) return;
    const startedMs = performance.now();
    try {
      const lease = await manager.reserve({ spec, requestId: "r", reservedConcurrency: null, trace: null });
      if (measured) {
        timesMs.push(performance.now() - startedMs);
        if (lease.cold) cold += 1;
      }
      await sleep(-Math.log(1 - random()) * RUN_MS_MEAN);
      await manager.release(lease.leaseId, random() < 0.001 ? "broken" : "reusable");
    } catch {
      failed += 1;
    }
  };
  const running = new Set<Promise<void>>();
  const startedMs = performance.now();
  const total = RESERVES_PER_S * (WARM_UP_S + RESERVE_S);
  for (let begun = 0; begun < total;) {
    await sleep(TICK_MS);
    const due = Math.min(total, Math.floor(((performance.now() - startedMs) / 1000) * RESERVES_PER_S));
    for (; begun < due; begun += 1) {
      const one = invocation(begun >= RESERVES_PER_S * WARM_UP_S).finally(() => running.delete(one));
      running.add(one);
    }
    slotsMost = Math.max(
      slotsMost,
      workers.reduce((sum, worker) => sum + worker.slots.size, 0),
    );
  }
  const seconds = (performance.now() - startedMs) / 1000;
  await Promise.all(running);
  clearInterval(beating);
  const perSecond = Math.round(total / seconds);
  return { ...latencies(timesMs), perSecond, functions: FUNCTIONS, slots: slotsMost, cold, failed };
};

/** Decisions for 10,000 workers of different load, with their heartbeats in between. */
export const placement = async (): Promise<Result> => {
  const random = seededRandom(2);
  const next = popularity(random);
  const clock = new VirtualClock();
  const fleet = new Placement({ clock, ids: systemIds, random });
  const reports = Array.from({ length: FLEET }, (_, at) => report(`w${at}`, random, 0));
  for (const one of reports) fleet.heartbeat(one);
  const timesMs: number[] = [];
  const beatsMs: number[] = [];
  const beatsPerDecision = FLEET / DECISIONS_PER_HEARTBEATS;
  for (let made = 0; made < DECISIONS; made += 1) {
    clock.pass(HEARTBEAT_MS / DECISIONS_PER_HEARTBEATS);
    const functionArn = specOf(`f${next()}`).functionArn;
    const startedMs = performance.now();
    await fleet.place({ functionArn, memoryMb: 512 });
    timesMs.push(performance.now() - startedMs);
    for (let beat = 0; beat < beatsPerDecision; beat += 1) {
      const one = reports[(made * beatsPerDecision + beat) % FLEET];
      if (one === undefined) continue;
      const beganMs = performance.now();
      fleet.heartbeat({ ...one, atMs: clock.wallMs() });
      beatsMs.push(performance.now() - beganMs);
    }
  }
  return { ...latencies(timesMs), workers: FLEET, heartbeatP50Ms: micro(percentile(beatsMs, 0.5)) };
};
