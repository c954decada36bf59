import assert from "node:assert/strict";
import { test } from "node:test";
import { systemClock } from "../lib/clock.ts";
import type { LogRecord } from "../telemetry/function-log.ts";
import type { Frame } from "../wire/shim-protocol.ts";
import { FromShim } from "../wire/shim-protocol.ts";
import { HOLD_MS, LINES_PER_TURN_MAX } from "./log-rate.ts";
import { SlotLog } from "./slot-log.ts";

const RATE_KIB = 64;
/** Costs of `LogRate`: a line weighs 128 bytes more than it has, 16 s of the rate may come at once. */
const BURST_LINES = Math.floor((16 * RATE_KIB * 1024) / (128 + 1));

const frameOf = (text: string): Frame => ({
  type: FromShim.Log,
  flags: 0,
  payload: Buffer.concat([Buffer.alloc(8), Buffer.from(text)]),
});

/** A slot's log with a clock that the test moves, and all that was written to it. */
const slotLog = () => {
  const written: string[] = [];
  const counts = { leftOut: 0 };
  const time = { nowMs: 0 };
  const clock = { ...systemClock, monotonicMs: () => time.nowMs };
  const sink = {
    write: ({ text }: LogRecord) => void written.push(text),
    leftOut: (records: number) => void (counts.leftOut += records),
    flush: () => Promise.resolve(),
  };
  const log = new SlotLog(sink, "Text", clock, RATE_KIB);
  /** Gives a frame until it is taken, as the link does; resolves to how often, and how long the guest was held back. */
  const give = (text: string): { readonly turns: number; readonly heldMs: number } => {
    let [turns, heldMs] = [0, 0];
    for (let frame: Frame | null = frameOf(text); frame !== null; turns += 1) {
      const held = log.output(frame);
      frame = held?.rest ?? null;
      heldMs += held?.delayMs ?? 0;
      time.nowMs += held?.delayMs ?? 0;
    }
    return { turns, heldMs };
  };
  return { log, give, written, counts, time };
};

test("within its rate every line is kept, in order, and no turn makes too many of them", () => {
  const { give, written, counts } = slotLog();
  const lines = Array.from({ length: 6_000 }, (_, n) => `line ${n}`);
  const { turns, heldMs } = give(`${lines.join("\n")}\n`);
  assert.deepEqual(written, lines);
  assert.equal(turns, lines.length / LINES_PER_TURN_MAX);
  assert.deepEqual([heldMs, counts.leftOut], [0, 0]);
});

test("beyond it lines are left out and counted where they are missing, and the guest is held back", () => {
  const { log, give, written, counts, time } = slotLog();
  const flood = "y\n".repeat(30_000);
  let heldMs = 0;
  for (let frame = 0; frame < 20; frame += 1) heldMs += give(flood).heldMs;
  assert.ok(heldMs >= 15 * 50, `held back for ${heldMs} ms`);
  const kept = written.filter((text) => text === "y").length;
  // The burst, and what came back in the time that passed.
  assert.ok(kept >= BURST_LINES && kept <= BURST_LINES + ((heldMs / 1000) * RATE_KIB * 1024) / 129 + 2_000, `${kept}`);
  time.nowMs += 60_000;
  give("after\n");
  log.platform({ type: "start", requestId: "r", version: "1" });
  assert.deepEqual(written.slice(-2), ["after", "START RequestId: r Version: 1"]);
  const notices = written.filter((text) => text.startsWith("LOGS_DROPPED"));
  const told = notices.reduce((sum, text) => sum + Number(/Records: (\d+)/.exec(text)?.[1]), 0);
  assert.equal(told, 20 * 30_000 - kept);
  assert.equal(counts.leftOut, told);
  // In few places: a quarter of a second apart.
  assert.ok(notices.length <= 2 + heldMs / 250, `${notices.length} notices in ${heldMs} ms`);
  assert.match(written.at(-3) ?? "", /^LOGS_DROPPED Records: \d+\tBytes: \d+\tReason: .*--log-rate/);
});

test("small chunks beyond the rate hold the guest back by what they cost, not each of them", () => {
  const { give } = slotLog();
  const flood = "y\n".repeat(30_000);
  for (let frame = 0; frame < 20; frame += 1) give(flood);
  let heldMs = 0;
  for (let chunk = 0; chunk < 5_000; chunk += 1) heldMs += give("y").heldMs;
  assert.ok(heldMs > 0 && heldMs <= 25 * HOLD_MS, `held back for ${heldMs} ms`);
});

test("past its deadline a guest is not held back, and its flood costs no more lines", () => {
  const { log, give, written } = slotLog();
  log.openTail();
  for (let frame = 0; frame < 5; frame += 1) give("y\n".repeat(30_000));
  const before = written.length;
  log.hurry();
  assert.deepEqual(give("y\n".repeat(30_000)), { turns: 1, heldMs: 0 });
  assert.equal(written.length, before);
  // The next invocation's is.
  log.openTail();
  assert.equal(give("y\n".repeat(30_000)).heldMs, 50);
});
