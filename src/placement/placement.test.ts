import assert from "node:assert/strict";
import { test } from "node:test";
import { VirtualClock } from "../lib/virtual-clock.ts";
import { systemIds } from "../lib/ids.ts";
import type { Random } from "../lib/random.ts";
import { seededRandom } from "../lib/random.ts";
import { functionGroup } from "../wire/function.ts";
import { DEMAND_SPAN_MS, FUNCTION_GROUPS, LEASE_MS, PLACEMENT_CANDIDATES } from "../wire/limits.ts";
import type { WorkerReport } from "../wire/roles.ts";
import { costOf, decide } from "./decide.ts";
import type { FleetWorker, Wanted } from "./decide.ts";
import { Demand } from "./demand.ts";
import { Fleet } from "./fleet.ts";
import { Placement } from "./placement.ts";

const GIB = 1024 ** 3;

const placementOf = (random: Random = seededRandom(1), clock = new VirtualClock()): Placement =>
  new Placement({ clock, ids: systemIds, random });

const report = (workerId: string, changes: Partial<WorkerReport> = {}): WorkerReport => ({
  workerId,
  atMs: 0,
  placementLeases: [],
  cpus: 2,
  memoryBytesTotal: 8 * GIB,
  memoryBytesAvailable: 6 * GIB,
  memoryBytesIdle: 0,
  memoryMbCommitted: 0,
  slots: 0,
  slotsMax: 100,
  busy: 0,
  groups: [],
  cpuShare: 0,
  networkShare: 0,
  storageBytesTotal: GIB,
  storageBytesAvailable: GIB,
  draining: false,
  ...changes,
});

const fleetOf = (...reports: WorkerReport[]): FleetWorker[] =>
  reports.map((one) => ({ report: one, promisedMb: 0, promisedSlots: 0, groups: one.groups }));

const ARN = "arn:aws:lambda:us-east-1:000000000000:function:";
const request = { functionArn: `${ARN}f`, memoryMb: 128 };
const wanted: Wanted = { memoryMb: 128, group: 0, groupSlots: 0, correlations: [] };

test("the least loaded worker is chosen, by its scarcest resource", () => {
  const roomy = report("roomy");
  const scarce: Partial<WorkerReport>[] = [
    { slots: 99 },
    { busy: 19 },
    { memoryBytesAvailable: GIB },
    { memoryMbCommitted: 79_000 },
    { cpuShare: 0.9 },
    { networkShare: 0.9 },
    { storageBytesAvailable: GIB / 10 },
  ];
  for (const changes of scarce) {
    const choice = decide(fleetOf(report("scarce", changes), roomy), wanted);
    assert.equal(choice.workerId, "roomy", JSON.stringify(changes));
  }
  const equal = { cpuShare: 0.9 };
  const choice = decide(fleetOf(report("a", { ...equal, busy: 9 }), report("b", { ...equal, busy: 5 })), wanted);
  assert.equal(choice.workerId, "b", "of two equally scarce the one that is emptier otherwise");
});

test("a draining worker and one without memory are never chosen", () => {
  const choice = decide(
    fleetOf(report("draining", { draining: true }), report("tight", { memoryBytesAvailable: 0 })),
    wanted,
  );
  assert.equal(choice.workerId, null);
  assert.match(choice.reason, /none of 2 workers takes new slots and has memory left for one of 128 MB/);
  assert.match(decide([], wanted).reason, /no worker/);
});

test("one without memory is chosen while it has idle slots that can go", () => {
  const tight = { memoryBytesAvailable: 0, memoryBytesIdle: 100 * 1024 ** 2 };
  assert.equal(decide(fleetOf(report("tight", tight)), wanted).workerId, "tight");
  assert.equal(decide(fleetOf(report("tight", tight), report("roomy")), wanted).workerId, "roomy");
  assert.equal(decide(fleetOf(report("tight", { ...tight, memoryBytesIdle: 1 })), wanted).workerId, null);
});

