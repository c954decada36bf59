import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { after, test } from "node:test";
import { InvokeWithResponseStreamCommand } from "@aws-sdk/client-lambda";
import { readCode } from "../../src/cli/code.ts";
import { deploy } from "../../src/cli/deploy.ts";
import { compiledBootstrap, example, invoke, zipOf } from "./functions.ts";
import { startHearth } from "./hearth.ts";

const hearth = await startHearth();
after(() => hearth[Symbol.asyncDispose]());
const client = hearth.client();

interface Hello {
  readonly message: string;
  readonly calls: number;
}

for (const [runtime, version] of [
  ["nodejs22.x", /from Node.js v22\./],
  ["nodejs24.x", /from Node.js v24\./],
] as const) {
  test(`${runtime}: cold, then warm in the same microVM`, async () => {
    const name = runtime.replace(".", "-");
    const { zip } = await readCode(example("node-hello"));
    await deploy(client, { name, zip, runtime, handler: "index.handler" });
    const cold = await invoke(client, name, { name: "Ada" });
    assert.equal(cold.error, undefined, JSON.stringify(cold.value));
    assert.match((cold.value as Hello).message, version);
    assert.match((cold.value as Hello).message, /^Hello, Ada/);
    assert.equal((cold.value as Hello).calls, 1);
    assert.match(cold.log, /\tInit Duration: \d+\.\d\d ms\t/);
    const warm = await invoke(client, name, {});
    assert.equal((warm.value as Hello).calls, 2);
    assert.doesNotMatch(warm.log, /Init Duration/);
  });
}

test("python3.11", async () => {
  const { zip, guess } = await readCode(example("python-hello"));
  assert.deepEqual(guess, { runtime: "python3.11", handler: "lambda_function.lambda_handler" });
  await deploy(client, { name: "python", zip, runtime: "python3.11", handler: "lambda_function.lambda_handler" });
  const first = await invoke(client, "python", { name: "Ada" });
  assert.match((first.value as Hello).message, /^Hello, Ada, from Python 3\.11/);
  const second = await invoke(client, "python", {});
  assert.equal((second.value as Hello).calls, 2);
});

test("python: an exception has its type and trace", async () => {
  const code = "def handler(event, context):\n    raise ValueError('no good')\n";
  const zip = await zipOf({ "app.py": code });
  await deploy(client, { name: "python-raises", zip, runtime: "python3.11", handler: "app.handler" });
  const answer = await invoke(client, "python-raises");
  assert.equal(answer.error, "Unhandled");
  const value = answer.value as { errorType: string; errorMessage: string; stackTrace: string[] };
  assert.equal(value.errorType, "ValueError");
  assert.equal(value.errorMessage, "no good");
  assert.ok(value.stackTrace.length > 0);
});

test("provided.al2023: a bootstrap in bash", async () => {
  const zip = await zipOf({ bootstrap: await readFile(join(example("bootstrap-bash"), "bootstrap")) });
  await deploy(client, { name: "bash", zip, runtime: "provided.al2023", handler: "bootstrap" });
  const answer = await invoke(client, "bash", { letters: "äöü", list: [1, 2] });
  assert.equal(answer.error, undefined, JSON.stringify(answer.value));
  assert.deepEqual((answer.value as { event: unknown }).event, { letters: "äöü", list: [1, 2] });
  assert.equal(((await invoke(client, "bash")).value as Hello).calls, 2);
});

test("provided.al2023: a native bootstrap", async () => {
  const zip = await zipOf({ bootstrap: await compiledBootstrap() });
  await deploy(client, { name: "native", zip, runtime: "provided.al2023", handler: "bootstrap" });
  const answer = await invoke(client, "native", { n: 1 });
  assert.deepEqual(answer.value, { message: "Hello from C", calls: 1, event: { n: 1 } });
});

test("an answer streams", async () => {
  const { zip } = await readCode(example("node-stream"));
  await deploy(client, { name: "stream", zip, runtime: "nodejs24.x", handler: "index.handler", timeoutS: 20 });
  const answer = await client.send(
    new InvokeWithResponseStreamCommand({ FunctionName: "stream", Payload: Buffer.from('{"lines":4,"pauseMs":150}') }),
  );
  const chunks: string[] = [];
  let complete = false;
  for await (const event of answer.EventStream ?? []) {
    if (event.PayloadChunk?.Payload !== undefined) chunks.push(Buffer.from(event.PayloadChunk.Payload).toString());
    if (event.InvokeComplete !== undefined) {
      assert.equal(event.InvokeComplete.ErrorCode ?? "", "");
      complete = true;
    }
  }
  assert.ok(complete);
  assert.equal(chunks.join(""), "line 1\nline 2\nline 3\nline 4\n");
  assert.ok(chunks.length > 1, "all of it came at once");
});

test("code without its handler fails in init and says why", async () => {
  const zip = await zipOf({ "index.mjs": "export const other = 1;" });
  await deploy(client, { name: "no-handler", zip, runtime: "nodejs24.x", handler: "index.handler" });
  const answer = await invoke(client, "no-handler");
  assert.equal(answer.error, "Unhandled");
  assert.match((answer.value as { errorType: string }).errorType, /HandlerNotFound/);
});

test("a bootstrap that cannot be started is a function error", async () => {
  const zip = await zipOf({ "readme.txt": "no bootstrap here" });
  await deploy(client, { name: "no-bootstrap", zip, runtime: "provided.al2023", handler: "x" });
  const answer = await invoke(client, "no-bootstrap");
  assert.equal(answer.error, "Unhandled");
  assert.match((answer.value as { errorType: string }).errorType, /^Runtime\./);
});
