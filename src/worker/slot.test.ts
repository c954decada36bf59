import assert from "node:assert/strict";
import { Duplex } from "node:stream";
import { setImmediate as turn } from "node:timers/promises";
import { test } from "node:test";
import { systemClock } from "../lib/clock.ts";
import { createMetrics } from "../telemetry/metrics.ts";
import { noTracer } from "../telemetry/tracing.ts";
import type { CpuShare, MicroVmExit } from "../vmm/microvm.ts";
import type { FunctionSpec } from "../wire/function.ts";
import { PAYLOAD_BYTES_MAX } from "../wire/limits.ts";
import { encodeFields, encodeFrame, FrameDecoder } from "../wire/shim-codec.ts";
import {
  DoneField,
  FailureField,
  FailureOutcome,
  FromShim,
  InvokeField,
  ReadyField,
  ToShim,
} from "../wire/shim-protocol.ts";
import type { Field, Frame } from "../wire/shim-protocol.ts";
import { decodeFields } from "../wire/shim-codec.ts";
import type { BootedMicroVm } from "./booted.ts";
import { LOG_RATE_KIB_DEFAULT } from "./log-rate.ts";
import { BufferedSink } from "./invocation.ts";
import { ShimLink } from "./shim-link.ts";
import { Slot } from "./slot.ts";
import { START_WEIGHT_MIN } from "./starts/limits.ts";
import type { StartTurn } from "./starts/starts.ts";

const SPEC: FunctionSpec = {
  functionArn: "arn:aws:lambda:us-east-1:000000000000:function:f",
  functionName: "f",
  version: "$LATEST",
  revision: "r",
  accountId: "000000000000",
  region: "us-east-1",
  runtime: "provided.al2023",
  handler: "h",
  memoryMb: 128,
  timeoutMs: 3_000,
  ephemeralMb: 512,
  environment: { MINE: "1" },
  code: "code",
  layers: [],
  logGroup: "/aws/lambda/f",
  logFormat: "Text",
  reuse: "always",
};

const REQUEST = {
  requestId: "r1",
  invokedFunctionArn: SPEC.functionArn,
  clientContext: null,
  cognitoIdentity: null,
  traceId: null,
  trace: null,
  payload: Buffer.from('{"a":1}'),
  asynchronous: false,
  receivedAtMs: 0,
};

const TURN: StartTurn = { watch: () => {}, [Symbol.dispose]: () => {} };

