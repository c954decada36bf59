import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { systemClock } from "../../src/lib/clock.ts";
import { MemoryStalls } from "../../src/worker/memory/memory-stalls.ts";
import { MEMORY_READ_MS } from "../../src/wire/limits.ts";
import { run } from "./hearth.ts";
import { MemoryGroup } from "./memory-group.ts";

/** Reads a file six times as large as the memory it may take, again and again, for the time in which it is wanted. */
const THRASH = `dd if=/dev/zero of="$0" bs=1M count=48 2>/dev/null
for n in 1 2 3 4 5; do cat "$0" > /dev/null; done`;

test(
  "the kernel tells when tasks wait for memory",
  { skip: existsSync("/proc/pressure/memory") ? false : "no PSI here" },
  async () => {
    const directory = await mkdtemp(join(tmpdir(), "hearth-stalls-"));
    try {
      await using group = new MemoryGroup(8 << 20);
      let stalls = 0;
      using watch = new MemoryStalls(null, systemClock, () => (stalls += 1));
      await sleep(MEMORY_READ_MS);
      await watch.look();
      const before = stalls;
      const looking = setInterval(() => void watch.look(), MEMORY_READ_MS);
      const [program = "", ...args] = group.launcher;
      await run(program, [...args, "/bin/sh", "-c", THRASH, join(directory, "file")]);
      await sleep(MEMORY_READ_MS);
      clearInterval(looking);
      assert.ok(stalls > before, `${stalls} stalls, ${before} of them before`);
    } finally {
      await rm(directory, { recursive: true });
    }
  },
);
