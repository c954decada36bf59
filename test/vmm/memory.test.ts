/**
 * A guest's memory costs the host what the guest uses of it: what it never used was not even made ready (images/kernel/patches,
 * uml-0009), and what it frees comes back (uml-0006).
 */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";

import { UmlHypervisor } from "../../src/vmm/hypervisors/uml/hypervisor.ts";
import { bootGuest, TestGuest, type BootedGuest } from "./guest.ts";
import { readLine, tell } from "./stream.ts";

const MIB = 1024 * 1024;

let guest: TestGuest;
let hypervisor: UmlHypervisor;

before(() => {
  guest = new TestGuest(new URL("guest-memory.c", import.meta.url));
  hypervisor = new UmlHypervisor({ runDir: guest.runDir });
});

after(() => {
  guest[Symbol.dispose]();
});

const boot = (memoryMib: number): Promise<BootedGuest> => bootGuest(guest, hypervisor, { memoryMib });

const ask = async ({ stream }: BootedGuest, what: string): Promise<string> => {
  tell(stream, what);
  return readLine(stream);
};

const hostBytes = async ({ vm }: BootedGuest): Promise<number> => (await vm.stats()).memoryBytes;

/** Of /proc/meminfo in the guest, in MiB. */
const memoryOf = async (booted: BootedGuest): Promise<{ total: number; free: number; available: number }> => {
  const [total = 0, free = 0, available = 0] = (await ask(booted, "meminfo"))
    .split(" ")
    .map((kib) => Number(kib) / 1024);
  return { total, free, available };
};

test("a large guest takes hardly more of the host than a small one, and knows what it has", async () => {
  await using small = await boot(128);
  await using large = await boot(4096);
  const more = (await hostBytes(large)) - (await hostBytes(small));
  // 32 MB of page structures belong to that much more memory.
  assert.ok(more < 8 * MIB, `${String(more)} bytes more`);
  const { total, free, available } = await memoryOf(large);
  assert.ok(total > 3_900 && total < 4_096, `${String(total)} MiB in all`);
  assert.ok(free > total * 0.95 && free <= total, `${String(free)} MiB free`);
  assert.ok(available > total * 0.95, `${String(available)} MiB available`);
});

test("all of a guest's memory can be used, is what was written there, and goes back", async () => {
  const memoryMib = 512;
  await using booted = await boot(memoryMib);
  const before = await hostBytes(booted);
  for (const mib of [20, 450, 300, 460]) {
    assert.equal(await ask(booted, `fill ${String(mib)}`), "filled 0");
    assert.ok((await hostBytes(booted)) > before + 0.95 * mib * MIB);
    const { total, free } = await memoryOf(booted);
    assert.ok(free < total - mib);
    assert.equal(await ask(booted, "drop"), "dropped");
    for (const until = Date.now() + 10_000; (await hostBytes(booted)) > before + 24 * MIB; await sleep(50))
      assert.ok(
        Date.now() < until,
        `${String(await hostBytes(booted))} bytes after ${String(mib)} MiB, ${String(before)} before`,
      );
  }
});
