import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import { after, before, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";

import { tasksBelow } from "../../src/vmm/hypervisors/uml/processes.ts";
import { UmlHypervisor } from "../../src/vmm/hypervisors/uml/hypervisor.ts";
import type { MicroVm } from "../../src/vmm/microvm.ts";
import { bootGuest, TestGuest, type BootedGuest } from "./guest.ts";
import { readLine, tell } from "./stream.ts";

/** Long enough that the host's scheduler has given everyone their part. */
const WINDOW_MS = 1_000;

let guest: TestGuest;
let hypervisor: UmlHypervisor;
let controlled: boolean;
const twoCpus = { skip: availableParallelism() < 2 && "needs two CPUs" };

before(async () => {
  guest = new TestGuest();
  // Two are enough, however many there are.
  hypervisor = new UmlHypervisor({ runDir: guest.runDir, cpus: availableParallelism() < 2 ? [0] : [0, 1] });
  const probe = await hypervisor.probe();
  controlled = probe.usable && /cgroup v[12]/.test(probe.detail);
});

after(() => {
  guest[Symbol.dispose]();
});

const boot = (cpu?: number): Promise<BootedGuest> => bootGuest(guest, hypervisor, cpu === undefined ? {} : { cpu });

/** CPU time that microVMs use while the same time passes for all of them, in µs. */
const usedUs = async (...vms: MicroVm[]): Promise<number[]> => {
  const read = (): Promise<number[]> => Promise.all(vms.map(async (vm) => (await vm.stats()).cpuTimeUs));
  const start = await read();
  await sleep(WINDOW_MS);
  return (await read()).map((us, i) => us - (start[i] ?? 0));
};

/** CPUs on which the tasks of a microVM may run. */
const cpusOf = async (vm: MicroVm): Promise<Set<string>> => {
  const { pid } = await vm.stats();
  const lists = tasksBelow(pid).map((task) => {
    try {
      return /^Cpus_allowed_list:\s*(\S+)/m.exec(readFileSync(`/proc/${String(task)}/status`, "utf8"))?.[1] ?? "?";
    } catch {
      return null; // ended meanwhile
    }
  });
  return new Set(lists.filter((list) => list !== null));
};

test("two busy guests on one CPU share it by their weights", async (t) => {
  if (!controlled) return t.skip("no cgroups here");
  await using small = await boot(0);
  await using large = await boot(0);
  small.vm.setCpuShare({ share: 0.1, hard: false });
  large.vm.setCpuShare({ share: 0.6, hard: false });
  for (const { stream } of [small, large]) tell(stream, "spin");
  const [less = 0, more = 0] = await usedUs(small.vm, large.vm);
  assert.ok(more / less > 4 && more / less < 9, `${String(more)} and ${String(less)} µs: 6 to 1 was to be`);
});

/** How often the host's kernel has held a microVM to its quota (cpu.stat of both versions of cgroups). */
const heldBack = async (vm: MicroVm): Promise<number> => {
  const { pid } = await vm.stats();
  const groups = readFileSync(`/proc/${String(pid)}/cgroup`, "utf8");
  const [, own = ""] = /^\d+:cpu(?:,cpuacct)?:(.*)$/m.exec(groups) ?? /^0::(.*)$/m.exec(groups) ?? [];
  const mounts = readFileSync("/proc/self/mounts", "utf8");
  const [, at = ""] = /^\S+ (\S+) cgroup \S*\bcpu\b/m.exec(mounts) ?? /^\S+ (\S+) cgroup2 /m.exec(mounts) ?? [];
  return Number(/^nr_throttled (\d+)/m.exec(readFileSync(`${at}${own}/cpu.stat`, "utf8"))?.[1]);
};

test("a soft share bursts, a hard one holds, and can be taken back", async (t) => {
  if (!controlled) return t.skip("no cgroups here");
  await using booted = await boot();
  const { vm } = booted;
  tell(booted.stream, "spin");
  vm.setCpuShare({ share: 0.1, hard: true });
  const [held = 0] = await usedUs(vm);
  assert.ok(held < 0.13 * WINDOW_MS * 1000, `${String(held)} µs under a quota of a tenth`);
  vm.setCpuShare({ share: 0.1, hard: false });
  const before = await heldBack(vm);
  assert.ok(before > 0);
  // What it gets now is what the machine has left, which may be little while much else runs.
  const [burst = 0] = await usedUs(vm);
  assert.equal(await heldBack(vm), before);
  assert.ok(burst > held, `${String(burst)} µs after ${String(held)} µs under the quota`);
});

test("two guests that get work on one CPU are soon on two, with all their processes", twoCpus, async () => {
  await using first = await boot();
  await using second = await boot();
  await using third = await boot();
  const all = [first, second, third];
  for (const { vm } of all) vm.setBusy(false);
  // Of three, two are on one CPU.
  const [one, other] = all.filter(
    ({ vm }, _, { length }) => all.filter((each) => each.vm.cpu === vm.cpu).length > length / 2,
  );
  assert.ok(one !== undefined && other !== undefined && one.vm.cpu === other.vm.cpu);
  for (const { vm, stream } of [one, other]) {
    tell(stream, "fork 5");
    assert.equal(await readLine(stream), "forked");
    vm.setBusy(true);
  }
  assert.notEqual(one.vm.cpu, other.vm.cpu);
  for (const { vm } of [one, other]) assert.deepEqual(await cpusOf(vm), new Set([String(vm.cpu)]));
});

test("a guest that makes processes all the while, or is paused, is moved as a whole", twoCpus, async () => {
  await using booted = await boot();
  const { vm } = booted;
  tell(booted.stream, "churn");
  vm.setBusy(false);
  for (let round = 0; round < 10; round++) {
    if (round === 9) await vm.pause();
    const before = vm.cpu;
    // Another one works where it is, so that it goes elsewhere when it gets work too.
    await using neighbour = await boot(before);
    vm.setBusy(true);
    assert.notEqual(vm.cpu, before);
    // What was being made just then follows after a moment.
    for (let wait = 0; wait < 300 && (await cpusOf(vm)).size > 1; wait++) await sleep(10);
    assert.deepEqual(await cpusOf(vm), new Set([String(vm.cpu)]));
    vm.setBusy(false);
    neighbour.vm.setBusy(false);
  }
  await vm.resume();
});

test("no two work on one CPU for long while another has nothing to do", twoCpus, async () => {
  // The neighbours keep one CPU until both guests have begun on the other.
  await using neighbours = new AsyncDisposableStack();
  const working = [];
  for (let n = 0; n < 3; n++) working.push(neighbours.use(await boot(1)).vm);
  await using first = await boot();
  await using second = await boot();
  assert.deepEqual([first.vm.cpu, second.vm.cpu], [0, 0]);
  for (const { stream } of [first, second]) tell(stream, "spin");
  for (const vm of working) vm.setBusy(false);
  for (const until = performance.now() + 5_000; first.vm.cpu === second.vm.cpu && performance.now() < until;)
    await sleep(20);
  assert.notEqual(first.vm.cpu, second.vm.cpu);
});