test("the choice is the cheapest place of all that there are, in fleets made at random", () => {
  const random = seededRandom(1);
  for (let round = 0; round < 300; round += 1) {
    const workers = Array.from({ length: 1 + Math.floor(random() * 20) }, (_, at): FleetWorker => {
      const groups = Array.from({ length: FUNCTION_GROUPS }, () => Math.floor(random() * 3));
      const its = report(`w${at}`, {
        memoryBytesAvailable: random() < 0.2 ? 0 : random() * 8 * GIB,
        slots: Math.floor(random() * 110),
        busy: Math.floor(random() * 30),
        cpuShare: random(),
        draining: random() < 0.2,
        groups,
      });
      const promisedSlots = Math.floor(random() * 5);
      return { report: its, promisedMb: promisedSlots * 128, promisedSlots, groups };
    });
    const group = Math.floor(random() * FUNCTION_GROUPS);
    const want: Wanted = { memoryMb: 512, group, groupSlots: 9, correlations: [{ group: 3, weight: 0.7 }] };
    const choice = decide(workers, want);
    const possible = workers.filter((worker) => !worker.report.draining && worker.report.memoryBytesAvailable > 0);
    const costs = possible.map((worker) => costOf(worker, want));
    const least = Math.min(...costs);
    if (choice.workerId === null) assert.equal(least, Number.POSITIVE_INFINITY);
    else {
      const chosen = workers.find((worker) => worker.report.workerId === choice.workerId);
      assert.ok(chosen !== undefined && !chosen.report.draining);
      assert.equal(costOf(chosen, want), least);
    }
  }
});

test("memory that was promised counts as what slots take, not as what they may take", async () => {
  const placement = placementOf();
  placement.heartbeat(report("a", { slotsMax: 1_000 }));
  // 60 of 10 GB nominal between two reports: many times the host, and yet they fit.
  for (let made = 0; made < 60; made += 1) await placement.place({ ...request, memoryMb: 10_240 });
  await assert.rejects(async () => {
    for (let made = 0; made < 60; made += 1) await placement.place({ ...request, memoryMb: 10_240 });
  }, /none of 1 workers takes new slots and has memory left for one of 10240 MB/);
});

test("slots of one function spread over workers", async () => {
  const placement = placementOf();
  for (const id of ["a", "b", "c"]) placement.heartbeat(report(id));
  const chosen = [];
  for (let made = 0; made < 6; made += 1) chosen.push((await placement.place(request)).workerId);
  assert.deepEqual(chosen.toSorted(), ["a", "a", "b", "b", "c", "c"]);
});

test("a lease counts until it is cancelled, reported or expired", async () => {
  const clock = new VirtualClock();
  const placement = placementOf(seededRandom(1), clock);
  placement.heartbeat(report("a"));
  placement.heartbeat(report("b"));
  const first = await placement.place(request);
  assert.notEqual((await placement.place(request)).workerId, first.workerId);
  await placement.cancel(first.leaseId);
  assert.equal((await placement.place(request)).workerId, first.workerId);
  clock.pass(LEASE_MS + 1);
  const taken = await placement.place(request);
  assert.equal(taken.workerId, "a");
  placement.heartbeat(report("a", { placementLeases: [taken.leaseId] }));
  assert.equal((await placement.place(request)).workerId, "a");
});

test("every choice tells its reason", async () => {
  const placement = placementOf();
  placement.heartbeat(report("a"));
  assert.match((await placement.place(request)).reason, /least loaded of 1/);
});

/** Places slots on a fleet that reports what it got, and counts them by worker. */
const fill = async (
  reports: readonly WorkerReport[],
  names: (index: number) => string,
  slots: number,
): Promise<Map<string, number>> => {
  const placement = placementOf(seededRandom(7));
  for (const one of reports) placement.heartbeat(one);
  const counts = new Map(reports.map((one) => [one.workerId, 0]));
  for (let index = 0; index < slots; index += 1) {
    const { workerId } = await placement.place({ functionArn: ARN + names(index), memoryMb: 128 });
    counts.set(workerId, (counts.get(workerId) ?? 0) + 1);
  }
  return counts;
};

