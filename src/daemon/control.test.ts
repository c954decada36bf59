import assert from "node:assert/strict";
import { mkdtemp, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { systemClock } from "../lib/clock.ts";
import { createMetrics } from "../telemetry/index.ts";
import type { SlotInfo } from "../wire/slot.ts";
import { getControl, getSlots, getStats, serveControl } from "./control.ts";
import { dataFiles } from "./settings.ts";

const slot: SlotInfo = {
  slotId: "s",
  workerId: "w",
  functionKey: "k",
  functionArn: "arn:aws:lambda:us-east-1:000000000000:function:f",
  version: "$LATEST",
  state: "Idle",
  memoryMb: 128,
  createdAtMs: 1,
  since: 2,
  invocations: 3,
  memoryBytes: 4,
  cpuTimeUs: 5,
  scratchBytes: 0,
  cpu: 0,
};
const worker = {
  workerId: "w",
  atMs: 1,
  placementLeases: [],
  cpus: 1,
  memoryBytesTotal: 1,
  memoryBytesAvailable: 1,
  memoryBytesIdle: 0,
  memoryMbCommitted: 1,
  slots: 1,
  slotsMax: 1,
  busy: 0,
  groups: [],
  cpuShare: 0,
  networkShare: 0,
  storageBytesTotal: 1,
  storageBytesAvailable: 1,
  draining: false,
};

const queue = { waiting: 3, running: 1, throttledFunctions: 1, busiest: [{ functionName: "f", waiting: 2 }] };

test("the control socket answers its owner, and goes away", async () => {
  const dataDir = await mkdtemp(join(tmpdir(), "hearth-control-"));
  const source = {
    slots: { listSlots: async () => [slot], report: async () => worker },
    queue: async () => queue,
    metrics: createMetrics(),
    hypervisor: { name: "uml", reason: "r" },
  };
  try {
    {
      await using _control = await serveControl(dataDir, source, "http://127.0.0.1:1", systemClock);
      assert.equal((await stat(dataFiles(dataDir).control)).mode & 0o777, 0o600);
      assert.deepEqual(await getSlots(dataDir), [slot]);
      const stats = await getStats(dataDir);
      assert.deepEqual([stats.pid, stats.endpoint, stats.worker], [process.pid, "http://127.0.0.1:1", worker]);
      assert.deepEqual(JSON.parse(await getControl(dataDir, "/queue")), queue);
      source.metrics.pool("hit");
      assert.match(await getControl(dataDir, "/metrics"), /hearth_pool_total\{result="hit",kind="bare"\} 1/);
      await assert.rejects(getControl(dataDir, "/other"), /404/);
    }
    await assert.rejects(getSlots(dataDir), /No Hearth runs on .* \(ENOENT\)/);
  } finally {
    await rm(dataDir, { recursive: true, force: true });
  }
});
