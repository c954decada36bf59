import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { after, test } from "node:test";
import { DoneField, ConfigureField, FromShim } from "../../src/wire/shim-protocol.ts";
import { eventually } from "../functional/hearth.ts";
import { descendants } from "../functional/processes.ts";
import { ShimGuest, ShimImages } from "./guest.ts";

const MIB = 1024 * 1024;
/** Of stat(2)'s st_blocks. */
const BLOCK_BYTES = 512;
const images = new ShimImages();
after(() => images[Symbol.dispose]());
const scratchDir = join(images.directory, "r.scratch");

let count = 0;
/** A guest whose /tmp is on a scratch drive of `mib`; `ahead` is the size of one made at its boot. */
const ready = async (mib: number, ahead?: number, directory?: string): Promise<ShimGuest> => {
  const guest = await ShimGuest.boot(images, `scratch-${++count}`, [images.code], {
    ...(ahead === undefined ? {} : { mib: ahead }),
    ...(directory === undefined ? {} : { directory }),
  });
  try {
    const device = await guest.vm.attachScratch(mib);
    const { frame } = await guest.driver.configure(guest.fields([[ConfigureField.ScratchDrive, device]]));
    assert.equal(frame.type, FromShim.Ready);
  } catch (error) {
    await guest[Symbol.asyncDispose]();
    throw error;
  }
  return guest;
};

const filled = async (guest: ShimGuest, mib: number): Promise<Readonly<Record<string, number>>> => {
  const words = (await guest.driver.invoke(`fill ${String(mib)}`)).body.toString().split(" ");
  return Object.fromEntries(words.flatMap((word, i) => (i % 2 === 0 ? [[word, Number(words[i + 1])]] : [])));
};
const ENOSPC = 28;
const EIO = 5;

test("/tmp holds its size to the byte, though it is more than the function's memory", async () => {
  await using guest = await ready(160);
  const whole = await filled(guest, 160);
  assert.deepEqual(whole, { written: 160 * MIB, write: 0, sync: 0, back: 160 * MIB, read: 0 });
  // The file is gone, so its room is there again.
  const over = await filled(guest, 161);
  assert.equal(over["write"], ENOSPC);
  assert.equal(over["sync"], 0);
  assert.ok((over["written"] ?? 0) >= 160 * MIB && (over["written"] ?? 0) < 161 * MIB);
  assert.match((await guest.driver.invoke("who")).body.toString(), / tmp 1777 /);
});

test("what is in /tmp outlives a runtime that ended", async () => {
  await using guest = await ready(16);
  assert.equal((await guest.driver.invoke("file-write")).body.toString(), "written");
  assert.equal((await guest.driver.invoke("signal 9")).alive, false);
  const next = await guest.driver.invoke("file-read");
  assert.equal(next.body.toString(), "kept");
  assert.notEqual(next.done.number(DoneField.InitDurationUs), null);
});

test("a drive made ahead serves who asks for its size, and no one else", async () => {
  await using same = await ready(32, 32);
  assert.deepEqual(readdirSync(join(scratchDir, same.vm.id)).toSorted(), ["2"]);
  await using other = await ready(10_240, 32);
  assert.deepEqual(readdirSync(join(scratchDir, other.vm.id)).toSorted(), ["2", "3"]);
  assert.equal((await other.driver.invoke("file-write")).body.toString(), "written");
});

test("the drive is sparse, ours, and gone with its microVM", async () => {
  const guest = await ready(512);
  const directory = join(scratchDir, guest.vm.id);
  const drive = statSync(join(directory, "2"));
  assert.ok(drive.size > 512 * MIB && drive.blocks * 512 < MIB, `${String(drive.blocks)} blocks`);
  assert.equal(drive.uid, process.getuid?.());
  assert.equal(drive.mode & 0o007, 0);
  await guest[Symbol.asyncDispose]();
  assert.ok(!existsSync(directory));
});

const takenBytes = (guest: ShimGuest): number => statSync(join(scratchDir, guest.vm.id, "2")).blocks * BLOCK_BYTES;

