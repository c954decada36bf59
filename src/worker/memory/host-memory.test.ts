import assert from "node:assert/strict";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { findMemoryGroups } from "../../vmm/jail/memory-groups.ts";
import { HostMemory } from "./host-memory.ts";

const MIB = 1024 * 1024;
const UNLIMITED_V1 = "9223372036854771712\n";
const root = await mkdtemp(join(tmpdir(), "hearth-memory-"));
after(() => rm(root, { recursive: true }));

/** Files as the kernel writes them. */
const directoryOf = async (name: string, files: Readonly<Record<string, string>>): Promise<string> => {
  const directory = join(root, name);
  await mkdir(directory, { recursive: true });
  for (const [file, text] of Object.entries(files)) await writeFile(join(directory, file), text);
  return directory;
};
const meminfo = join(
  await directoryOf("proc", { meminfo: "MemTotal:        8388608 kB\nMemFree:  1 kB\nMemAvailable:    4194304 kB\n" }),
  "meminfo",
);
const HOST = { totalBytes: 8_192 * MIB, availableBytes: 4_096 * MIB };

test("without a group's limit it is the host's memory", async () => {
  const root1 = await directoryOf("v1", { "memory.limit_in_bytes": UNLIMITED_V1 });
  const root2 = await directoryOf("v2", { "memory.max": "max\n" });
  for (const groups of [
    null,
    { version: 1, directories: [root1] } as const,
    { version: 2, directories: [root2, join(root, "none")] } as const,
  ]) {
    const memory = new HostMemory(groups, meminfo);
    assert.deepEqual(memory.read(), HOST);
    assert.equal(memory.limitedGroup(), null);
  }
});

test("the tightest limit counts, less what is used and with what can be dropped", async () => {
  const own = await directoryOf("own1", {
    "memory.limit_in_bytes": `${1_024 * MIB}\n`,
    "memory.usage_in_bytes": `${512 * MIB}\n`,
    "memory.stat": `inactive_file 1\nactive_file 1\ntotal_inactive_file ${100 * MIB}\ntotal_active_file ${50 * MIB}\n`,
  });
  const above = await directoryOf("above1", {
    "memory.limit_in_bytes": `${2_048 * MIB}\n`,
    "memory.usage_in_bytes": `${1_948 * MIB}\n`,
    "memory.stat": "",
  });
  const memory = new HostMemory({ version: 1, directories: [own, above] }, meminfo);
  assert.deepEqual(memory.read(), { totalBytes: 1_024 * MIB, availableBytes: 100 * MIB });
  assert.equal(memory.limitedGroup(), own);
  const alone = new HostMemory({ version: 1, directories: [own] }, meminfo);
  assert.deepEqual(alone.read(), { totalBytes: 1_024 * MIB, availableBytes: (512 + 125) * MIB });
});

test("version 2 has other names for the same, and a host that is short counts whatever the group has left", async () => {
  const own = await directoryOf("own2", {
    "memory.max": `${6_144 * MIB}\n`,
    "memory.current": `${100 * MIB}\n`,
    "memory.stat": `anon 1\ninactive_file ${20 * MIB}\nactive_file ${20 * MIB}\n`,
  });
  const memory = new HostMemory({ version: 2, directories: [own] }, meminfo);
  assert.deepEqual(memory.read(), { totalBytes: 6_144 * MIB, availableBytes: 4_096 * MIB });
});

test("this host's groups are found, and its memory read", async () => {
  const { totalBytes, availableBytes } = new HostMemory(findMemoryGroups()).read();
  assert.ok(totalBytes > 64 * MIB && availableBytes > 0 && availableBytes < totalBytes);
});
