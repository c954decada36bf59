import assert from "node:assert/strict";
import { after, test } from "node:test";
import { deploy } from "../../src/cli/deploy.ts";
import { PAYLOAD_BYTES_MAX } from "../../src/wire/limits.ts";
import { deployProbe, invoke, zipOf } from "./functions.ts";
import { eventually, startHearth } from "./hearth.ts";

const hearth = await startHearth();
after(() => hearth[Symbol.asyncDispose]());
const client = hearth.client();
await deployProbe(client, "probe");
await deployProbe(client, "other");

interface Failure {
  readonly errorType: string;
  readonly errorMessage: string;
}
const failureOf = (answer: { readonly error: string | undefined; readonly value: unknown }): Failure => {
  assert.equal(answer.error, "Unhandled", JSON.stringify(answer.value).slice(0, 500));
  return answer.value as Failure;
};

/** Whatever one function did, another one is served. */
const othersAreServed = async (): Promise<void> => {
  const answer = await invoke(client, "other", { op: "echo", fine: true });
  assert.deepEqual(answer.value, { op: "echo", fine: true });
};

test("an error thrown: its type, message and trace; the microVM serves on", async () => {
  const before = (await invoke(client, "probe")).value as { instance: string };
  const answer = await invoke(client, "probe", { op: "throw", message: "as told" });
  const failure = failureOf(answer);
  assert.equal(failure.errorType, "CustomError");
  assert.equal(failure.errorMessage, "as told");
  assert.equal(answer.status, 200);
  const next = (await invoke(client, "probe")).value as { instance: string };
  assert.equal(next.instance, before.instance);
});

test("an exit: Runtime.ExitError; the next invocation works", async () => {
  const failure = failureOf(await invoke(client, "probe", { op: "exit", code: 7 }));
  assert.equal(failure.errorType, "Runtime.ExitError");
  assert.match(failure.errorMessage, /^RequestId: \S+ Error: Runtime exited with error: exit status 7$/);
  assert.equal((await invoke(client, "probe")).error, undefined);
});

test("a timeout: the payload and the log say so, to the hundredth", async () => {
  await deployProbe(client, "slow", { timeoutS: 1 });
  const answer = await invoke(client, "slow", { op: "sleep", ms: 60_000 });
  const failure = failureOf(answer);
  assert.equal(failure.errorType, "Sandbox.Timedout");
  assert.match(failure.errorMessage, /^RequestId: \S+ Error: Task timed out after 1\.00 seconds$/);
  assert.match(answer.log, /Task timed out after 1\.00 seconds/);
  assert.match(answer.log, /\tStatus: timeout/);
  assert.equal((await invoke(client, "slow")).error, undefined);
});

test("an endless loop is a timeout too", async () => {
  await deployProbe(client, "loops", { timeoutS: 1 });
  assert.equal(failureOf(await invoke(client, "loops", { op: "hang" })).errorType, "Sandbox.Timedout");
  assert.equal((await invoke(client, "loops")).error, undefined);
});

test("out of memory: killed at its limit, others go on", async () => {
  await deployProbe(client, "greedy", { memoryMb: 128 });
  const answer = await invoke(client, "greedy", { op: "memory" });
  const failure = failureOf(answer);
  assert.match(failure.errorType, /^Runtime\.(?:OutOfMemory|ExitError)$/);
  assert.match(failure.errorMessage, /signal: killed/);
  assert.match(answer.log, /Max Memory Used: 12[0-9] MB/);
  await othersAreServed();
  assert.equal((await invoke(client, "greedy")).error, undefined);
});

test("processes are limited: a fork bomb ends with its invocation", async () => {
  const bomb = `#!/bin/bash
bomb() { bomb | bomb & bomb; }
curl -s "http://$AWS_LAMBDA_RUNTIME_API/2018-06-01/runtime/invocation/next" > /dev/null
bomb
sleep 60
`;
  const zip = await zipOf({ bootstrap: bomb });
  await deploy(client, { name: "bomb", zip, runtime: "provided.al2023", handler: "bootstrap", timeoutS: 3 });
  failureOf(await invoke(client, "bomb"));
  await othersAreServed();
});

test("threads are counted against the limit of processes", async () => {
  const code = `import threading
def handler(event, context):
    threading.stack_size(65536)
    done = threading.Event()
    started = 0
    try:
        while started < 3000:
            threading.Thread(target=done.wait, daemon=True).start()
            started += 1
    except RuntimeError:
        pass
    done.set()
    return started
`;
  const zip = await zipOf({ "app.py": code });
  await deploy(client, {
    name: "threads",
    zip,
    runtime: "python3.11",
    handler: "app.handler",
    memoryMb: 512,
    timeoutS: 60,
  });
  const answer = await invoke(client, "threads");
  assert.equal(answer.error, undefined, JSON.stringify(answer.value));
  const started = answer.value as number;
  assert.ok(started > 100 && started <= 1024, `${started} threads`);
});

test("an answer over the limit is refused", async () => {
  const failure = failureOf(await invoke(client, "probe", { op: "big", length: PAYLOAD_BYTES_MAX }));
  assert.equal(failure.errorType, "Function.ResponseSizeTooLarge");
  assert.match(failure.errorMessage, new RegExp(String(PAYLOAD_BYTES_MAX)));
  assert.equal((await invoke(client, "probe")).error, undefined);
});

test("a flood of log lines harms nobody", async () => {
  const answer = await invoke(client, "probe", { op: "flood", lines: 30_000 });
  assert.equal(answer.value, 30_000);
  assert.ok(answer.log.length <= 4096);
  assert.match(answer.log, /REPORT RequestId/);
  await othersAreServed();
});

test("a slot that died leaves the list", async () => {
  failureOf(await invoke(client, "probe", { op: "exit", code: 1 }));
  await eventually("no dead slot is listed", async () => {
    const dead = (await hearth.slots()).filter((slot) => slot.state === "Dead");
    return dead.length === 0 ? true : null;
  });
});
