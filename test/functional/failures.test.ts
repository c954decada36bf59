import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { after, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { InvokeCommand } from "@aws-sdk/client-lambda";
import { deploy } from "../../src/cli/deploy.ts";
import { LOG_FILE_BYTES_MAX, LOG_FILES_MAX } from "../../src/wire/limits.ts";
import { buildRuntime } from "../shim/guest.ts";
import { deployProbe, invoke, temporaryFile, zipOf } from "./functions.ts";
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

test("out of memory: killed at its limit, others go on", async () => {
  await deployProbe(client, "greedy", { memoryMb: 128 });
  const answer = await invoke(client, "greedy", { op: "memory" });
  const failure = failureOf(answer);
  assert.equal(failure.errorType, "Runtime.OutOfMemory");
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

test("a flood of log lines harms nobody: memory and disk stay bounded, and what is left out is said", async () => {
  const bootstrap = await temporaryFile(buildRuntime);
  const zip = await zipOf({ bootstrap });
  await deploy(client, { name: "flood", zip, runtime: "provided.al2023", handler: "x", timeoutS: 3 });
  const flooding = client.send(
    new InvokeCommand({ FunctionName: "flood", Payload: Buffer.from('"flood 1"'), LogType: "Tail" }),
  );
  let most = 0;
  for (let n = 0; n < 10; n += 1) {
    await othersAreServed();
    const status = await readFile(`/proc/${hearth.pid}/status`, "utf8");
    most = Math.max(most, Number(/^RssAnon:\s+(\d+) kB/m.exec(status)?.[1]) / 1024);
    await sleep(250);
  }
  const { LogResult, $metadata } = await flooding;
  assert.match(
    Buffer.from(LogResult ?? "", "base64").toString(),
    /Task timed out after 3\.00 seconds[^]*REPORT RequestId/,
  );
  assert.ok(most < 500, `${most} MB of Hearth's own memory`);
  const lines = await eventually("the report is in the log", async () => {
    const found = await hearth.logOf("flood");
    return found.some((line) => line.startsWith(`REPORT RequestId: ${$metadata.requestId}`)) ? found : null;
  });
  assert.ok(lines.some((line) => /^LOGS_DROPPED Records: [1-9]\d*\tBytes: [1-9]\d*\t/.test(line)));
  const bytes = lines.reduce((sum, line) => sum + line.length, 0);
  assert.ok(bytes < LOG_FILES_MAX * LOG_FILE_BYTES_MAX, `${bytes} bytes`);
});

const cpuMsOf = async (name: string): Promise<number> => {
  const slots = await hearth.measuredSlots();
  return (slots.find(({ functionArn }) => functionArn.endsWith(`:${name}`))?.cpuTimeUs ?? Number.NaN) / 1000;
};

test("what a function leaves running gets no CPU between invocations", async () => {
  const code = `
    import { spawn } from "node:child_process";
    export const handler = async () => spawn("/bin/bash", ["-c", "while :; do :; done"], { detached: true, stdio: "ignore" }).pid > 0;`;
  const zip = await zipOf({ "index.mjs": code });
  await deploy(client, { name: "leaves", zip, runtime: "nodejs24.x", handler: "index.handler" });
  assert.equal((await invoke(client, "leaves")).value, true);
  // It is frozen a moment after its invocation.
  await sleep(400);
  const before = await cpuMsOf("leaves");
  assert.ok(before > 0);
  const busyMs = (await cpuMsOf("leaves")) - before;
  assert.ok(busyMs <= 20, `${busyMs} ms of CPU in a second`);
  assert.equal((await invoke(client, "leaves")).value, true);
});

test("a slot that died leaves the list", async () => {
  failureOf(await invoke(client, "probe", { op: "exit", code: 1 }));
  await eventually("no dead slot is listed", async () => {
    const dead = (await hearth.slots()).filter((slot) => slot.state === "Dead");
    return dead.length === 0 ? true : null;
  });
});
