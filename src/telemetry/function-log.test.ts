import assert from "node:assert/strict";
import { appendFile, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { systemClock } from "../lib/clock.ts";
import { LOG_TAIL_BYTES_MAX } from "../wire/limits.ts";
import { FunctionLogs, LineSplitter, LogTail, logFilesOf, parseStoredRecord } from "./function-log.ts";

const temporaryDirectory = async (): Promise<{ path: string } & AsyncDisposable> => {
  const path = await mkdtemp(join(tmpdir(), "hearth-log-"));
  return { path, [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true }) };
};

const recordsOf = async (directory: string, name: string): Promise<string[]> => {
  const files = await logFilesOf(directory, name);
  const texts = await Promise.all(files.map((file) => readFile(file, "utf8")));
  return texts.flatMap((text) => text.split("\n")).flatMap((line) => parseStoredRecord(line)?.text ?? []);
};

test("records of several streams land in one file, in order", async () => {
  await using directory = await temporaryDirectory();
  const logs = new FunctionLogs(directory.path, { clock: systemClock });
  const one = logs.stream("f", "s1");
  const two = logs.stream("f", "s2");
  one.write({ timeMs: 1, text: "a\tb" });
  two.write({ timeMs: 2, text: 'c"\n' });
  await logs.flush();
  one.write({ timeMs: 3, text: "d" });
  await logs.close();
  assert.deepEqual(await recordsOf(directory.path, "f"), ["a\tb", 'c"\n', "d"]);
});

test("files rotate by size and the oldest is dropped", async () => {
  await using directory = await temporaryDirectory();
  const logs = new FunctionLogs(directory.path, { clock: systemClock, fileBytesMax: 200, filesMax: 3 });
  const sink = logs.stream("f", "s");
  for (let n = 0; n < 40; n += 1) {
    sink.write({ timeMs: n, text: `line ${n} ${"x".repeat(40)}` });
    await logs.flush();
  }
  const files = await logFilesOf(directory.path, "f");
  assert.equal(files.length, 3);
  const records = await recordsOf(directory.path, "f");
  assert.ok(records.length >= 3 && records.length <= 8, `${records.length} records kept`);
  assert.match(records.at(-1) ?? "", /^line 39 /);
});

test("a flood is dropped, counted and told, and memory stays bounded", async () => {
  await using directory = await temporaryDirectory();
  const logs = new FunctionLogs(directory.path, { clock: systemClock, pendingBytesMax: 1000 });
  const sink = logs.stream("f", "s");
  for (let n = 0; n < 100; n += 1) sink.write({ timeMs: n, text: "y".repeat(50) });
  sink.write({ timeMs: 100, text: "REPORT" }, true);
  await logs.flush();
  sink.write({ timeMs: 101, text: "after" });
  await logs.close();
  const records = await recordsOf(directory.path, "f");
  const kept = records.filter((text) => text.startsWith("y")).length;
  assert.ok(kept > 0 && kept < 20);
  assert.equal(logs.droppedRecords, 100 - kept);
  // Told where they are missing; what the platform says comes through all the same.
  assert.ok(records[kept]?.startsWith(`LOGS_DROPPED Records: ${100 - kept}\t`), records[kept]);
  assert.deepEqual(records.slice(kept + 1), ["REPORT", "after"]);
});

test("a line that a crash cut off costs no other line", async () => {
  await using directory = await temporaryDirectory();
  const first = new FunctionLogs(directory.path, { clock: systemClock });
  first.stream("f", "s").write({ timeMs: 1, text: "whole" });
  await first.close();
  await appendFile(join(directory.path, "f", "log.jsonl"), '{"timeMs":2,"stre');
  const second = new FunctionLogs(directory.path, { clock: systemClock });
  for (const text of ["next", "and next"]) {
    second.stream("f", "s").write({ timeMs: 3, text });
    await second.flush();
  }
  assert.deepEqual(await recordsOf(directory.path, "f"), ["whole", "next", "and next"]);
});