/** The guest's end of a slot's stream: what the slot sends is collected, what the guest says is written by the test. */
const guest = (changes: Partial<FunctionSpec> = {}, onChange: (slot: Slot) => void = () => {}) => {
  const toShim: Frame[] = [];
  const decoder = new FrameDecoder(new Set(Object.values(ToShim)));
  const stream = new Duplex({
    read: () => {},
    write: (chunk: Buffer, _encoding, done) => {
      toShim.push(...decoder.push(Buffer.from(chunk)));
      done();
    },
  });
  const killed: string[] = [];
  const shares: CpuShare[] = [];
  const busyness: boolean[] = [];
  const exited = Promise.withResolvers<MicroVmExit>();
  const host = { killedForMemory: null as string | null };
  const vm = {
    id: "vm",
    cpu: 0,
    exited: exited.promise,
    attachDrive: () => Promise.resolve("/dev/ubdb"),
    attachScratch: () => Promise.resolve("/dev/ubdc"),
    pause: () => Promise.resolve(),
    resume: () => Promise.resolve(),
    stats: () => Promise.resolve({ pid: 1, cpu: 0, memoryBytes: 1, cpuTimeUs: 1, scratchBytes: 1 }),
    clock: systemClock,
    scratchBytes: () => Promise.resolve(1),
    setScratchWritable: () => {},
    cpuTimes: () => null,
    outOfHostMemory: () => host.killedForMemory,
    setCpuShare: (share: CpuShare) => shares.push(share),
    setBusy: (busy: boolean) => busyness.push(busy),
    kill: (detail: string) => {
      killed.push(detail);
      return Promise.resolve({
        cause: "killed",
        exitCode: null,
        error: null,
        signal: null,
        detail,
      } satisfies MicroVmExit);
    },
  };
  const booted = {
    vm,
    link: new ShimLink(stream, systemClock),
    memoryMib: 192,
    bootMs: 8,
    drives: new Map(),
    runtime: null,
  } as unknown as BootedMicroVm;
  const lines: string[] = [];
  const states: string[] = [];
  const slot = new Slot(
    "0123456789abcdef0123456789abcdef",
    { ...SPEC, ...changes },
    {
      workerId: "w",
      cpu: "strict",
      clock: { ...systemClock, wallMs: () => 1_700_000_000_000 },
      metrics: createMetrics(),
      tracer: noTracer,
      microVm: () => Promise.resolve({ booted, result: "bare", settled: () => {} }),
      network: () => Promise.resolve(null),
      runtime: () => ({
        drives: [],
        argv: ["/var/task/bootstrap"],
        environment: {},
        readAtStart: null,
        version: "v",
        versionArn: "arn",
      }),
      image: () => Promise.resolve("/code.erofs"),
      logSink: () => ({ write: ({ text }) => lines.push(text), leftOut: () => {}, flush: () => Promise.resolve() }),
      logRateKib: LOG_RATE_KIB_DEFAULT,
      changed: (changed) => {
        states.push(changed.info.state);
        onChange(changed);
      },
      warn: (_message, error) => assert.fail(String(error)),
    },
  );
  const say = (type: number, fields: Field[] | Uint8Array = []): void => {
    stream.push(encodeFrame(type, 0, fields instanceof Uint8Array ? fields : encodeFields(fields)));
  };
  return { slot, say, toShim, killed, lines, states, stream, exited, shares, busyness, host };
};

const settled = async (): Promise<void> => {
  for (let turns = 0; turns < 10; turns += 1) await turn();
};

const ready = async (made: ReturnType<typeof guest>): Promise<void> => {
  await made.slot.start(null, TURN);
  made.say(FromShim.Ready, [[ReadyField.InitDurationUs, 12_340]]);
  await settled();
};

const answer = (made: ReturnType<typeof guest>, text: string): void => {
  made.say(FromShim.ResponseHead);
  made.say(FromShim.ResponseData, Buffer.from(text));
  made.say(FromShim.ResponseEnd);
  made.say(FromShim.Done, [
    [DoneField.DurationUs, 3_010],
    [DoneField.MemoryBytesPeak, 36 * 1024 * 1024],
    [DoneField.RuntimeAlive, 1],
  ]);
};

test("an invocation that comes during init waits for it, and its report pays for it", async () => {
  const made = guest();
  await made.slot.start(null, TURN);
  const sink = new BufferedSink();
  const invoked = made.slot.invoke(REQUEST, sink, PAYLOAD_BYTES_MAX);
  await settled();
  assert.deepEqual(
    made.toShim.map((frame) => frame.type),
    [ToShim.Configure],
  );
  made.say(FromShim.Ready, [[ReadyField.InitDurationUs, 12_340]]);
  await settled();
  assert.equal(made.slot.info.state, "Busy");
  const [, invoke, payload] = made.toShim;
  assert.ok(invoke && payload);
  const fields = decodeFields(invoke.payload);
  assert.equal(fields.text(InvokeField.RequestId), "r1");
  assert.equal(fields.number(InvokeField.DeadlineMs), 1_700_000_003_000);
  assert.equal(Buffer.from(payload.payload).toString(), '{"a":1}');
  answer(made, "42");
  const { error, report } = await invoked;
  assert.equal(error, null);
  assert.equal(Buffer.from(sink.payload()).toString(), "42");
  assert.equal(report.initDurationMs, 12.34);
  assert.equal(report.billedDurationMs, Math.ceil(3.01 + 12.34));
  assert.equal(report.maxMemoryUsedMb, 36);
  assert.match(
    Buffer.from(report.logTail).toString(),
    /^START RequestId: r1 Version: \$LATEST\nEND RequestId: r1\nREPORT RequestId: r1\t/,
  );
  assert.deepEqual(made.states, ["Idle", "Busy", "Idle"]);
  await made.slot.end("drain");
});

