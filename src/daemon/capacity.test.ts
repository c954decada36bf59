import assert from "node:assert/strict";
import { test } from "node:test";
import { DESCRIPTORS_PER_MICROVM, DESCRIPTORS_RESERVED, PROCESSES_PER_MICROVM, reckonCapacity } from "./capacity.ts";

const PLENTY = { openFilesMax: 1_048_576, processesLeft: Number.POSITIVE_INFINITY };

test("with plenty of everything nothing is lowered", () => {
  const { slotsMax, poolMax, lowered } = reckonCapacity(PLENTY, 1_000);
  assert.deepEqual([slotsMax, poolMax, lowered], [1_000, 64, []]);
});

test("all that is promised fits into the descriptors, with the service's own part", () => {
  for (const openFilesMax of [64, 256, 512, 1_024, 4_096, 20_000, 65_536]) {
    const { slotsMax, poolMax, connectionsMax, lowered } = reckonCapacity({ ...PLENTY, openFilesMax }, 10_000);
    const used = (slotsMax + poolMax) * DESCRIPTORS_PER_MICROVM + connectionsMax + DESCRIPTORS_RESERVED;
    assert.ok(slotsMax >= 1 && connectionsMax >= 64);
    if (openFilesMax >= 512) assert.ok(used <= openFilesMax, `${used} of ${openFilesMax}`);
    assert.match(lowered.join("\n"), new RegExp(`${openFilesMax} files`));
  }
});

test("and into the processes", () => {
  const { slotsMax, poolMax, lowered } = reckonCapacity({ ...PLENTY, processesLeft: 130 }, 1_000);
  assert.ok((slotsMax + poolMax) * PROCESSES_PER_MICROVM <= 130);
  assert.match(lowered.join("\n"), /pids\.max/);
});
