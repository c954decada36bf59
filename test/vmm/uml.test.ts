import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, readdirSync, readFileSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import { once } from "node:events";
import { createServer } from "node:net";
import { join } from "node:path";
import type { Duplex } from "node:stream";
import { finished } from "node:stream/promises";
import { after, before, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";

import { UmlHypervisor } from "../../src/vmm/hypervisors/uml/hypervisor.ts";
import { processTree } from "../../src/vmm/hypervisors/uml/processes.ts";
import { UBD_DEVICES_MAX, VSOCK_STREAMS_MAX } from "../../src/vmm/limits.ts";
import type { MicroVmConfig, MicroVmStats } from "../../src/vmm/microvm.ts";
import { bootGuest, TestGuest, type BootedGuest } from "./guest.ts";
import { readLine, tell } from "./stream.ts";

const MIB = 1024 * 1024;

let guest: TestGuest;
let hypervisor: UmlHypervisor;

before(() => {
  guest = new TestGuest();
  hypervisor = new UmlHypervisor({ runDir: guest.runDir });
});

after(() => {
  guest[Symbol.dispose]();
});

const boot = (config: Partial<MicroVmConfig> = {}): Promise<BootedGuest> => bootGuest(guest, hypervisor, config);

test("a guest boots, says hello, and leaves nothing when it is killed", async () => {
  const { vm } = await boot();
  const { pid } = await vm.stats();
  assert.ok(existsSync(join(guest.runDir, vm.id)));
  const exit = await vm.kill("enough");
  assert.deepEqual(exit, { cause: "killed", exitCode: null, signal: "SIGKILL", detail: "enough", error: null });
  assert.deepEqual(await vm.kill("again"), exit);
  assert.ok(!existsSync(join(guest.runDir, vm.id)));
  assert.ok(!existsSync(`/proc/${String(pid)}`));
});

test("the console carries what the guest prints and stdin reaches it", async () => {
  const chunks: Uint8Array[] = [];
  await using booted = await boot({ onConsole: (chunk) => chunks.push(chunk) });
  await booted.vm.kill("enough");
  assert.match(String(Buffer.concat(chunks)), /guest up/);
});

/** Parts of guests' memory that are mapped here. */
const mappings = (): number => readFileSync("/proc/self/maps", "utf8").split("memfd:").length;

test("a network card costs no second mapping of the guest's memory", async () => {
  const before = mappings();
  await using plain = await boot();
  const each = mappings() - before;
  assert.ok(each > 0);
  await using carded = await boot({ network: { mtu: 1400 } });
  assert.equal(mappings() - before, 2 * each);
  assert.notEqual(plain.vm.id, carded.vm.id);
  const port = { read: () => 0, write: () => {}, watch: () => new DisposableStack() };
  assert.throws(() => plain.vm.attachNetwork(port), /without a network card/);
});

test("bytes come back unchanged, both sides half-close", async () => {
  await using booted = await boot();
  const { stream } = booted;
  tell(stream, "echo");
  const sent = Buffer.alloc(3 * MIB + 17, "Hearth: every byte comes back. ");
  stream.end(sent);
  const back: Buffer[] = [];
  for await (const chunk of stream) back.push(chunk as Buffer);
  assert.equal(
    createHash("sha256").update(Buffer.concat(back)).digest("hex"),
    createHash("sha256").update(sent).digest("hex"),
  );
});

test("a slow reader holds the guest back and loses nothing", async () => {
  await using booted = await boot();
  const { stream } = booted;
  tell(stream, `send ${String(2 * MIB)}`);
  await sleep(200);
  assert.ok(stream.readableLength <= 256 * 1024);
  let total = 0;
  let wrong = 0;
  for await (const chunk of stream as AsyncIterable<Buffer>) {
    for (const [i, byte] of chunk.entries()) if (byte !== ((total + i) % (64 * 1024)) % 251) wrong++;
    total += chunk.length;
  }
  assert.equal(total, 2 * MIB);
  assert.equal(wrong, 0);
});

test("the guest receives everything", async () => {
  await using booted = await boot();
  const { stream } = booted;
  tell(stream, "take");
  const chunk = Buffer.alloc(100_000, 3);
  for (let i = 0; i < 100; i++) if (!stream.write(chunk)) await new Promise((resolve) => stream.once("drain", resolve));
  stream.end();
  assert.equal(await readLine(stream), "10000000 30000000");
});

test("the host opens streams into the guest, and is refused where nobody listens", async () => {
  await using booted = await boot();
  const { vm, stream } = booted;
  await assert.rejects(vm.connect(77), /Nobody in the guest listens on vsock port 77/);
  tell(stream, "serve 77");
  assert.equal(await readLine(stream), "serving");
  for (const answer of await Promise.all(
    Array.from({ length: 20 }, async () => {
      const served = await vm.connect(77);
      const line = await readLine(served);
      served.end();
      return line;
    }),
  ))
    assert.equal(answer, "served");
});

test("more streams than the limit are refused, and the others go on", async () => {
  await using booted = await boot();
  tell(booted.stream, `open ${String(VSOCK_STREAMS_MAX + 10)}`);
  assert.equal(await readLine(booted.stream), `opened ${String(VSOCK_STREAMS_MAX - 1)}`);
});

test("drives are attached while the guest runs, up to the limit of UML", async () => {
  await using booted = await boot();
  const { vm, stream } = booted;
  assert.equal(vm.deviceOf(0), "/dev/ubda");
  assert.throws(() => vm.deviceOf(1), /none has index 1/);
  for (let i = 1; i < UBD_DEVICES_MAX; i++) {
    const path = join(guest.directory, `drive${String(i)}`);
    writeFileSync(path, `drive number ${String(i).padStart(2, "0")}\n`.padEnd(4096, "\0"));
    const device = await vm.attachDrive({ path, readOnly: true });
    assert.equal(device, `/dev/ubd${String.fromCodePoint(0x61 + i)}`);
    tell(stream, `read ${device}`);
    assert.equal(await readLine(stream), `drive number ${String(i).padStart(2, "0")}`);
  }
  await assert.rejects(vm.attachDrive({ path: guest.image, readOnly: true }), /limit of UML/);
});

test("drives below the shared directory need no link", async () => {
  const shared = new UmlHypervisor({ runDir: guest.runDir, sharedImagesDir: guest.directory });
  const path = join(guest.directory, "shared-drive");
  writeFileSync(path, "a shared drive!\n".padEnd(4096, "\0"));
  await using vm = await shared.spawn({
    id: "shared",
    memoryMib: 64,
    drives: [{ path: guest.image, readOnly: true }],
    init: "/init",
  });
  const accepted = Promise.withResolvers<Duplex>();
  vm.listen(1024, accepted.resolve);
  const stream = await accepted.promise;
  assert.equal(await readLine(stream), "hello");
  const device = await vm.attachDrive({ path, readOnly: true });
  assert.deepEqual(readdirSync(join(`${guest.runDir}.drives`, "shared")), []);
  tell(stream, `read ${device}`);
  assert.equal(await readLine(stream), "a shared drive!");
});

/** What was still being counted when the pause began may be added. */
const assertIdle = (before: MicroVmStats, after: MicroVmStats): void => {
  const usedUs = after.cpuTimeUs - before.cpuTimeUs;
  assert.ok(usedUs < 1000, `${String(usedUs)} us of CPU time`);
};

test("a paused guest does not answer, a resumed one does", async () => {
  await using booted = await boot();
  const { vm, stream } = booted;
  tell(stream, "echo");
  await vm.pause();
  const before = await vm.stats();
  stream.write("x\n");
  assert.equal(await Promise.race([readLine(stream), sleep(100, "silence")]), "silence");
  assertIdle(before, await vm.stats());
  await vm.resume();
  await new Promise((resolve) => stream.once("readable", resolve));
});

test("a paused guest takes no CPU, though a process of it makes no system call; resumed, all goes on", async () => {
  await using booted = await boot();
  const { vm, stream } = booted;
  tell(stream, "fork 2");
  assert.equal(await readLine(stream), "forked");
  for (let round = 0; round < 5; round++) {
    await vm.pause();
    const before = await vm.stats();
    await sleep(60);
    assertIdle(before, await vm.stats());
    await vm.resume();
    tell(stream, "fork 0");
    assert.equal(await readLine(stream), "forked");
  }
});

test("a paused guest can be killed", async () => {
  const { vm } = await boot();
  await vm.pause();
  assert.equal((await vm.kill("paused")).detail, "paused");
});

test("statistics are of this guest", async () => {
  await using booted = await boot({ cpu: 1 });
  tell(booted.stream, "spin");
  const before = await booted.vm.stats();
  await sleep(200);
  const after = await booted.vm.stats();
  assert.equal(after.cpu, 1);
  assert.equal(booted.vm.cpu, 1);
  assert.ok(after.cpuTimeUs > before.cpuTimeUs);
  assert.ok(after.memoryBytes > MIB && after.memoryBytes < 64 * MIB);
});

test("a guest that powers off, and one whose PID 1 exits, are told apart", async () => {
  const off = await boot();
  tell(off.stream, "poweroff");
  assert.deepEqual((await off.vm.exited).cause, "guest");
  const panics = await boot();
  tell(panics.stream, "exit");
  assert.equal((await panics.vm.exited).cause, "crashed");
});

test("streams end with the microVM: an error, and no crash of ours", async () => {
  const { vm, stream } = await boot();
  const end = finished(stream);
  const rejected = assert.rejects(end, /gone/);
  await vm.kill("enough");
  await rejected;
  await assert.rejects(vm.connect(1), /gone/);
  await assert.rejects(vm.attachDrive({ path: guest.image, readOnly: true }), /gone/);
});

test("what cannot be is refused with the reason", async () => {
  const good = { id: "bad", memoryMib: 64, drives: [{ path: guest.image, readOnly: true }], init: "/init" } as const;
  await assert.rejects(hypervisor.spawn({ ...good, id: "../x" }), /letters, digits and dashes/);
  await assert.rejects(hypervisor.spawn({ ...good, memoryMib: 1 }), /1 MiB of memory; 32 to/);
  await assert.rejects(hypervisor.spawn({ ...good, init: "/init panic=0" }), /cannot carry/);
  await assert.rejects(hypervisor.spawn({ ...good, drives: [{ path: "/nowhere", readOnly: true }] }), /ENOENT/);
  assert.ok(!existsSync(join(guest.runDir, "bad")));
  await using vm = await hypervisor.spawn(good);
  await assert.rejects(hypervisor.spawn(good), /EEXIST/);
  assert.ok(existsSync(join(guest.runDir, vm.id)));
});

test("a monitor that is killed takes its guests with it, and the next one cleans up", async () => {
  const monitor = spawn(process.execPath, [new URL("monitor.ts", import.meta.url).pathname, guest.runDir, guest.image]);
  const [line] = (await once(monitor.stdout, "data")) as [Buffer];
  const pid = Number(String(line));
  assert.ok(existsSync(`/proc/${String(pid)}`));
  assert.deepEqual(hypervisor.cleanStale(), [], "nothing of a living monitor is touched");
  monitor.kill("SIGKILL");
  await once(monitor, "exit");
  for (let i = 0; i < 500 && existsSync(`/proc/${String(pid)}`); i++) await sleep(10);
  assert.ok(!existsSync(`/proc/${String(pid)}`));
  assert.deepEqual(hypervisor.cleanStale(), ["orphan"]);
  assert.ok(!existsSync(join(guest.runDir, "orphan")));
});

test("what a guest's process does in its own directory stays there", async () => {
  await using booted = await boot();
  const [, kernel = 0] = await processTree((await booted.vm.stats()).pid);
  const own = `/proc/${String(kernel)}/root/own/uml`;
  const elsewhere = join(guest.directory, "victim");
  const victim = createServer().listen(elsewhere);
  try {
    // As the jail's user would: nobody else may change anything there.
    const { uid, gid } = statSync(`/proc/${String(kernel)}`);
    const script = `mv ${own} ${own}-moved && ln -s ${guest.directory} ${own}`;
    execFileSync("/bin/sh", ["-c", script], { uid, gid });
    symlinkSync(elsewhere, join(guest.directory, "mconsole"));
    await assert.rejects(
      booted.vm.attachDrive({ path: guest.image, readOnly: true }),
      /Reach the guest's console: E(LOOP|XDEV)/,
    );
  } finally {
    victim.close();
  }
});
