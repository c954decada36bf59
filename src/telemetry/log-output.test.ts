import assert from "node:assert/strict";
import { closeSync, readSync } from "node:fs";
import { describe, it } from "node:test";
import { VirtualClock } from "../lib/virtual-clock.ts";
import { createLog } from "./log.ts";
import { LogOutput } from "./log-output.ts";
import { openPipe } from "./testing.ts";

const READ_BYTES = 64 * 1024;
const BYTES_MAX = 10_000;
const LINE = `${"x".repeat(99)}\n`;
/** More than a pipe holds: a megabyte, where somebody made it as large as it can be. */
const LINES = 20_000;
const PASS_MS = 5_000;

/** Everything that can be read now. */
const drain = (reader: number): string => {
  const buffer = Buffer.alloc(READ_BYTES);
  let text = "";
  for (;;) {
    try {
      const count = readSync(reader, buffer);
      if (count === 0) return text;
      text += buffer.toString("utf8", 0, count);
    } catch (error) {
      assert.equal((error as NodeJS.ErrnoException).code, "EAGAIN");
      return text;
    }
  }
};

describe("the output of Hearth's own log", () => {
  it("keeps what a slow reader does not take, up to a bound, and then says how many lines are missing", async () => {
    const { reader, writer, blocking } = await openPipe();
    closeSync(blocking);
    try {
      const clock = new VirtualClock();
      const output = new LogOutput(writer, clock, BYTES_MAX);
      const log = createLog({ level: "info", format: "json", output });
      for (let n = 0; n < LINES; n += 1) output.write(LINE);
      const { lines, failures } = output.losses;
      assert.ok(lines > 0);
      assert.equal(failures, 0);
      // The order of lines stays, and none is in pieces.
      let text = drain(reader);
      await clock.advance(PASS_MS);
      text += drain(reader);
      const [told, ...rest] = text.replaceAll(LINE, "").split("\n");
      assert.deepEqual(rest, [""]);
      assert.equal((JSON.parse(told ?? "") as { lines: number }).lines, lines);
      assert.equal(text.split(LINE).length - 1, LINES - lines);
      log.info("after");
      assert.match(drain(reader), /"msg":"after"/);
    } finally {
      closeSync(reader);
      closeSync(writer);
    }
  });

  it("does not fail with its reader, is counted, and stays bounded", async () => {
    const { reader, writer, blocking } = await openPipe();
    closeSync(reader);
    closeSync(blocking);
    try {
      const clock = new VirtualClock();
      const output = new LogOutput(writer, clock, BYTES_MAX);
      const log = createLog({ level: "info", format: "text", output });
      const count = 1_000;
      for (let n = 0; n < count; n += 1) log.error({ err: new Error("an error") }, "a line");
      assert.equal(output.losses.failures, 1, "one write for all of them");
      assert.ok(output.losses.lines > count / 2);
      await clock.advance(PASS_MS);
      // With a pause that doubles up to a second.
      assert.ok(output.losses.failures < 20, `${output.losses.failures} writes`);
    } finally {
      closeSync(writer);
    }
  });
});
