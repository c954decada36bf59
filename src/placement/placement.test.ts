import assert from "node:assert/strict";
import { test } from "node:test";
import { LEASE_MS } from "../wire/limits.ts";
import type { WorkerReport } from "../wire/roles.ts";
import { decide } from "./decide.ts";
import { Placement } from "./placement.ts";

const GIB = 1024 ** 3;

const report = (workerId: string, changes: Partial<WorkerReport> = {}): WorkerReport => ({
  workerId,
  atMs: 0,
  cpus: 2,
  memoryBytesTotal: 8 * GIB,
  memoryBytesAvailable: 6 * GIB,
  memoryMbCommitted: 0,
  slots: 0,
  slotsMax: 100,
  busy: 0,
  draining: false,
  ...changes,
});

const fleetOf = (...reports: WorkerReport[]) =>
  reports.map((one) => ({ report: one, promisedMb: 0, promisedSlots: 0, sameFunction: 0 }));

const request = { functionKey: "f", memoryMb: 128 };

test("the least loaded worker is chosen, by its scarcest resource", () => {
  const roomy = report("roomy");
  assert.equal(decide(fleetOf(report("full", { slots: 99 }), roomy), request).workerId, "roomy");
  assert.equal(decide(fleetOf(report("busy", { busy: 19 }), roomy), request).workerId, "roomy");
  assert.equal(decide(fleetOf(report("tight", { memoryBytesAvailable: GIB }), roomy), request).workerId, "roomy");
});

test("a draining worker and one without memory are never chosen", () => {
  const choice = decide(
    fleetOf(report("draining", { draining: true }), report("tight", { memoryBytesAvailable: 0 })),
    request,
  );
  assert.equal(choice.workerId, null);
  assert.match(choice.reason, /none of 2 workers has room for 128 MB/);
  assert.match(decide([], request).reason, /no worker/);
});

test("slots of one function spread over workers", async () => {
  const placement = new Placement(() => 1_000);
  for (const id of ["a", "b", "c"]) placement.heartbeat(report(id));
  const chosen = [];
  for (let made = 0; made < 6; made += 1) chosen.push((await placement.place(request)).workerId);
  assert.deepEqual(chosen.toSorted(), ["a", "a", "b", "b", "c", "c"]);
});

test("a lease counts until it is cancelled, reported or expired", async () => {
  const clock = { nowMs: 1_000 };
  const placement = new Placement(() => clock.nowMs);
  placement.heartbeat(report("a"));
  placement.heartbeat(report("b"));
  const first = await placement.place(request);
  assert.notEqual((await placement.place(request)).workerId, first.workerId);
  await placement.cancel(first.leaseId);
  assert.equal((await placement.place(request)).workerId, first.workerId);
  clock.nowMs += LEASE_MS + 1;
  assert.equal((await placement.place(request)).workerId, "a");
});

test("every choice tells its reason", async () => {
  const placement = new Placement(() => 0);
  placement.heartbeat(report("a"));
  assert.match((await placement.place(request)).reason, /least loaded of 1/);
});
