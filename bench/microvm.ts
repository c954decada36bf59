import { setTimeout as sleep } from "node:timers/promises";
import { bootMicroVm } from "../src/worker/booted.ts";
import type { BootedMicroVm, BootOptions } from "../src/worker/booted.ts";
import type { Result } from "./result.ts";
import { memoryAvailable } from "./machine.ts";
import { parallel, round, spread } from "./statistics.ts";

export type BootBench = (boot: BootOptions) => Promise<Result>;

const MEMORY_MIB = 128;
const SERIAL_BOOTS = 200;
const MANY_BOOTS = 1_000;
const AT_ONCE = 50;
/** The smallest, usual ones, and Lambda's largest. */
const SIZES_MIB: readonly number[] = [128, 512, 1_024, 3_072, 10_240];
const SIZE_BOOTS = 20;
const IDLE_MICROVMS = 200;
/** Caches and lazy writes come to rest. */
const SETTLE_MS = 2_000;

let made = 0;
export const nextId = (): string => `bench-${process.pid}-${(made += 1)}`;

export const bootSerial: BootBench = async (boot) => {
  const timesMs: number[] = [];
  for (let n = 0; n < SERIAL_BOOTS; n += 1) {
    await using booted = await bootMicroVm(boot, nextId(), MEMORY_MIB);
    timesMs.push(booted.bootMs);
  }
  return { ...spread(timesMs), samplesMs: timesMs };
};

export const bootMany: BootBench = async (boot) => {
  const timesMs: number[] = [];
  let failed = 0;
  let firstError: unknown = null;
  const startedMs = performance.now();
  await parallel(MANY_BOOTS, AT_ONCE, async () => {
    try {
      await using booted = await bootMicroVm(boot, nextId(), MEMORY_MIB);
      timesMs.push(booted.bootMs);
    } catch (error) {
      failed += 1;
      firstError ??= error;
    }
  });
  if (timesMs.length === 0) throw firstError;
  const seconds = (performance.now() - startedMs) / 1000;
  return { ...spread(timesMs), perSecond: round(MANY_BOOTS / seconds), failed, samplesMs: timesMs };
};

/** What a guest's nominal memory costs before it is used: time, and host memory as its control group counts it. */
export const bootSizes: BootBench = async (boot) => {
  const result: Record<string, number> = {};
  for (const mib of SIZES_MIB) {
    const timesMs: number[] = [];
    let memoryBytes = 0;
    for (let n = 0; n < SIZE_BOOTS; n += 1) {
      await using booted = await bootMicroVm(boot, nextId(), mib);
      timesMs.push(booted.bootMs);
      ({ memoryBytes } = await booted.vm.stats());
    }
    result[`p50Ms${mib}`] = spread(timesMs)["p50Ms"] ?? Number.NaN;
    result[`mb${mib}`] = round(memoryBytes / 2 ** 20);
  }
  return result;
};

/** Everything counted: MemAvailable before and after, divided by the number. */
export const idleMemory: BootBench = async (boot) => {
  await using owned = new AsyncDisposableStack();
  await sleep(SETTLE_MS);
  const before = await memoryAvailable();
  await parallel(IDLE_MICROVMS, AT_ONCE, async () => {
    const booted: BootedMicroVm = await bootMicroVm(boot, nextId(), MEMORY_MIB);
    owned.use(booted);
  });
  await sleep(SETTLE_MS);
  const used = before - (await memoryAvailable());
  return { n: IDLE_MICROVMS, mbEach: round(used / IDLE_MICROVMS / 2 ** 20), nominalMb: MEMORY_MIB };
};
