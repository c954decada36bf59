import type { PlacementRequest, WorkerReport } from "../wire/roles.ts";

/** A worker as Placement knows it: its last report and what was promised on it since. */
export interface FleetWorker {
  readonly report: WorkerReport;
  /** Memory in MB and slots that leases hold but the report does not show yet. */
  readonly promisedMb: number;
  readonly promisedSlots: number;
  /** Slots of the function in question. */
  readonly sameFunction: number;
}

export type Choice =
  | { readonly workerId: string; readonly reason: string }
  | { readonly workerId: null; readonly reason: string };

const MB = 1024 * 1024;

/**
 * How full a worker would be, the smaller the better: the worst of its resources counts, since that one will run out
 * first; slots of the same function count on top, so that one function spreads and one host's end is not its end.
 */
const load = (worker: FleetWorker, request: PlacementRequest): number => {
  const { report } = worker;
  const usedMb = (report.memoryBytesTotal - report.memoryBytesAvailable) / MB + worker.promisedMb + request.memoryMb;
  const memory = usedMb / (report.memoryBytesTotal / MB);
  const slots = (report.slots + worker.promisedSlots + 1) / report.slotsMax;
  const cpu = (report.busy + worker.promisedSlots + 1) / (report.cpus * BUSY_PER_CPU);
  const spread = worker.sameFunction / report.slotsMax;
  return Math.max(memory, slots, cpu) + spread;
};

/** Busy slots a CPU is reckoned to carry: the oversubscription that the Firecracker paper reports from production. */
const BUSY_PER_CPU = 10;

const fits = (worker: FleetWorker, request: PlacementRequest): boolean =>
  !worker.report.draining &&
  worker.report.memoryBytesAvailable / MB > worker.promisedMb + Math.min(request.memoryMb, 64);

/**
 * Chooses a worker. Pure: one pass over the fleet, no clock, no randomness. A worker whose slots are all taken is
 * chosen only when there is no other: it may still end an idle slot to make room.
 */
export const decide = (fleet: Iterable<FleetWorker>, request: PlacementRequest): Choice => {
  let best: FleetWorker | null = null;
  let bestLoad = Number.POSITIVE_INFINITY;
  let seen = 0;
  for (const worker of fleet) {
    seen += 1;
    if (!fits(worker, request)) continue;
    const workerLoad = load(worker, request);
    if (workerLoad < bestLoad) {
      best = worker;
      bestLoad = workerLoad;
    }
  }
  if (best === null) {
    const why = seen === 0 ? "there is no worker" : `none of ${seen} workers has room for ${request.memoryMb} MB`;
    return { workerId: null, reason: why };
  }
  return {
    workerId: best.report.workerId,
    reason: `least loaded of ${seen}: ${(bestLoad * 100).toFixed(1)} % after this slot`,
  };
};