test("what is deleted in /tmp is the host's again within a moment, files large and small", async () => {
  await using guest = await ready(512);
  for (const command of ["1 204800", "2000 16"]) {
    const before = takenBytes(guest);
    assert.match((await guest.driver.invoke(`hold ${command}`)).body.toString(), /^held$/);
    const held = takenBytes(guest);
    assert.ok(held - before >= 30 * MIB, `${command}: ${String(held)}`);
    await guest.driver.invoke("drop");
    await eventually(`that ${command} is the host's again`, () =>
      Promise.resolve(takenBytes(guest) < before + 4 * MIB || null),
    );
  }
});

test("no file loses anything to what is deleted beside it", async () => {
  await using guest = await ready(64);
  assert.equal((await guest.driver.invoke("churn 7")).body.toString(), "intact");
});

test("a size that cannot be is refused", async () => {
  await using guest = await ready(16);
  await assert.rejects(guest.vm.attachScratch(0), /scratch drive of 0 MiB; 1 to 10240/);
  await assert.rejects(guest.vm.attachScratch(10_241), /10241 MiB/);
});

test("a full disk of the host is the function's error and nobody else's", async (t) => {
  const directory = join(images.directory, "full");
  mkdirSync(directory);
  try {
    execFileSync("mount", ["-t", "tmpfs", "-o", "size=24m,mode=711", "hearth-test", directory], { stdio: "pipe" });
  } catch {
    return t.skip("mounting a small disk needs root");
  }
  try {
    const guest = await ready(64, undefined, directory);
    const answer = await filled(guest, 40);
    assert.ok([ENOSPC, EIO].includes(answer["sync"] ?? 0), JSON.stringify(answer));
    assert.equal((await guest.driver.invoke("echo still here")).body.toString(), "still here");
    // What stays there, unlike what was deleted, leaves no room for another.
    assert.equal((await guest.driver.invoke("hold 1 40960")).body.toString(), "full");
    await assert.rejects(ready(64, undefined, directory), /No scratch (?:directory|drive) can be made in .*: ENOSPC/);
    const left = readdirSync(directory).filter((name) => !name.includes(guest.vm.id));
    assert.deepEqual(left, [], "nothing is left of the one that was refused");
    await guest[Symbol.asyncDispose]();
    await using next = await ready(64, undefined, directory);
    assert.equal((await filled(next, 8))["sync"], 0);
  } finally {
    execFileSync("umount", [directory]);
  }
});

/** Soft limit of a process in bytes (proc_pid_limits(5)). */
const fileBytesMaxOf = (pid: number): number =>
  Number(/^Max file size\s+(\d+)/m.exec(readFileSync(`/proc/${String(pid)}/limits`, "utf8"))?.[1]);

test("no file of a guest's kernel is longer than its drive, whatever becomes of that kernel", async () => {
  await using guest = await ready(32, 32);
  const { pid } = await guest.vm.stats();
  const drive = statSync(join(scratchDir, guest.vm.id, "2"));
  for (const { pid: each, name } of await descendants(pid)) assert.equal(fileBytesMaxOf(each), drive.size, name);
  assert.deepEqual(await filled(guest, 32), { written: 32 * MIB, write: 0, sync: 0, back: 32 * MIB, read: 0 });
});

test("a guest that may not write gets errors, keeps what it has, and may write again", async () => {
  await using guest = await ready(64);
  assert.equal((await guest.driver.invoke("file-write")).body.toString(), "written");
  assert.equal((await filled(guest, 8))["sync"], 0);
  const before = await guest.vm.scratchBytes();
  guest.vm.setScratchWritable(false);
  // Its file system writes a directory at once: there is no new file either.
  const refused = await filled(guest, 48);
  assert.deepEqual([refused["written"], refused["write"]], [0, EIO]);
  assert.equal((await guest.driver.invoke("file-read")).body.toString(), "kept");
  assert.ok((await guest.vm.scratchBytes()) - before < 4 * MIB);
  guest.vm.setScratchWritable(true);
  assert.equal((await guest.driver.invoke("file-write")).body.toString(), "written");
  assert.equal((await guest.driver.invoke("signal 9")).alive, false);
  assert.equal((await guest.driver.invoke("file-read")).body.toString(), "kept");
});
