import assert from "node:assert/strict";
import { test } from "node:test";
import { VirtualClock } from "../../lib/virtual-clock.ts";
import { systemClock } from "../../lib/clock.ts";

import { CpuAllocator, type CpuPlace } from "./cpu-allocator.ts";

/** CPU time as the host's scheduler would give it out: the tenants of a CPU share it, each up to what it wants. */
class Host {
  readonly #clock = new VirtualClock();
  readonly cpus: CpuAllocator;
  readonly tenants: { readonly place: CpuPlace; wants: number; usedUs: number }[] = [];

  constructor(numbers: readonly number[]) {
    this.cpus = new CpuAllocator(numbers, this.#clock);
  }

  add(wants: number, busy = true): CpuPlace {
    const place = this.cpus.take(null);
    const tenant = { place, wants, usedUs: 0 };
    place.tenant = { cpuTimeUs: () => tenant.usedUs, moveTo: () => true };
    this.tenants.push(tenant);
    place.setBusy(busy);
    return place;
  }

  run(ms: number): void {
    this.#clock.pass(ms);
    for (const cpu of new Set(this.tenants.map(({ place }) => place.cpu))) {
      const here = this.tenants.filter(({ place }) => place.cpu === cpu);
      const wanted = here.reduce((sum, { wants }) => sum + wants, 0);
      for (const tenant of here) tenant.usedUs += (tenant.wants / Math.max(1, wanted)) * ms * 1000;
    }
  }

  perCpu(): number[] {
    const counts = new Map<number, number>();
    for (const { place, wants } of this.tenants) counts.set(place.cpu, (counts.get(place.cpu) ?? 0) + wants);
    return [...counts.values()].toSorted((a, b) => a - b);
  }
}

test("microVMs spread evenly, and a freed place is taken again", () => {
  using cpus = new CpuAllocator([0, 1, 2], systemClock);
  const taken = Array.from({ length: 6 }, () => cpus.take(null));
  assert.deepEqual(
    taken.map(({ cpu }) => cpu).toSorted((a, b) => a - b),
    [0, 0, 1, 1, 2, 2],
  );
  taken.find(({ cpu }) => cpu === 1)?.[Symbol.dispose]();
  assert.equal(cpus.take(null).cpu, 1);
});

test("a wish is granted, counts, and is never left", () => {
  using cpus = new CpuAllocator([0, 1], systemClock);
  const wished = cpus.take(0);
  assert.equal(wished.cpu, 0);
  assert.equal(cpus.take(null).cpu, 1);
  assert.throws(() => cpus.take(7), /CPU 7 is not among/);
  assert.throws(() => new CpuAllocator([], systemClock), /No CPU/);
  wished.setBusy(false);
  cpus.take(0);
  wished.setBusy(true);
  assert.equal(wished.cpu, 0);
});

test("idle ones do not count: a new one goes where there is no work", () => {
  using cpus = new CpuAllocator([0, 1], systemClock);
  const [busy] = [cpus.take(0)];
  for (let i = 0; i < 5; i++) cpus.take(1).setBusy(false);
  assert.equal(busy.cpu, 0);
  assert.equal(cpus.take(null).cpu, 1);
});

test("one that gets work is moved at once when that gives it a CPU of its own", () => {
  const host = new Host([0, 1]);
  using cpus = host.cpus;
  const all = [host.add(0, false), host.add(0, false), host.add(0, false), host.add(0, false)];
  const together = all.filter(({ cpu }) => cpu === all[0]?.cpu);
  assert.equal(together.length, 2);
  for (const place of together) place.setBusy(true);
  assert.notEqual(together[0]?.cpu, together[1]?.cpu);
  assert.equal(cpus.moves, 1);
});

test("long-running ones are spread by what they use, and then left alone", () => {
  const host = new Host([0, 1]);
  using cpus = host.cpus;
  // All on one CPU, because the other was busy then.
  const others = [1, 2, 3, 4].map(() => host.cpus.take(1));
  for (let i = 0; i < 4; i++) host.add(1);
  for (const other of others) other[Symbol.dispose]();
  assert.deepEqual(host.perCpu(), [4]);
  for (let round = 0; round < 3; round++) {
    cpus.rebalance();
    host.run(100);
  }
  cpus.rebalance();
  assert.deepEqual(host.perCpu(), [2, 2]);
  const { moves } = cpus;
  for (let round = 0; round < 20; round++) {
    host.run(100);
    cpus.rebalance();
  }
  assert.equal(cpus.moves, moves);
});

test("who has an invocation but waits in it is no load", () => {
  const host = new Host([0, 1]);
  using cpus = host.cpus;
  const others = [1, 2, 3].map(() => host.cpus.take(1));
  const waiting = host.add(0.01);
  const [first, second] = [host.add(1), host.add(1)];
  for (const other of others) other[Symbol.dispose]();
  host.cpus.take(1);
  cpus.rebalance();
  host.run(100);
  cpus.rebalance();
  assert.notEqual(first.cpu, second.cpu);
  assert.equal(waiting.cpu, 0);
});

test("what the host refuses to move stays and is not asked again", () => {
  using cpus = new CpuAllocator([0, 1], systemClock);
  let asked = 0;
  const place = cpus.take(null);
  place.tenant = { cpuTimeUs: () => null, moveTo: () => ++asked < 0 };
  place.setBusy(false);
  const other = cpus.take(place.cpu);
  for (let i = 0; i < 3; i++) {
    place.setBusy(true);
    place.setBusy(false);
  }
  assert.equal(asked, 1);
  assert.equal(place.cpu, other.cpu);
});

/** Moves of a microVM that gets work on CPU 0 beside `here` others, when `there` work on the other CPU. */
const movesOf = (here: number, there: number): number => {
  using cpus = new CpuAllocator([0, 1], systemClock);
  const others = [cpus.take(1)];
  const place = cpus.take(null);
  assert.equal(place.cpu, 0);
  place.tenant = { cpuTimeUs: () => 0, moveTo: () => true };
  place.setBusy(false);
  for (let n = 0; n < here; n += 1) others.push(cpus.take(0));
  for (let n = 1; n < there; n += 1) others.push(cpus.take(1));
  place.setBusy(true);
  return cpus.moves;
};

test("where dozens work on each CPU, one that gets work leaves only for a clearly emptier one", () => {
  assert.equal(movesOf(20, 18), 0);
  assert.equal(movesOf(20, 12), 1);
  assert.equal(movesOf(3, 1), 1);
});