test("between init and the invocation that waited for it a slot gives way to nobody", async () => {
  const seen: [state: string, mayGiveWay: boolean][] = [];
  const made = guest({}, (slot) => seen.push([slot.info.state, slot.mayGiveWay]));
  await made.slot.start(null, TURN);
  const invoked = made.slot.invoke(REQUEST, new BufferedSink(), PAYLOAD_BYTES_MAX);
  await settled();
  made.say(FromShim.Ready, [[ReadyField.InitDurationUs, 12_340]]);
  await settled();
  answer(made, "1");
  await invoked;
  assert.deepEqual(seen, [
    ["Idle", false],
    ["Busy", false],
    ["Idle", true],
  ]);
  await made.slot.end("drain");
});

test("an invocation whose slot ends before it begins may have another", async () => {
  const cold = guest();
  await cold.slot.start(null, TURN);
  const waits = cold.slot.invoke(REQUEST, new BufferedSink(), PAYLOAD_BYTES_MAX);
  // The guest's word and the end come in one turn: the invocation has not had one yet.
  cold.say(FromShim.Ready, [[ReadyField.InitDurationUs, 12_340]]);
  cold.stream.once("data", () => void cold.slot.end("pressure"));
  await assert.rejects(waits, { name: "SlotGoneException" });
  const warm = guest();
  await ready(warm);
  const comes = warm.slot.invoke(REQUEST, new BufferedSink(), PAYLOAD_BYTES_MAX);
  void warm.slot.end("pressure");
  await assert.rejects(comes, { name: "SlotGoneException" });
});

test("a second invocation is warm and pays for no init", async () => {
  const made = guest();
  await ready(made);
  for (const cold of [true, false]) {
    const invoked = made.slot.invoke(REQUEST, new BufferedSink(), PAYLOAD_BYTES_MAX);
    await settled();
    answer(made, "1");
    const { report } = await invoked;
    assert.equal(report.coldStart, cold);
    assert.equal(report.initDurationMs === null, !cold);
  }
  await made.slot.end("drain");
});

test("frames out of order end the microVM, and the invocation fails", async (t) => {
  const wrong: Record<string, (made: ReturnType<typeof guest>) => void> = {
    "data before a head": (made) => made.say(FromShim.ResponseData, Buffer.from("x")),
    "done before an answer": (made) => made.say(FromShim.Done),
    "a second head": (made) => (made.say(FromShim.ResponseHead), made.say(FromShim.ResponseHead)),
    "ready again": (made) => made.say(FromShim.Ready),
    "an unknown frame": (made) => made.stream.push(Buffer.from([0, 0, 0, 0, 0x42, 0, 0, 0])),
    "a length over the limit": (made) => made.stream.push(Buffer.from([255, 255, 255, 255, 0x84, 0, 0, 0])),
    "a field that points past its end": (made) => made.say(FromShim.Done, Buffer.from([1, 0, 0, 0, 9, 0, 0, 0])),
  };
  for (const [name, act] of Object.entries(wrong)) {
    await t.test(name, async () => {
      const made = guest();
      await ready(made);
      const invoked = made.slot.invoke(REQUEST, new BufferedSink(), PAYLOAD_BYTES_MAX);
      invoked.catch(() => {});
      await settled();
      act(made);
      await settled();
      assert.equal(made.slot.info.state, "Dead");
      assert.equal(made.killed.length, 1);
      await assert.rejects(invoked, { name: "ServiceException" });
    });
  }
});

test("more bytes than an answer may have end the microVM", async () => {
  const made = guest();
  await ready(made);
  const invoked = made.slot.invoke(REQUEST, new BufferedSink(), 10);
  invoked.catch(() => {});
  await settled();
  made.say(FromShim.ResponseHead);
  made.say(FromShim.ResponseData, Buffer.alloc(11));
  await assert.rejects(invoked, /more than it was told/);
});

