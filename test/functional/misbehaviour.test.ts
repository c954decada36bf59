/**
 * What bad functions do, with real runtimes: the caller's exact answer, the log, and that the next invocation of the same
 * function works. The words are those of "Failure payloads" in AWS's runtime emulator.
 */
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { after, describe, test } from "node:test";
import { InvokeCommand } from "@aws-sdk/client-lambda";
import { deploy } from "../../src/cli/deploy.ts";
import type { Deployment } from "../../src/cli/deploy.ts";
import { PAYLOAD_BYTES_MAX } from "../../src/wire/limits.ts";
import { buildRuntime } from "../shim/guest.ts";
import { temporaryFile, zipOf } from "./functions.ts";
import { startHearth } from "./hearth.ts";

const hearth = await startHearth();
after(() => hearth[Symbol.asyncDispose]());
const client = hearth.client();

interface Answer {
  readonly error: string | undefined;
  readonly text: string;
  readonly log: string;
}

const invoke = async (name: string, payload: unknown): Promise<Answer> => {
  const answer = await client.send(
    new InvokeCommand({ FunctionName: name, Payload: Buffer.from(JSON.stringify(payload)), LogType: "Tail" }),
  );
  return {
    error: answer.FunctionError,
    text: Buffer.from(answer.Payload ?? []).toString(),
    // The request's id, wherever it stands, by another name.
    log: Buffer.from(answer.LogResult ?? "", "base64")
      .toString()
      .replaceAll(answer.$metadata.requestId ?? "-", "ID"),
  };
};

/** A failure of the platform's own: its type and text, in the answer and in the log. */
const assertPlatform = (answer: Answer, errorType: string, message: string): void => {
  assert.equal(answer.error, "Unhandled");
  const failure = JSON.parse(answer.text) as Record<string, string>;
  assert.deepEqual(Object.keys(failure), ["errorType", "errorMessage"]);
  assert.equal(failure["errorType"], errorType);
  assert.match(failure["errorMessage"] ?? "", /^RequestId: [0-9a-f-]{36} Error: /);
  assert.equal(failure["errorMessage"]?.slice(55), message);
  if (errorType === "Sandbox.Timedout") {
    assert.match(answer.log, /^\d{4}-\d\d-\d\dT[\d:.]+Z ID Task timed out after \d+\.00 seconds$/m);
    assert.match(answer.log, /\tStatus: timeout\t\n$/);
  } else {
    assert.ok(answer.log.includes(`RequestId: ID Error: ${message}\n${errorType}\nEND RequestId: ID\n`), answer.log);
    assert.ok(answer.log.endsWith(`\tStatus: error\tError Type: ${errorType}\t\n`), answer.log);
  }
};

/** An error that the runtime itself reported: the members given, among others. */
const assertReported = (answer: Answer, members: Readonly<Record<string, unknown>>): void => {
  assert.equal(answer.error, "Unhandled", answer.text.slice(0, 300));
  const failure = JSON.parse(answer.text) as Record<string, unknown>;
  for (const [name, value] of Object.entries(members)) assert.deepEqual(failure[name], value, name);
  assert.match(answer.log, /\tStatus: error\tError Type: \S+\t\n$/);
};

const assertValue = (answer: Answer, value: unknown): void => {
  assert.equal(answer.error, undefined, answer.text.slice(0, 300));
  assert.deepEqual(JSON.parse(answer.text), value);
};

const TIMED_OUT = ["Sandbox.Timedout", "Task timed out after 2.00 seconds"] as const;
const exited = (how: string): readonly [string, string] => ["Runtime.ExitError", `Runtime exited ${how}`];
const OUT_OF_MEMORY = ["Runtime.OutOfMemory", "Runtime exited with error: signal: killed"] as const;
const TOO_LARGE = {
  errorType: "Function.ResponseSizeTooLarge",
  errorMessage: `Response payload size exceeded maximum allowed payload size (${PAYLOAD_BYTES_MAX} bytes).`,
};

/** One thing that a function does, and what must come of it. */
interface Case {
  readonly event: unknown;
  readonly isTimeout: boolean;
  readonly check: (answer: Answer) => void;
}
const other = (event: unknown, check: (answer: Answer) => void, isTimeout = false): Case => ({
  event,
  isTimeout,
  check,
});
const platform = (event: unknown, [type, message]: readonly [string, string]): Case => ({
  event,
  isTimeout: type === TIMED_OUT[0],
  check: (answer) => assertPlatform(answer, type, message),
});
const reported = (event: unknown, members: Readonly<Record<string, unknown>>): Case => ({
  event,
  isTimeout: false,
  check: (answer) => assertReported(answer, members),
});
const value = (event: unknown, expected: unknown): Case => other(event, (answer) => assertValue(answer, expected));

