import { SLOT_MB_EXPECTED } from "../wire/limits.ts";
import type { WorkerReport } from "../wire/roles.ts";
import type { Correlation } from "./demand.ts";

/** A worker as Placement knows it: its last report and what was promised on it since. */
export interface FleetWorker {
  readonly report: WorkerReport;
  /** Nominal memory in MB, and slots, that leases hold but the report does not show yet. */
  readonly promisedMb: number;
  readonly promisedSlots: number;
  /** Slots by group of functions, promised ones included. */
  readonly groups: ArrayLike<number>;
}

/** The slot that wants a place. */
export interface Wanted {
  readonly memoryMb: number;
  readonly group: number;
  /** Slots of its group in the whole fleet. */
  readonly groupSlots: number;
  readonly correlations: readonly Correlation[];
}

export type Choice =
  | { readonly workerId: string; readonly fullness: number; readonly reason: string }
  | { readonly workerId: null; readonly fullness: null; readonly reason: string };

const MB = 1024 * 1024;
/** Busy slots a CPU and nominal memory a host are reckoned to carry: the oversubscription that the Firecracker paper reports from production. */
const OVERSUBSCRIPTION = 10;
const RESOURCES = 7;
/** What else counts beside the scarcest resource, against its share of 0 to 1. */
const WEIGHT_OTHERS = 0.2;
const WEIGHT_SPREAD = 0.5;
const WEIGHT_CORRELATED = 0.5;

const expectedMb = ({ memoryMb }: Pick<Wanted, "memoryMb">): number => Math.min(memoryMb, SLOT_MB_EXPECTED);

/** MB that the slots promised here will take. */
const promisedMbOf = (worker: FleetWorker): number =>
  Math.min(worker.promisedMb, worker.promisedSlots * SLOT_MB_EXPECTED);

interface Fullness {
  /** Share in use of the scarcest resource, which will run out first; over 1 it is used up. */
  readonly worst: number;
  readonly mean: number;
}

/** How full a worker would be with this slot. */
const fullnessOf = (worker: FleetWorker, wanted: Wanted): Fullness => {
  const { report, promisedSlots } = worker;
  const totalMb = report.memoryBytesTotal / MB;
  const usedMb = totalMb - report.memoryBytesAvailable / MB + promisedMbOf(worker) + expectedMb(wanted);
  const memory = usedMb / totalMb;
  const committed = (report.memoryMbCommitted + worker.promisedMb + wanted.memoryMb) / (totalMb * OVERSUBSCRIPTION);
  const slots = (report.slots + promisedSlots + 1) / report.slotsMax;
  const busy = (report.busy + promisedSlots + 1) / (report.cpus * OVERSUBSCRIPTION);
  const storage = 1 - report.storageBytesAvailable / Math.max(1, report.storageBytesTotal);
  const { cpuShare, networkShare } = report;
  return {
    worst: Math.max(memory, committed, slots, busy, cpuShare, networkShare, storage),
    mean: (memory + committed + slots + busy + cpuShare + networkShare + storage) / RESOURCES,
  };
};

/** Share of the function's slots that would stand and fall with this worker. */
const sameFunction = (worker: FleetWorker, { group, groupSlots }: Wanted): number =>
  (worker.groups[group] ?? 0) / (groupSlots + 1);

/** Share of the worker's slots that grow busy when this function does. */
const correlated = (worker: FleetWorker, { correlations }: Wanted): number => {
  let weighted = 0;
  for (const { group, weight } of correlations) weighted += (worker.groups[group] ?? 0) * weight;
  return weighted / (worker.report.slots + worker.promisedSlots + 1);
};

/** Never a worker that drains or has no memory. One whose slots or memory are all taken may still end idle ones. */
const fits = (worker: FleetWorker, wanted: Wanted): boolean => {
  const { draining, memoryBytesAvailable, memoryBytesIdle } = worker.report;
  return !draining && (memoryBytesAvailable + memoryBytesIdle) / MB > promisedMbOf(worker) + expectedMb(wanted);
};

/** What a place costs; the smaller the better. Infinite where the slot does not fit. */
export const costOf = (worker: FleetWorker, wanted: Wanted): number => {
  if (!fits(worker, wanted)) return Number.POSITIVE_INFINITY;
  const { worst, mean } = fullnessOf(worker, wanted);
  return (
    worst +
    WEIGHT_OTHERS * mean +
    WEIGHT_SPREAD * sameFunction(worker, wanted) +
    WEIGHT_CORRELATED * correlated(worker, wanted)
  );
};

/** Chooses among workers. Pure: one pass, no clock, no randomness; the first of equals. */
export const decide = (workers: readonly FleetWorker[], wanted: Wanted): Choice => {
  let best: FleetWorker | null = null;
  let cost = Number.POSITIVE_INFINITY;
  for (const worker of workers) {
    const its = costOf(worker, wanted);
    if (its < cost) {
      best = worker;
      cost = its;
    }
  }
  if (best === null) {
    const why =
      workers.length === 0
        ? "there is no worker"
        : `none of ${workers.length} workers takes new slots and has memory left for one of ${wanted.memoryMb} MB`;
    return { workerId: null, fullness: null, reason: why };
  }
  const { worst } = fullnessOf(best, wanted);
  const reason = `least loaded of ${workers.length}: ${(worst * 100).toFixed(1)} % after this slot`;
  return { workerId: best.report.workerId, fullness: worst, reason };
};
