import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { createMetrics } from "./metrics.ts";
import type { MetricsReading } from "./metrics.ts";
import { parseSamples } from "./prometheus-text.ts";
import type { Sample } from "./prometheus-text.ts";

const valueOf = (samples: readonly Sample[], name: string, labels: Readonly<Record<string, string>> = {}): number => {
  const found = samples.filter(
    (sample) => sample.name === name && Object.entries(labels).every(([key, value]) => sample.labels[key] === value),
  );
  assert.equal(found.length, 1, `${name} ${JSON.stringify(labels)}: ${found.length} samples`);
  return found[0]?.value ?? Number.NaN;
};

const reading = (workerId: string): MetricsReading => ({
  workers: [
    {
      report: {
        workerId,
        atMs: 0,
        placementLeases: [],
        cpus: 2,
        memoryBytesTotal: 1000,
        memoryBytesAvailable: 400,
        memoryBytesIdle: 0,
        memoryMbCommitted: 3,
        slots: 3,
        slotsMax: 9,
        busy: 1,
        groups: [],
        cpuShare: 0,
        networkShare: 0,
        storageBytesTotal: 1,
        storageBytesAvailable: 1,
        draining: false,
      },
      slots: { Init: 0, Idle: 2, Busy: 1, Dead: 0 },
      starts: { waiting: 3, underWay: 2 },
      slotMemoryBytes: 77,
      slotScratchBytes: 88,
      scratchStopped: 1,
      poolReady: { bare: 4 },
    },
  ],
  concurrency: { account: 1, limit: 1000 },
  events: { waiting: 5, oldestAgeMs: 60_000 },
  logLinesDropped: 6,
  hostLog: { lines: 11, failures: 12 },
  http: { connections: { idle: 7, working: 8 }, bodies: { unprovenBytes: 9, bytes: 10 }, certificateExpiresAtMs: null },
});

test("a duration lands in its bucket, in seconds, and in no smaller one", async () => {
  const metrics = createMetrics();
  for (const durationMs of [0.05, 0.6, 12, 9_999, 20_000]) metrics.reserve(durationMs, "warm");
  const samples = parseSamples(await metrics.text());
  const upTo = (le: string): number => valueOf(samples, "hearth_reserve_seconds_bucket", { le });
  assert.deepEqual(
    ["0.0001", "0.0005", "0.0007", "0.01", "0.015", "7", "10", "+Inf"].map(upTo),
    [1, 1, 2, 2, 3, 3, 4, 5],
  );
  assert.equal(valueOf(samples, "hearth_reserve_seconds_count", { outcome: "warm" }), 5);
});

test("what is read is looked up when the text is asked for, and workers that left are gone from it", async () => {
  const metrics = createMetrics();
  let worker = "one";
  metrics.readFrom(async () => reading(worker));
  const first = parseSamples(await metrics.text());
  assert.equal(valueOf(first, "hearth_slots", { worker: "one", state: "Idle" }), 2);
  assert.equal(valueOf(first, "hearth_memory_committed_bytes"), 3 * 1024 * 1024);
  assert.equal(valueOf(first, "hearth_slots_memory_bytes"), 77);
  assert.equal(valueOf(first, "hearth_pool_ready", { kind: "bare" }), 4);
  assert.equal(valueOf(first, "hearth_events_waiting"), 5);
  assert.equal(valueOf(first, "hearth_events_oldest_age_seconds"), 60);
  worker = "two";
  const second = parseSamples(await metrics.text());
  assert.deepEqual(
    second.filter((sample) => sample.name === "hearth_slots_max").map((sample) => sample.labels["worker"]),
    ["two"],
  );
  assert.equal(valueOf(second, "hearth_log_lines_dropped_total"), 6, "a total is not added to itself");
});

test("two registries do not mix", async () => {
  const [one, other] = [createMetrics(), createMetrics()];
  one.evicted("idle");
  assert.equal(valueOf(parseSamples(await one.text()), "hearth_slots_ended_total"), 1);
  assert.doesNotMatch(await other.text(), /hearth_slots_ended_total\{/);
});

test("samples are read with their labels' escapes; what is none is refused", () => {
  assert.deepEqual(parseSamples('# HELP a\na{b="x\\"y\\\\,}",c="d"} 1e-3\n\nd +Inf\n'), [
    { name: "a", labels: { b: 'x"y\\,}', c: "d" }, value: 0.001 },
    { name: "d", labels: {}, value: Number.POSITIVE_INFINITY },
  ]);
  for (const wrong of ["a", "a{b} 1", "a b", '1a{b="c"} 1', 'a{b="c} 1']) {
    assert.throws(() => parseSamples(wrong), /can be read/, wrong);
  }
});

test("the alerts of docs/operations.md are about metrics that there are", async () => {
  const metrics = createMetrics();
  metrics.readFrom(async () => reading("one"));
  const text = await metrics.text();
  const page = readFileSync(new URL("../../docs/operations.md", import.meta.url), "utf8");
  const names = new Set(page.match(/\bhearth_[a-z_]+/g));
  assert.ok(names.size > 10, "the page has its alerts");
  for (const name of names) assert.match(text, new RegExp(`^# TYPE ${name} `, "m"), name);
  // A series that begins with its first count does not increase for Prometheus: the alert would miss that one.
  const asked = [...page.matchAll(/(?:rate|increase)\((hearth_[a-z_]+)/g)].map(([, name]) => name);
  const samples = new Set(parseSamples(text).map(({ name }) => name));
  const missing = asked.filter((name) => name !== undefined && !samples.has(name));
  assert.deepEqual([...new Set(missing)], ["hearth_http_requests_total"], "a ratio of requests needs no beginning");
});