interface Bad extends Omit<Deployment, "name" | "timeoutS"> {
  readonly name: string;
  /** An event that it answers as it should, and the answer. */
  readonly good: { readonly event: unknown; readonly text: string };
  readonly cases: readonly Case[];
}

/**
 * Runs the cases one after the other in one function; after each of them it must serve as if nothing had been. What is to
 * run into the timeout has a function of its own, so that nothing else does on a machine that is busy.
 */
const runAll = async ({ name, good, cases, ...settings }: Bad): Promise<void> => {
  const hurried = `${name}-hurried`;
  await deploy(client, { ...settings, name, timeoutS: 60 });
  await deploy(client, { ...settings, name: hurried, timeoutS: 2 });
  await Promise.all([invoke(name, good.event), invoke(hurried, good.event)]);
  for (const { event, check, isTimeout } of cases) {
    const what = JSON.stringify(event);
    const bad = isTimeout ? hurried : name;
    const answer = await invoke(bad, event);
    try {
      check(answer);
    } catch (error) {
      throw new Error(`${bad}, ${what}: ${answer.text.slice(0, 300)}\n${answer.log.slice(-600)}`, { cause: error });
    }
    let next = await invoke(bad, good.event);
    // Two seconds may be too little for a new start while other tests run.
    const triesMax = isTimeout ? 5 : 0;
    for (let n = 0; n < triesMax && next.text.includes(TIMED_OUT[0]); n += 1) next = await invoke(bad, good.event);
    assert.deepEqual([next.error, next.text], [undefined, good.text], `${bad}, after ${what}`);
    assert.doesNotMatch(next.log, /INIT_START/, `${bad}, after ${what}: it is another microVM`);
  }
};

const op = (name: string, more: Readonly<Record<string, unknown>> = {}): unknown => ({ op: name, ...more });
const sourceOf = async (name: string): Promise<string> =>
  readFile(new URL(`handlers/${name}`, import.meta.url), "utf8");

const NODE_CASES: readonly Case[] = [
  reported(op("throwError"), { errorType: "RangeError", errorMessage: "as told" }),
  reported(op("throwText"), { errorType: "string", errorMessage: "a text", trace: [] }),
  reported(op("throwNull"), { errorType: "object", errorMessage: "null", trace: [] }),
  // Its cause, as a header, would be larger than a request's head may be.
  reported(op("throwLong", { length: 1_500_000 }), { errorType: "Error", errorMessage: "m".repeat(1_500_000) }),
  reported(op("reject"), { errorType: "TypeError", errorMessage: "rejected" }),
  reported(op("rejectUnseen"), {
    errorType: "Runtime.UnhandledPromiseRejection",
    errorMessage: "Error: nobody waits for this",
  }),
  reported(op("rejectAfterAnswer"), {
    errorType: "Runtime.UnhandledPromiseRejection",
    errorMessage: "Error: after the answer",
  }),
  reported(op("throwUnseen"), { errorType: "Error", errorMessage: "out of a timer" }),
  reported(op("bigint"), {
    errorType: "Runtime.JSONStringifyError",
    errorMessage: "Unable to stringify response body",
  }),
  reported(op("circular"), { errorType: "Runtime.JSONStringifyError" }),
  value(op("nothing"), null),
  value(op("aFunction"), null),
  value(op("text", { length: PAYLOAD_BYTES_MAX }), "x".repeat(PAYLOAD_BYTES_MAX - 2)),
  reported(op("text", { length: PAYLOAD_BYTES_MAX + 1 }), TOO_LARGE),
  platform(op("exit", { code: 0 }), exited("without providing a reason")),
  platform(op("exit", { code: 3 }), exited("with error: exit status 3")),
  platform(op("signal", { name: "SIGKILL" }), exited("with error: signal: killed")),
  platform(op("signal", { name: "SIGSEGV" }), exited("with error: signal: segmentation fault")),
  // All that it may signal, and so itself.
  platform(op("shell", { script: "kill -9 -1" }), exited("with error: signal: killed")),
  platform(op("loop"), TIMED_OUT),
  platform(op("allocate"), OUT_OF_MEMORY),
  other(op("answerTwice"), (answer) => {
    assertValue(answer, "first");
    assert.match(answer.log, /INFO\tstatuses 202 403/);
  }),
  value(op("answerOther"), 400),
  platform(op("answerHalf"), ["Runtime.TruncatedResponse", "Response body ended before it was complete"]),
  value(op("connections", { count: 900 }), 63),
  value(op("garbage"), [...Array<string>(4).fill("HTTP/1.1 400 Bad Request"), ""]),
  other(op("headersForEver"), (answer) => {
    const { status, sent } = JSON.parse(answer.text) as { status: string; sent: number };
    assert.equal(status, "HTTP/1.1 431 Request Header Fields Too Large");
    assert.ok(sent < 10e6, `${sent} bytes`);
  }),
  value(op("signals"), ["EPERM", "EPERM", "EPERM"]),
  value(op("machine"), {
    console: "EACCES",
    kmsg: "EACCES",
    memory: "EACCES",
    drive: "EACCES",
    sysrq: "ENOENT",
    pidMax: "EROFS",
    oomScore: "EACCES",
    cgroup: "ENOENT",
  }),
  other(op("shell", { script: "date -s 2001-01-01; ulimit -Hn 100000; : > /dev/mem; kill -9 1" }), (answer) => {
    const { output, year } = JSON.parse(answer.text) as { output: string; year: number };
    assert.match(output, /date: cannot set date: Operation not permitted/);
    assert.match(output, /ulimit: open files: cannot modify limit: Operation not permitted/);
    assert.equal(year, new Date().getFullYear());
  }),
  other(op("descriptors"), (answer) => {
    const { error, count } = JSON.parse(answer.text) as { error: string; count: number };
    assert.equal(error, "EMFILE");
    assert.ok(count > 900 && count < 1024, `${count} files`);
  }),
];