test("a large fleet is filled evenly though few workers are looked at for each slot", async () => {
  const fleet = Array.from({ length: 500 }, (_, at) => report(`w${at}`));
  const counts = [...(await fill(fleet, (index) => `f${index}`, 10_000)).values()];
  assert.ok(Math.max(...counts) <= 23 && Math.min(...counts) >= 17, `${Math.min(...counts)} to ${Math.max(...counts)}`);
});

test("a worker twice as large gets about twice as much", async () => {
  const fleet = Array.from({ length: 200 }, (_, at) =>
    at % 2 === 0
      ? report(`small${at}`)
      : report(`large${at}`, { cpus: 4, slotsMax: 200, memoryBytesTotal: 16 * GIB, memoryBytesAvailable: 12 * GIB }),
  );
  const counts = await fill(fleet, (index) => `f${index}`, 6_000);
  const sum = (kind: string): number =>
    [...counts].filter(([id]) => id.startsWith(kind)).reduce((total, [, count]) => total + count, 0);
  const ratio = sum("large") / sum("small");
  assert.ok(ratio > 1.7 && ratio < 2.3, `${ratio}`);
});

test("one function's slots are on as many workers as there are slots, until every worker has some", async () => {
  const fleet = Array.from({ length: 300 }, (_, at) => report(`w${at}`, { slots: at % 20 }));
  const counts = [...(await fill(fleet, () => "same", 100)).values()];
  assert.ok(Math.max(...counts) <= 2, `${Math.max(...counts)} on one worker`);
  assert.ok(counts.filter((count) => count > 0).length >= 95);
});

test("a function does not stand and fall with one worker, though that is the emptiest", async () => {
  const placement = placementOf();
  placement.heartbeat(report("empty"));
  placement.heartbeat(report("half", { slots: 30, busy: 3, cpuShare: 0.3 }));
  const first = await placement.place(request);
  const second = await placement.place(request);
  assert.deepEqual([first.workerId, second.workerId], ["empty", "half"]);
});

test("when the workers drawn are of no use, all are looked at", async () => {
  const placement = placementOf(() => 0);
  for (let at = 0; at < PLACEMENT_CANDIDATES * 4; at += 1) placement.heartbeat(report(`w${at}`, { draining: true }));
  placement.heartbeat(report("last"));
  assert.equal((await placement.place(request)).workerId, "last");
  placement.forget("last");
  await assert.rejects(async () => placement.place(request), /none of 96 workers/);
});

test("functions that grow together are found, those that do not are not", () => {
  const demand = new Demand();
  for (let span = 0; span < 40; span += 1) {
    const nowMs = span * DEMAND_SPAN_MS;
    const [day, night] = [span % 8 < 4, span % 8 >= 4];
    for (let n = 0; n < (day ? 10 : 1); n += 1) demand.note(1, nowMs);
    for (let n = 0; n < (day ? 5 : 0); n += 1) demand.note(2, nowMs);
    for (let n = 0; n < (night ? 7 : 0); n += 1) demand.note(3, nowMs);
    demand.note(4, nowMs);
  }
  const nowMs = 39 * DEMAND_SPAN_MS;
  assert.deepEqual(
    demand.correlations(1, nowMs).map(({ group }) => group),
    [2],
  );
  assert.deepEqual(demand.correlations(3, nowMs), []);
  assert.deepEqual(demand.correlations(1, nowMs + 100 * DEMAND_SPAN_MS), [], "it forgets");
});

/** A worker with eight slots of each of these. */
const groupsOf = (names: readonly string[]): number[] => {
  const groups = Array.from({ length: FUNCTION_GROUPS }, () => 0);
  for (const name of names) groups[functionGroup(ARN + name)] = 8;
  return groups;
};

