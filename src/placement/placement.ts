import { randomUUID } from "node:crypto";
import { serviceFailure } from "../wire/errors.ts";
import { LEASE_MS } from "../wire/limits.ts";
import type { PlacementApi, PlacementDecision, PlacementRequest, WorkerReport } from "../wire/roles.ts";
import { decide } from "./decide.ts";
import type { FleetWorker } from "./decide.ts";

interface Lease {
  readonly workerId: string;
  readonly memoryMb: number;
  readonly functionKey: string;
  readonly expiresAtMs: number;
}

/** Keeps the fleet's reports and the leases on it, and lets `decide` choose. */
export class Placement implements PlacementApi {
  readonly #nowMs: () => number;
  readonly #reports: Map<string, WorkerReport> = new Map();
  readonly #leases: Map<string, Lease> = new Map();

  constructor(nowMs: () => number) {
    this.#nowMs = nowMs;
  }

  /** A worker's heartbeat. It shows the slots made so far, so the leases given before it are done with. */
  heartbeat(report: WorkerReport): void {
    this.#reports.set(report.workerId, report);
    for (const [id, lease] of this.#leases) {
      if (lease.workerId === report.workerId && lease.expiresAtMs - LEASE_MS <= report.atMs) this.#leases.delete(id);
    }
  }

  forget(workerId: string): void {
    this.#reports.delete(workerId);
  }

  place(request: PlacementRequest): Promise<PlacementDecision> {
    const nowMs = this.#nowMs();
    const choice = decide(this.#fleet(request, nowMs), request);
    if (choice.workerId === null) throw serviceFailure(`No worker can take the function: ${choice.reason}.`);
    const leaseId = randomUUID();
    const lease = {
      workerId: choice.workerId,
      memoryMb: request.memoryMb,
      functionKey: request.functionKey,
      expiresAtMs: nowMs + LEASE_MS,
    };
    this.#leases.set(leaseId, lease);
    return Promise.resolve({ ...choice, leaseId, expiresAtMs: lease.expiresAtMs });
  }

  cancel(leaseId: string): Promise<void> {
    this.#leases.delete(leaseId);
    return Promise.resolve();
  }

  #fleet(request: PlacementRequest, nowMs: number): FleetWorker[] {
    const promised = new Map<string, { mb: number; slots: number; same: number }>();
    for (const [id, lease] of this.#leases) {
      if (lease.expiresAtMs < nowMs) {
        this.#leases.delete(id);
        continue;
      }
      const sum = promised.get(lease.workerId) ?? { mb: 0, slots: 0, same: 0 };
      sum.mb += lease.memoryMb;
      sum.slots += 1;
      if (lease.functionKey === request.functionKey) sum.same += 1;
      promised.set(lease.workerId, sum);
    }
    return [...this.#reports.values()].map((report) => {
      const sum = promised.get(report.workerId);
      return { report, promisedMb: sum?.mb ?? 0, promisedSlots: sum?.slots ?? 0, sameFunction: sum?.same ?? 0 };
    });
  }
}
