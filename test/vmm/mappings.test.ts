/** Guest processes map the host's own pages of read-only drives (images/kernel/patches, uml-0008), or copies. */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { after, before, test } from "node:test";

import type { DrivePages } from "../../src/vmm/config.ts";
import { UmlHypervisor } from "../../src/vmm/hypervisors/uml/hypervisor.ts";
import { bootGuest, TestGuest, type BootedGuest } from "./guest.ts";
import { readLine, tell } from "./stream.ts";

const MIB = 1024 * 1024;
const BIG_BYTES: number = 24 * MIB;
const bytes = (length: number): Buffer => Buffer.alloc(length, createHash("sha512").update(String(length)).digest());
const big = bytes(BIG_BYTES + 4096);

let guest: TestGuest;

before(() => {
  const files = { big, tail: bytes(3 * 4096 + 100), small: bytes(10) };
  guest = new TestGuest(new URL("guest-mappings.c", import.meta.url), files);
});

after(() => {
  guest[Symbol.dispose]();
});

const boot = (drivePages: DrivePages): Promise<BootedGuest> => {
  const hypervisor = new UmlHypervisor({ runDir: guest.runDir, drivePages });
  return bootGuest(guest, hypervisor);
};

const ask = async ({ stream }: BootedGuest, what: string): Promise<string> => {
  tell(stream, what);
  return readLine(stream);
};

/** Bytes of a guest's own memory that it has touched: its memory file's blocks, as a process that maps it shows them. */
const guestMemoryBytes = async ({ vm }: BootedGuest): Promise<number> => {
  const { pid } = await vm.stats();
  const kernel = Number(
    readFileSync(`/proc/${String(pid)}/task/${String(pid)}/children`, "utf8")
      .trim()
      .split(" ")[0],
  );
  const blocks = readFileSync(`/proc/${String(kernel)}/smaps`, "utf8").split(/^(?=[0-9a-f]+-[0-9a-f]+ )/m);
  return blocks
    .filter((block) => block.includes("memfd:guest-memory"))
    .reduce((sum, block) => sum + Number(/^Rss:\s+(\d+)/m.exec(block)?.[1] ?? 0) * 1024, 0);
};

const total = big.reduce((sum, byte) => sum + byte, 0);

for (const drivePages of ["shared", "copied"] as const) {
  test(`files of a drive can be mapped in every way, ${drivePages}`, async () => {
    await using booted = await boot(drivePages);
    assert.equal(await ask(booted, "check"), "good");
    assert.equal(await ask(booted, "sum"), String(total));
  });
}

/** How much a guest's memory grows while it maps and reads all of a file. */
const grown = async (drivePages: DrivePages): Promise<number> => {
  await using booted = await boot(drivePages);
  const before = await guestMemoryBytes(booted);
  assert.ok(before > 0);
  assert.equal(await ask(booted, "sum"), String(total));
  return (await guestMemoryBytes(booted)) - before;
};

test("shared pages take none of the guest's memory, copied ones do", async () => {
  const [shared, copied] = [await grown("shared"), await grown("copied")];
  assert.ok(shared < BIG_BYTES / 10, `${String(shared)} bytes more`);
  // Some of the guest's memory was touched before, and is used again.
  assert.ok(copied > BIG_BYTES * 0.7, `${String(copied)} bytes more`);
});
