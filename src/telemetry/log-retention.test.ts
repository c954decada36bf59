import assert from "node:assert/strict";
import { mkdir, mkdtemp, readdir, rm, utimes, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { systemClock } from "../lib/clock.ts";
import { FunctionLogs } from "./function-log.ts";
import { trimLogs } from "./log-retention.ts";

const NOW_MS = 1_700_000_000_000;
const HOUR_MS = 3_600_000;

/** Log files of 1,000 bytes, by `function/file`, with the hours since they were written. */
const logsOf = async (ages: Readonly<Record<string, number>>) => {
  const path = await mkdtemp(join(tmpdir(), "hearth-logs-"));
  for (const [name, hours] of Object.entries(ages)) {
    await mkdir(join(path, name, ".."), { recursive: true });
    await writeFile(join(path, name), "x".repeat(1_000));
    const writtenS = (NOW_MS - hours * HOUR_MS) / 1_000;
    await utimes(join(path, name), writtenS, writtenS);
  }
  const left = async (): Promise<string[]> => {
    const names = await readdir(path, { recursive: true });
    return names.filter((name) => name.endsWith(".jsonl")).toSorted();
  };
  return { path, left, [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true }) };
};

test("what nothing was written to for so long is removed, with the directory of a function that is gone", async () => {
  await using logs = await logsOf({ "gone/log.jsonl": 50, "works/log.jsonl": 1, "works/log.1.jsonl": 49 });
  assert.equal(await trimLogs(logs.path, { ageMsMax: 48 * HOUR_MS, bytesMax: 1e9 }, NOW_MS), 1_000);
  assert.deepEqual(await logs.left(), ["works/log.jsonl"]);
  assert.deepEqual(await readdir(logs.path), ["works"]);
});

test("the oldest of all functions go until the rest is small enough, but none that is being written", async () => {
  await using logs = await logsOf({
    "a/log.jsonl": 0,
    "a/log.1.jsonl": 0,
    "b/log.jsonl": 3,
    "b/log.1.jsonl": 5,
    "c/log.jsonl": 0,
    "c/log.1.jsonl": 4,
  });
  const retention = { ageMsMax: 1_000 * HOUR_MS, bytesMax: 4_500 };
  assert.equal(await trimLogs(logs.path, retention, NOW_MS), 4_000);
  assert.deepEqual(await logs.left(), ["a/log.1.jsonl", "a/log.jsonl", "b/log.jsonl", "c/log.jsonl"]);
  assert.equal(await trimLogs(logs.path, { ...retention, bytesMax: 10 }, NOW_MS), 2_000);
  assert.deepEqual(await logs.left(), ["a/log.jsonl", "c/log.jsonl"]);
});

test("logs of many functions stay within their size while they are written", async () => {
  await using logs = await logsOf({});
  const retention = { ageMsMax: 1_000 * HOUR_MS, bytesMax: 50_000 };
  await using written = new FunctionLogs(logs.path, {
    clock: systemClock,
    fileBytesMax: 4_000,
    filesMax: 4,
    retention,
  });
  for (let name = 0; name < 20; name += 1) {
    const sink = written.stream(`f${name}`, "s");
    for (let line = 0; line < 30; line += 1) {
      sink.write({ timeMs: line, text: "x".repeat(500) });
      await sink.flush();
    }
  }
  assert.ok((await logs.left()).length > 60);
  await written.trim();
  const bytesLeft = await trimLogs(logs.path, { ...retention, bytesMax: 1e9 }, systemClock.wallMs());
  // What every function still writes is kept: 20 files of at most 4,000 bytes, and no rotated one beyond the limit.
  assert.ok(bytesLeft <= 20 * 4_000, `${bytesLeft} bytes`);
  assert.equal((await logs.left()).filter((name) => name.endsWith("log.jsonl")).length, 20);
});
