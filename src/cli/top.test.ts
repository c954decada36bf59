import assert from "node:assert/strict";
import { test } from "node:test";
import pc from "picocolors";
import { createMetrics } from "../telemetry/index.ts";
import type { SlotInfo } from "../wire/slot.ts";
import type { ControlStats } from "../daemon/control.ts";
import { cut } from "./output.ts";
import { figuresBetween, readingOf } from "./top-figures.ts";
import { drawTop, sortSlots } from "./top-screen.ts";

const START_MS = 1_700_000_000_000;

const statsAt = (atMs: number, pid = 1): ControlStats => ({
  pid,
  startedAtMs: START_MS,
  endpoint: "http://127.0.0.1:9070",
  hypervisor: { name: "uml", reason: "r" },
  worker: {
    workerId: "w",
    atMs: START_MS + atMs,
    placementLeases: [],
    cpus: 2,
    memoryBytesTotal: 8 * 2 ** 30,
    memoryBytesAvailable: 6 * 2 ** 30,
    memoryBytesIdle: 0,
    memoryMbCommitted: 384,
    slots: 3,
    slotsMax: 1000,
    busy: 1,
    groups: [],
    cpuShare: 0.5,
    networkShare: 0,
    storageBytesTotal: 1,
    storageBytesAvailable: 1,
    draining: false,
  },
});

const slot = (slotId: string, changes: Partial<SlotInfo> = {}): SlotInfo => ({
  slotId,
  workerId: "w",
  functionKey: "k",
  functionArn: `arn:aws:lambda:us-east-1:000000000000:function:${slotId}`,
  version: "$LATEST",
  state: "Idle",
  memoryMb: 128,
  createdAtMs: START_MS,
  since: START_MS,
  invocations: 1,
  memoryBytes: 2 ** 20,
  cpuTimeUs: 0,
  scratchBytes: 0,
  cpu: 0,
  ...changes,
});

const plain = pc.createColors(false);

test("figures are those of the time between two readings", async () => {
  const metrics = createMetrics();
  metrics.reserve(9_000, "cold");
  metrics.invoke(5_000, { cold: true, result: "function-error" });
  const before = readingOf(statsAt(10_000), [slot("a", { cpuTimeUs: 4_000_000 })], await metrics.text());
  for (let n = 0; n < 100; n += 1) metrics.reserve(n < 98 ? 0.12 : 40, "warm");
  for (let n = 0; n < 20; n += 1) metrics.invoke(2.5, { cold: false, result: "success" });
  metrics.pool("hit");
  metrics.throttled("CallerRateLimitExceeded");
  const slots = [
    slot("a", { cpuTimeUs: 9_000_000 }),
    slot("b", { cpuTimeUs: 1_000_000, createdAtMs: START_MS + 16_000 }),
  ];
  const after = { ...readingOf(statsAt(20_000), slots, await metrics.text()), atMs: before.atMs + 10_000 };

  const figures = figuresBetween(before, after);
  const { reserve, invoke, boot } = figures.durations;
  assert.equal(reserve.count, 100);
  assert.ok(reserve.p50Ms !== null && reserve.p50Ms > 0.1 && reserve.p50Ms <= 0.15, String(reserve.p50Ms));
  assert.ok(reserve.p99Ms !== null && reserve.p99Ms > 30 && reserve.p99Ms <= 50, String(reserve.p99Ms));
  assert.ok(invoke.p99Ms !== null && invoke.p99Ms > 2 && invoke.p99Ms <= 3);
  assert.deepEqual(boot, { count: 0, p50Ms: null, p99Ms: null });
  assert.deepEqual(figures.rates, { invocations: 2, errors: 0, coldStarts: 0, throttles: 0.1 });
  assert.deepEqual(figures.pool, { hits: 1, misses: 0 });
  assert.deepEqual(
    [...figures.slotCpus],
    [
      ["a", 0.5],
      ["b", 0.25],
    ],
  );

  const all = figuresBetween(null, after);
  assert.deepEqual([all.seconds, all.durations.reserve.count, all.rates.errors], [20, 101, 0.05]);
  const other = figuresBetween({ ...before, stats: statsAt(10_000, 2) }, after);
  assert.equal(other.durations.reserve.count, 101, "another process before: nothing to take away");
});

test("slots are sorted by what is asked for, the most first", async () => {
  const slots = [
    slot("idle", { memoryBytes: 9 * 2 ** 20, invocations: 5 }),
    slot("busy", { state: "Busy", cpuTimeUs: 1_000, createdAtMs: START_MS + 5 }),
    slot("init", { state: "Init", cpuTimeUs: 9_000_000, invocations: 0, createdAtMs: START_MS + 9 }),
  ];
  const reading = readingOf(statsAt(10_000), slots, "");
  const figures = figuresBetween(null, reading);
  const order = (sort: Parameters<typeof sortSlots>[2]): string[] =>
    sortSlots(slots, figures, sort).map(({ slotId }) => slotId);
  assert.deepEqual(order("state"), ["busy", "init", "idle"]);
  assert.deepEqual(order("cpu"), ["init", "busy", "idle"]);
  assert.deepEqual(order("memory"), ["idle", "busy", "init"]);
  assert.deepEqual(order("calls"), ["idle", "busy", "init"]);
  assert.deepEqual(order("age"), ["idle", "busy", "init"]);
});

test("the screen is never exceeded, and what is not shown is counted", async () => {
  const slots = Array.from({ length: 50 }, (_, at) => slot(`function-${at}`));
  const reading = readingOf(statsAt(10_000), slots, await createMetrics().text());
  const figures = figuresBetween(null, reading);
  for (const [rows, columns] of [
    [24, 80],
    [40, 200],
    [12, 20],
    [3, 5],
  ] as const) {
    const lines = drawTop({ reading, figures, sort: "state", live: true, rows, columns }, plain);
    assert.ok(lines.length <= rows, `${lines.length} lines in ${rows}`);
    assert.ok(lines.every((line) => line.length <= columns));
  }
  const lines = drawTop({ reading, figures, sort: "cpu", live: true, rows: 24, columns: 200 }, plain);
  const shown = lines.filter((line) => line.includes("$LATEST")).length;
  assert.ok(lines.includes(`and ${50 - shown} more`), lines.join("\n"));
  assert.match(lines.at(-1) ?? "", /s state {2}\[c\] cpu .* q quit/);
  const endless = { rows: Number.POSITIVE_INFINITY, columns: Number.POSITIVE_INFINITY };
  const once = drawTop({ reading, figures, sort: "state", live: false, ...endless }, plain);
  assert.equal(once.filter((line) => line.includes("$LATEST")).length, 50);
  assert.match(once.join("\n"), /0 busy, 0 init, 50 idle, at most 1000/);
});

test("a line is cut to its width, colours not counted", () => {
  assert.equal(cut("abcdef", 4), "abcd");
  assert.equal(cut("\u001b[1mabc\u001b[22mdef", 4), "\u001b[1mabc\u001b[22md");
  assert.equal(cut("abc", 3), "abc");
});
