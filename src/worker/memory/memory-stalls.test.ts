import assert from "node:assert/strict";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { VirtualClock } from "../../lib/virtual-clock.ts";
import { MEMORY_STALL_US, MEMORY_STALL_WINDOW_US } from "../../wire/limits.ts";
import { MemoryStalls } from "./memory-stalls.ts";

const directory = await mkdtemp(join(tmpdir(), "hearth-stalls-"));
after(() => rm(directory, { recursive: true }));

/** A pressure file as the kernel writes it; being a plain file it takes no trigger, so that it is read. */
const says = async (file: string, someUs: number): Promise<void> => {
  const line = "avg10=0.00 avg60=0.00 avg300=0.00";
  await writeFile(file, `some ${line} total=${someUs}\nfull ${line} total=7\n`);
};

test("a stall is a share of the time between two looks", async () => {
  let stalls = 0;
  const clock = new VirtualClock();
  const file = join(directory, "host");
  using watch = new MemoryStalls(null, clock, () => (stalls += 1), file);
  let waitedUs = 1_000_000;
  const after = async (us: number): Promise<number> => {
    clock.pass(MEMORY_STALL_WINDOW_US / 1000);
    waitedUs += us;
    await says(file, waitedUs);
    await watch.look();
    return stalls;
  };
  // Whatever was before the first look was before us.
  assert.equal(await after(0), 0);
  assert.equal(await after(0), 0);
  assert.equal(await after(MEMORY_STALL_US - 1), 0);
  assert.equal(await after(MEMORY_STALL_US), 1);
  assert.equal(await after(0), 1);
  assert.equal(await after(MEMORY_STALL_WINDOW_US), 2);
});

test("a group's own stalls count, where it has them; without any file there is silence", async () => {
  let stalls = 0;
  const group = join(directory, "group");
  const host = join(directory, "busy-host");
  await mkdir(group);
  const clock = new VirtualClock();
  using watch = new MemoryStalls(group, clock, () => (stalls += 1), host);
  const look = async (): Promise<void> => {
    await watch.look();
    clock.pass(1_000);
  };
  await look();
  for (const [at, file] of [join(group, "memory.pressure"), host].entries()) await says(file, at);
  await look();
  await says(host, 1_000_000);
  await look();
  assert.equal(stalls, 0);
  await says(join(group, "memory.pressure"), 1_000_000);
  await look();
  assert.equal(stalls, 1);
});