test("what the disk does not take is counted, and told when it takes something again", async () => {
  await using directory = await temporaryDirectory();
  const blocked = join(directory.path, "logs");
  await writeFile(blocked, "");
  const errors: unknown[] = [];
  const logs = new FunctionLogs(blocked, { clock: systemClock, onError: (error) => errors.push(error) });
  const sink = logs.stream("f", "s");
  for (const text of ["a", "b"]) {
    sink.write({ timeMs: 1, text });
    await sink.flush();
  }
  assert.equal(errors.length, 2);
  assert.equal(logs.droppedRecords, 2);
  await rm(blocked);
  sink.write({ timeMs: 2, text: "c" });
  await sink.flush();
  const [told = "", kept] = await recordsOf(blocked, "f");
  assert.equal(kept, "c");
  assert.match(told, /^LOGS_DROPPED Records: 2\t/);
});

test("an error of the disk is told and stops nothing", async () => {
  await using directory = await temporaryDirectory();
  const blocked = join(directory.path, "file");
  await writeFile(blocked, "");
  const errors: unknown[] = [];
  const logs = new FunctionLogs(blocked, { clock: systemClock, onError: (error) => errors.push(error) });
  logs.stream("f", "s").write({ timeMs: 1, text: "a" });
  await logs.close();
  assert.equal(errors.length, 1);
});

test("a name that would leave the directory is refused", () => {
  assert.throws(() => new FunctionLogs("/nonexistent", { clock: systemClock }).stream("../f", "s"), /no function name/);
});

test("lines are put together from chunks and cut when they never end", () => {
  const splitter = new LineSplitter(8);
  const push = (text: string): readonly string[] => splitter.push(Buffer.from(text)).lines;
  assert.deepEqual(push("ab"), []);
  assert.deepEqual(push("c\r\n\nde\nf"), ["abc", "", "de"]);
  assert.deepEqual(push("0123456789abcdefg\n"), ["f0123456", "789abcde", "fg"]);
  assert.equal(splitter.flush(), null);
  push("rest");
  assert.equal(splitter.flush(), "rest");
  const [euro] = [Buffer.from("€")];
  assert.deepEqual(splitter.push(euro.subarray(0, 1)).lines, []);
  assert.deepEqual(splitter.push(Buffer.concat([euro.subarray(1), Buffer.from("\n")])).lines, ["€"]);
});

test("lines may be left out, or left to come again, before anything is made of them", () => {
  const splitter = new LineSplitter(8);
  splitter.push(Buffer.from("be"));
  const judged: number[] = [];
  const waited = splitter.push(Buffer.from("gun\nlong line without end\nrest"), (bytes) => {
    judged.push(bytes);
    return judged.length < 3 ? "keep" : "wait";
  });
  assert.deepEqual(judged, [5, 8, 8]);
  assert.deepEqual(waited.lines, ["begun", "long lin"]);
  assert.equal(Buffer.from(waited.rest).toString(), "e without end\nrest");
  const skipped = splitter.push(Buffer.from("1\n22\n\n333\nbegin"), () => "skip");
  assert.deepEqual(skipped, { lines: [], droppedLines: 4, droppedBytes: 6, rest: skipped.rest });
  assert.equal(skipped.rest.length, 0);
  assert.deepEqual(splitter.push(Buffer.from("ning\n")).lines, ["beginnin", "g"]);
  // One that never ends, and has begun before.
  splitter.push(Buffer.from("four"));
  assert.equal(splitter.push(Buffer.from("more and more"), () => "skip").droppedBytes, 17);
  assert.equal(splitter.flush(), null);
  // Part of a line that is waited with stays what it was.
  splitter.push(Buffer.from("ha"));
  assert.deepEqual(splitter.push(splitter.push(Buffer.from("lf\n"), () => "wait").rest).lines, ["half"]);
});

test("the tail keeps the last 4 KB", () => {
  const tail = new LogTail();
  assert.equal(tail.bytes().length, 0);
  tail.add("first");
  assert.equal(Buffer.from(tail.bytes()).toString(), "first\n");
  for (let n = 0; n < 1000; n += 1) tail.add(`line ${n}`);
  const text = Buffer.from(tail.bytes()).toString();
  assert.equal(text.length, LOG_TAIL_BYTES_MAX);
  assert.ok(text.endsWith("line 998\nline 999\n"));
  tail.add("é".repeat(10_000));
  const cut = Buffer.from(tail.bytes()).toString();
  assert.match(cut, /^é+\n$/);
  assert.ok(Buffer.byteLength(cut) <= LOG_TAIL_BYTES_MAX);
});