const PYTHON_CASES: readonly Case[] = [
  reported(op("throw"), { errorType: "ValueError", errorMessage: "m" }),
  reported(op("throw", { length: 1_500_000 }), { errorType: "ValueError", errorMessage: "m".repeat(1_500_000) }),
  platform(op("throw_odd"), exited("with error: exit status 1")),
  platform(op("throw_base"), exited("with error: signal: interrupt")),
  value(op("thread_dies"), "others go on"),
  reported(op("unserialisable"), {
    errorType: "Runtime.MarshalError",
    errorMessage: "Unable to marshal response: Object of type set is not JSON serializable",
  }),
  reported(op("circular"), {
    errorType: "Runtime.MarshalError",
    errorMessage: "Unable to marshal response: Circular reference detected",
  }),
  value(op("nothing"), null),
  reported(op("text", { length: PAYLOAD_BYTES_MAX + 1 }), TOO_LARGE),
  platform(op("leave", { code: 0 }), exited("without providing a reason")),
  platform(op("leave_at_once", { code: 3 }), exited("with error: exit status 3")),
  platform(op("signalled", { name: "SIGKILL" }), exited("with error: signal: killed")),
  platform(op("segfault"), exited("with error: signal: segmentation fault")),
  platform(op("loop"), TIMED_OUT),
  platform(op("allocate"), OUT_OF_MEMORY),
  reported(op("recurse"), { errorType: "RecursionError" }),
  value(op("children"), "three sleep on"),
];

const NATIVE_CASES: readonly Case[] = [
  platform("exit 0", exited("without providing a reason")),
  platform("exit 3", exited("with error: exit status 3")),
  platform("signal 9", exited("with error: signal: killed")),
  platform("signal 11", exited("with error: signal: segmentation fault")),
  platform("abort", exited("with error: signal: aborted")),
  platform("sleep", TIMED_OUT),
  platform("fork", TIMED_OUT),
  platform(`memory ${String(150 << 20)}`, OUT_OF_MEMORY),
  // A child's memory counts, and where a child is killed for it the function is.
  platform(`memory ${String(40 << 20)} 8`, OUT_OF_MEMORY),
  reported("error What ever", { errorMessage: "bad" }),
  platform("cut", ["Runtime.TruncatedResponse", "Response body ended before it was complete"]),
  other("connections 1000", (answer) => assert.equal(answer.text, "63")),
  other("answered-exit", (answer) => assert.deepEqual([answer.error, answer.text], [undefined, "bye"])),
  other("answered-sleep", (answer) => assert.deepEqual([answer.error, answer.text], [undefined, "bye"]), true),
  other(
    "flood 1",
    (answer) => {
      assertPlatform(answer, ...TIMED_OUT);
      assert.ok(answer.log.length <= 4096);
    },
    true,
  ),
];

await describe("whatever a function does, its caller is told, and it serves on", { concurrency: true }, () => {
  test("in Node", async () => {
    const zip = await zipOf({ "index.mjs": await sourceOf("misbehaves.mjs") });
    const settings = { zip, runtime: "nodejs24.x", handler: "index.handler", memoryMb: 256 };
    await runAll({ ...settings, name: "node", good: { event: op("ok"), text: '"fine"' }, cases: NODE_CASES });
  });

  test("in Python", async () => {
    const zip = await zipOf({ "index.py": await sourceOf("misbehaves.py") });
    const settings = { zip, runtime: "python3.11", handler: "index.handler", memoryMb: 256 };
    await runAll({ ...settings, name: "python", good: { event: op("ok"), text: '"fine"' }, cases: PYTHON_CASES });
  });

  test("in a program of its own", async () => {
    const zip = await zipOf({ bootstrap: await temporaryFile(buildRuntime) });
    const settings = { zip, runtime: "provided.al2023", handler: "x" };
    await runAll({ ...settings, name: "native", good: { event: "echo on", text: "on" }, cases: NATIVE_CASES });
  });
});
