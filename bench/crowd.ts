/**
 * A process that boots microVMs and keeps them until it is told to end: one of several, because a process may have
 * only so many descriptors. Started by density.ts.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { bootMicroVm } from "../src/worker/booted.ts";
import { bootOptions } from "./boot-options.ts";
import { memoryAvailable } from "./machine.ts";
import { nextId } from "./microvm.ts";
import { parallel } from "./statistics.ts";

/** What such a process is told, as its only argument. */
export interface CrowdOrder {
  readonly count: number;
  readonly atOnce: number;
  readonly memoryMib: number;
  /** No more are booted when the host has less than this left. */
  readonly memoryLeftBytes: number;
  readonly scratch: string;
}

/** What it says when all that could be booted are. */
export interface CrowdReport {
  readonly up: number;
  readonly failed: number;
  readonly firstError: string | null;
}

const PARENT_CHECK_MS = 500;

const main = async (order: CrowdOrder): Promise<void> => {
  const boot = await bootOptions(order.scratch);
  await using owned = new AsyncDisposableStack();
  const errors: string[] = [];
  let up = 0;
  await parallel(order.count, order.atOnce, async () => {
    if ((await memoryAvailable()) < order.memoryLeftBytes) return;
    try {
      owned.use(await bootMicroVm(boot, nextId(), order.memoryMib));
      up += 1;
    } catch (error) {
      errors.push(error instanceof Error ? error.message : String(error));
    }
  });
  const report: CrowdReport = { up, failed: errors.length, firstError: errors[0] ?? null };
  process.send?.(report);
  // The parent ends us by closing the channel, also when it dies.
  while (process.connected) await sleep(PARENT_CHECK_MS);
};

const [order] = process.argv.slice(2);
if (order !== undefined && process.send !== undefined) await main(JSON.parse(order) as CrowdOrder);