test("a microVM that dies under an invocation fails it, and the first reason is kept", async () => {
  const made = guest();
  await ready(made);
  const invoked = made.slot.invoke(REQUEST, new BufferedSink(), PAYLOAD_BYTES_MAX);
  invoked.catch(() => {});
  await settled();
  made.exited.resolve({
    cause: "crashed",
    exitCode: null,
    error: null,
    signal: "SIGSEGV",
    detail: "the kernel crashed",
  });
  await assert.rejects(invoked, /the kernel crashed/);
  await made.slot.end("drain");
  assert.equal(made.slot.endReason, "the kernel crashed");
});

test("a failure that comes of the host's lack of memory is not told as the function's", async () => {
  const made = guest();
  await ready(made);
  const invoked = made.slot.invoke(REQUEST, new BufferedSink(), PAYLOAD_BYTES_MAX);
  await settled();
  made.host.killedForMemory = "the host was out of memory";
  made.say(FromShim.ResponseEnd, [
    [FailureField.Outcome, FailureOutcome.Exited],
    [FailureField.Signal, 11],
  ]);
  made.say(FromShim.Done, [[DoneField.DurationUs, 3_010]]);
  await assert.rejects(invoked, { status: 500, message: /did: the host was out of memory$/ });
  assert.equal(made.slot.endReason, "the host was out of memory");
  await made.slot.end("drain");
  assert.deepEqual(made.killed, ["the host was out of memory"]);
});

test("a slot that is used once ends after its invocation", async () => {
  const made = guest({ reuse: "never" });
  await ready(made);
  const invoked = made.slot.invoke(REQUEST, new BufferedSink(), PAYLOAD_BYTES_MAX);
  await settled();
  answer(made, "1");
  await invoked;
  assert.deepEqual(made.states, ["Idle", "Busy", "Dead"]);
  await made.slot.end("once");
  assert.deepEqual(made.killed, ["once"]);
});

test("output is cut into lines, and lines without an end come before the platform's", async () => {
  const made = guest();
  await ready(made);
  const invoked = made.slot.invoke(REQUEST, new BufferedSink(), PAYLOAD_BYTES_MAX);
  await settled();
  const time = Buffer.alloc(8);
  for (const text of ["one\ntw", "o\nthree"]) made.say(FromShim.Log, Buffer.concat([time, Buffer.from(text)]));
  answer(made, "1");
  const { report } = await invoked;
  assert.match(Buffer.from(report.logTail).toString(), /LATEST\none\ntwo\nthree\nEND/);
  assert.ok(made.lines.includes("three"));
  await made.slot.end("drain");
});

test("a guest that is silent past its deadline is ended, and the client gets a timeout", async () => {
  const made = guest({ timeoutMs: 1 });
  await ready(made);
  const { error, report } = await made.slot.invoke(REQUEST, new BufferedSink(), PAYLOAD_BYTES_MAX);
  assert.equal(error?.errorType, "Sandbox.Timedout");
  assert.equal(report.durationMs, 1);
  assert.match(Buffer.from(report.logTail).toString(), /Status: timeout/);
  assert.equal(made.slot.info.state, "Dead");
  assert.equal(made.killed.length, 1);
});

test("a function's part of a CPU follows its memory, more while it starts, is held to after init, and counts while it works", async () => {
  const made = guest({ memoryMb: 512 });
  await ready(made);
  const share = 512 / 1_769;
  assert.deepEqual(made.shares, [
    { share: START_WEIGHT_MIN, hard: false },
    { share, hard: true },
  ]);
  assert.deepEqual(made.busyness, [true, false]);
  const invoked = made.slot.invoke(REQUEST, new BufferedSink(), PAYLOAD_BYTES_MAX);
  await settled();
  assert.deepEqual(made.busyness, [true, false, true]);
  answer(made, "1");
  await invoked;
  assert.deepEqual(made.busyness, [true, false, true, false]);
  await made.slot.end("drain");
});
