import assert from "node:assert/strict";
import { appendFile, mkdir, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { systemClock } from "../lib/clock.ts";
import { FunctionLogs } from "./function-log.ts";
import { LogReader } from "./log-reader.ts";

const directory = await mkdtemp(join(tmpdir(), "hearth-log-"));
after(() => rm(directory, { recursive: true, force: true }));

const drain = async (reader: LogReader): Promise<string[]> => {
  const texts: string[] = [];
  for (;;) {
    const records = await reader.next();
    if (records.length === 0) return texts;
    texts.push(...records.map(({ text }) => text));
  }
};

test("every record once and in order, across rotations, from before the first one on", async () => {
  await using logs = new FunctionLogs(directory, { clock: systemClock, fileBytesMax: 4_000, filesMax: 4 });
  await using reader = new LogReader(directory, "f");
  const sink = logs.stream("f", "s");
  assert.deepEqual(await drain(reader), []);
  const wanted: string[] = [];
  const seen: string[] = [];
  for (let round = 0; round < 60; round += 1) {
    for (let n = 0; n < 20; n += 1) {
      const text = `${String(round)}/${String(n)} ${"x".repeat((round * n) % 90)}`;
      wanted.push(text);
      sink.write({ timeMs: 1, text });
    }
    // Sometimes it is read behind every rotation, sometimes behind two, and sometimes while it happens.
    const flushed = logs.flush();
    if (round % 3 === 0) seen.push(...(await drain(reader)));
    await flushed;
    if (round % 2 === 0) seen.push(...(await drain(reader)));
  }
  seen.push(...(await drain(reader)));
  assert.deepEqual(seen, wanted);
  assert.equal(reader.gaps, 0);
});

test("one who reads too seldom is told of the gap, and goes on behind it", async () => {
  await using logs = new FunctionLogs(directory, { clock: systemClock, fileBytesMax: 1_000, filesMax: 3 });
  await using reader = new LogReader(directory, "slow");
  const sink = logs.stream("slow", "s");
  const write = async (from: number, to: number): Promise<void> => {
    for (let n = from; n < to; n += 1) {
      sink.write({ timeMs: 1, text: `line ${String(n).padStart(4, "0")}` });
      if (n % 10 === 9) await logs.flush();
    }
  };
  await write(0, 10);
  assert.equal((await drain(reader)).length, 10);
  await write(10, 200);
  const seen = await drain(reader);
  assert.equal(reader.gaps, 1);
  assert.equal(seen.at(-1), "line 0199");
  assert.ok(seen.length > 10 && seen.length < 190, `${String(seen.length)} lines`);
});

test("a line that is written in two pieces is one record", async () => {
  await mkdir(join(directory, "pieces"));
  const file = join(directory, "pieces", "log.jsonl");
  await using reader = new LogReader(directory, "pieces");
  await appendFile(file, '{"timeMs":1,"stream":"s","text":"one"}\n{"timeMs":2,"str');
  assert.deepEqual(await drain(reader), ["one"]);
  await appendFile(file, 'eam":"s","text":"größe"}\nno record\n');
  assert.deepEqual(await drain(reader), ["größe"]);
  await sleep(1);
  assert.deepEqual(await drain(reader), []);
});