test("functions that grow together come to stand on different workers", async () => {
  const clock = new VirtualClock();
  const placement = placementOf(seededRandom(3), clock);
  let placed: string[] = [];
  const beat = (): void => {
    // Equally full, but with functions of the morning on the one half of the workers and of the evening on the other.
    for (let at = 0; at < 10; at += 1) {
      const groups = at < 5 ? groupsOf(["m1", "m2", "m3"]) : groupsOf(["e1", "e2", "e3"]);
      placement.heartbeat(report(`${at < 5 ? "m" : "e"}${at}`, { placementLeases: placed, slots: 24, groups }));
    }
    placed = [];
  };
  for (let span = 0; span < 32; span += 1) {
    beat();
    const kind = span % 8 < 4 ? "m" : "e";
    for (const n of [1, 2, 3, 4])
      placed.push((await placement.place({ functionArn: `${ARN}${kind}${n}`, memoryMb: 128 })).leaseId);
    clock.pass(DEMAND_SPAN_MS);
  }
  beat();
  const chosen: string[] = [];
  for (let n = 0; n < 10; n += 1)
    chosen.push((await placement.place({ functionArn: `${ARN}m4`, memoryMb: 128 })).workerId);
  assert.deepEqual(
    chosen.filter((workerId) => workerId.startsWith("m")),
    [],
  );
});

test("what is promised in a fleet is what was given and is not over, whatever happens", () => {
  for (let seed = 1; seed <= 20; seed += 1) {
    const random = seededRandom(seed);
    const below = (count: number): number => Math.floor(random() * count);
    const fleet = new Fleet();
    const model = new Map<string, { workerId: string; group: number; expiresAtMs: number }>();
    const reported = new Map<string, number[]>();
    let nowMs = 0;
    for (let step = 0; step < 400; step += 1) {
      nowMs += below(50);
      const workerId = `w${below(5)}`;
      const known = [...model.keys()];
      switch (below(6)) {
        case 0: {
          const groups = Array.from({ length: 4 }, () => below(3));
          const placementLeases = known.filter((id) => model.get(id)?.workerId === workerId && random() < 0.5);
          fleet.report(report(workerId, { placementLeases, groups }));
          reported.set(workerId, groups);
          for (const id of placementLeases) model.delete(id);
          break;
        }
        case 1:
          if (random() > 0.2) break;
          fleet.forget(workerId);
          reported.delete(workerId);
          for (const [id, lease] of model) if (lease.workerId === workerId) model.delete(id);
          break;
        case 2: {
          const id = known[below(known.length)];
          if (id !== undefined) {
            fleet.cancel(id);
            model.delete(id);
          }
          break;
        }
        case 3:
          fleet.expire(nowMs);
          for (const [id, lease] of model) if (lease.expiresAtMs < nowMs) model.delete(id);
          break;
        default: {
          const lease = { workerId, group: below(4), expiresAtMs: nowMs + 1_000 };
          fleet.promise({ leaseId: `l${step}`, memoryMb: 128, ...lease });
          if (reported.has(workerId)) model.set(`l${step}`, lease);
        }
      }
      assert.equal(fleet.size, reported.size);
      for (const worker of fleet.workers) {
        const its = [...model.values()].filter((lease) => lease.workerId === worker.report.workerId);
        assert.deepEqual([worker.promisedSlots, worker.promisedMb], [its.length, its.length * 128]);
        for (let group = 0; group < 4; group += 1) {
          const promised = its.filter((lease) => lease.group === group).length;
          const shown = reported.get(worker.report.workerId)?.[group] ?? 0;
          assert.equal(worker.groups[group], shown + promised, `seed ${seed}, step ${step}`);
        }
      }
      for (let group = 0; group < 4; group += 1) {
        const all = fleet.workers.reduce((sum, worker) => sum + (worker.groups[group] ?? 0), 0);
        assert.equal(fleet.groupSlots(group), all);
      }
    }
  }
});
