import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";

import { UmlHypervisor } from "../../src/vmm/hypervisors/uml/hypervisor.ts";
import { JAIL_PIDS_MAX } from "../../src/vmm/limits.ts";
import { bootGuest, TestGuest, type BootedGuest } from "../vmm/guest.ts";
import { readLine, tell } from "../vmm/stream.ts";

/* As the root of a guest, whose kernel still does what it should: see jail.test.ts for when it does not. */

let guest: TestGuest;
let hypervisor: UmlHypervisor;
let shared: string;

before(() => {
  guest = new TestGuest(new URL("guest-root.c", import.meta.url));
  shared = join(guest.directory, "images");
  mkdirSync(shared);
  hypervisor = new UmlHypervisor({ runDir: guest.runDir, sharedImagesDir: shared });
});

after(() => {
  guest[Symbol.dispose]();
});

const ask = async ({ stream }: BootedGuest, command: string): Promise<string> => {
  tell(stream, command);
  return readLine(stream);
};

const digestOf = (file: string): string => createHash("sha256").update(readFileSync(file)).digest("hex");

/** An image of some kind, of a page. */
const imageOf = (path: string, content: Uint8Array | string): string => {
  const bytes = Buffer.alloc(8192);
  bytes.set(Buffer.from(content));
  writeFileSync(path, bytes);
  return path;
};

test("no shared image is written, whatever a guest does to its disks", async () => {
  const images = [
    guest.image,
    imageOf(join(shared, "shared"), "a shared image"),
    imageOf(join(guest.directory, "linked"), "a linked image"),
  ];
  const before = images.map(digestOf);
  await using other = await bootGuest(guest, hypervisor);
  await using booted = await bootGuest(guest, hypervisor, { scratchMib: 4 });
  for (const path of images.slice(1)) await booted.vm.attachDrive({ path, readOnly: true });
  // What its page cache took counts as written; the only disk that takes it is its scratch drive.
  assert.match(await ask(booted, "overwrite"), /^4 disks, [1-9]\d{6,} bytes written$/);
  assert.deepEqual(images.map(digestOf), before);
  await other.vm.attachDrive({ path: join(shared, "shared"), readOnly: true });
  assert.equal(await ask(other, "first /dev/ubdb"), "a shared image");
});

test("an image is never taken for UML's copy-on-write format, which names another file to open", async () => {
  const header = Buffer.alloc(4136);
  header.write("OOOM");
  for (const [at, value] of [
    [4, 3], // version
    [20, 8192], // size, the lower half
    [24, 512], // sector
    [28, 4096], // alignment
  ] as const)
    header.writeUInt32BE(value, at);
  header.write("/kernel", 36);
  await using booted = await bootGuest(guest, hypervisor);
  await booted.vm.attachDrive({ path: imageOf(join(shared, "cow"), header), readOnly: true });
  assert.match(await ask(booted, "first /dev/ubdb"), /^OOOM/);
});

const refused: readonly (readonly [command: string, answer: RegExp])[] = [
  ["node 1 1", /^(ENXIO|ENODEV)$/], // /dev/mem
  ["node 1 2", /^(ENXIO|ENODEV)$/], // /dev/kmem
  ["node 1 4", /^(ENXIO|ENODEV)$/], // /dev/port
  ["node 10 232", /^(ENXIO|ENODEV)$/], // /dev/kvm
  ["node 10 200", /^(ENXIO|ENODEV)$/], // /dev/net/tun
  ["node 10 229", /^(ENXIO|ENODEV)$/], // /dev/fuse
  ["mount hostfs", /^ENODEV$/],
  ["mount 9p", /^ENODEV$/],
  ["mount virtiofs", /^ENODEV$/],
  ["mount nfs", /^ENODEV$/],
  ["mount debugfs", /^ENODEV$/],
  ["read /proc/kcore", /^ENOENT$/],
  ["read /dev/mem", /^ENOENT$/],
  ["write /proc/sysrq-trigger", /^ENOENT$/],
  ["call 175", /^ENOSYS$/], // init_module
  ["call 313", /^ENOSYS$/], // finit_module
  ["call 246", /^ENOSYS$/], // kexec_load
  ["call 172", /^ENOSYS$/], // iopl
  // Only the host (CID 2), and there only the port that is served; no guest beside it, no loopback.
  ["connect 2 1025", /^ECONNRESET$/],
  ["connect 2 22", /^ECONNRESET$/],
  ["connect 1 1024", /^(ENODEV|ECONNRESET|ETIMEDOUT)$/],
];

test("a guest's root finds no way to the host", async () => {
  await using booted = await bootGuest(guest, hypervisor);
  for (const [command, answer] of refused) assert.match(await ask(booted, command), answer, command);
  // Nothing of the host's file system shows in the kernel's command line.
  assert.doesNotMatch(await ask(booted, "first /proc/cmdline 4096"), new RegExp(guest.directory));
  // Calls that an ordinary kernel's tracer may miss.
  assert.equal(await ask(booted, "old-calls"), "still here");
});

test("memory and processes without end are the guest's own trouble", async () => {
  await using other = await bootGuest(guest, hypervisor);
  await using booted = await bootGuest(guest, hypervisor);
  assert.equal(await ask(booted, "allocate"), "signal 9");
  const children = Number(/^(\d+) children$/.exec(await ask(booted, "fork"))?.[1]);
  assert.ok(children > 50 && children < JAIL_PIDS_MAX, String(children));
  const { memoryBytes } = await booted.vm.stats();
  assert.ok(memoryBytes < 128 * 2 ** 20, String(memoryBytes));
  assert.equal(await ask(other, "read /proc/version"), "done");
});

test("what a process writes it does not execute, unless it asks for that", async () => {
  await using booted = await bootGuest(guest, hypervisor);
  for (const where of ["heap", "stack", "data", "mapping"])
    assert.equal(await ask(booted, `execute ${where}`), "died of SEGV", where);
  assert.equal(await ask(booted, "execute jit"), "returned 42");
});

test("the vsyscall page tells the guest's time, not the host's", async (t) => {
  if (!readFileSync("/proc/self/maps", "utf8").includes("[vsyscall]")) return t.skip("this host has no vsyscall page");
  await using booted = await bootGuest(guest, hypervisor);
  const said = Number(await ask(booted, "vsyscall"));
  const year2001S = 1_000_000_000;
  assert.ok(said >= year2001S && said < year2001S + 3600, String(said));
});
