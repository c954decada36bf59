import assert from "node:assert/strict";
import { after, test } from "node:test";
import { InvokeCommand } from "@aws-sdk/client-lambda";
import { PAYLOAD_BYTES_MAX } from "../../src/wire/limits.ts";
import { deployProbe, invoke } from "./functions.ts";
import { startHearth } from "./hearth.ts";

const hearth = await startHearth();
after(() => hearth[Symbol.asyncDispose]());
const client = hearth.client();
const { functionArn } = await deployProbe(client, "probe", { environment: { STAGE: "test", EMPTY: "" } });

const usedMb = (log: string): number => Number(/Max Memory Used: (\d+) MB/.exec(log)?.[1]);

test("the environment variables are Lambda's", async () => {
  const env = (await invoke(client, "probe", { op: "env" })).value as Record<string, string>;
  const expected = {
    AWS_LAMBDA_FUNCTION_NAME: "probe",
    AWS_LAMBDA_FUNCTION_VERSION: "$LATEST",
    AWS_LAMBDA_FUNCTION_MEMORY_SIZE: "256",
    AWS_LAMBDA_LOG_GROUP_NAME: "/aws/lambda/probe",
    AWS_LAMBDA_INITIALIZATION_TYPE: "on-demand",
    AWS_EXECUTION_ENV: "AWS_Lambda_nodejs24.x",
    AWS_REGION: "us-east-1",
    AWS_DEFAULT_REGION: "us-east-1",
    LAMBDA_TASK_ROOT: "/var/task",
    LAMBDA_RUNTIME_DIR: "/var/runtime",
    TZ: ":UTC",
    LANG: "en_US.UTF-8",
    STAGE: "test",
    EMPTY: "",
  };
  for (const [name, value] of Object.entries(expected)) assert.equal(env[name], value, name);
  assert.match(env["AWS_LAMBDA_LOG_STREAM_NAME"] ?? "", /^\d{4}\/\d\d\/\d\d\/\[\$LATEST\][0-9a-f]{32}$/);
  assert.match(env["AWS_LAMBDA_RUNTIME_API"] ?? "", /^[\d.]+:\d+$/);
});

test("the world of the function", async () => {
  const world = (await invoke(client, "probe", { op: "world" })).value as Record<string, unknown>;
  assert.notEqual(world["uid"], 0);
  assert.equal(world["cwd"], "/var/task");
  assert.equal(world["tmpWrite"], null);
  assert.match(String(world["taskWrite"]), /^(?:EROFS|EACCES)$/);
  assert.match(String(world["rootWrite"]), /^(?:EROFS|EACCES)$/);
  assert.equal(world["hostFiles"], "ENOENT");
  assert.deepEqual(world["code"], ["index.mjs"]);
  const tmpMb = Number(world["tmpBytes"]) / 2 ** 20;
  // A little more than a file of 512 MB needs: the blocks that point to its blocks.
  assert.ok(tmpMb >= 512 && tmpMb < 513, `/tmp has ${tmpMb} MB`);
});

test("the smallest function fills its /tmp: it is no memory, and ends where it should", async () => {
  await deployProbe(client, "fills", { memoryMb: 128, timeoutS: 60 });
  const { value, log } = await invoke(client, "fills", { op: "fill", mb: 600 });
  const { written, code } = value as { written: number; code: string };
  assert.equal(code, "ENOSPC");
  assert.ok(written >= 512 && written < 513, `${written} MB`);
  assert.ok(usedMb(log) <= 128, `${usedMb(log)} MB`);
});

test("the context object", async () => {
  const answer = await client.send(
    new InvokeCommand({
      FunctionName: "probe",
      Payload: Buffer.from('{"op":"context"}'),
      ClientContext: Buffer.from('{"custom":{"k":"v"}}').toString("base64"),
    }),
  );
  const context = JSON.parse(Buffer.from(answer.Payload ?? []).toString()) as Record<string, unknown>;
  assert.equal(context["functionName"], "probe");
  assert.equal(context["invokedFunctionArn"], functionArn);
  assert.equal(context["awsRequestId"], answer.$metadata.requestId);
  assert.deepEqual((context["clientContext"] as Record<string, unknown>)["custom"], { k: "v" });
  const remaining = Number(context["remaining"]);
  // The two clocks may be a millisecond or two apart.
  assert.ok(remaining > 0 && remaining <= 20_005, `${remaining} ms remaining`);
});

test("the log's tail holds the platform's lines and the function's", async () => {
  const { log, requestId } = await invoke(client, "probe", { op: "log", lines: ["one", "two words"] });
  const lines = log.split("\n");
  const at = (text: string): number => lines.findIndex((line) => line.includes(text));
  assert.ok(at(`START RequestId: ${requestId} Version: $LATEST`) >= 0, log);
  assert.ok(at("\tINFO\ttwo words") > at("\tINFO\tone"), log);
  assert.ok(at(`END RequestId: ${requestId}`) > at("two words"), log);
  assert.match(
    log,
    /REPORT RequestId: \S+\tDuration: \d+\.\d\d ms\tBilled Duration: \d+ ms\tMemory Size: 256 MB\tMax Memory Used: \d+ MB\t/,
  );
});

test("payloads up to the limit, both ways", async () => {
  const event = { op: "length", text: "" };
  const room = PAYLOAD_BYTES_MAX - JSON.stringify(event).length;
  const answer = await invoke(client, "probe", { ...event, text: "x".repeat(room) });
  assert.deepEqual(answer.value, { length: room });
  const big = await invoke(client, "probe", { op: "big", length: PAYLOAD_BYTES_MAX - 2 });
  assert.equal((big.value as string).length, PAYLOAD_BYTES_MAX - 2);
  await assert.rejects(invoke(client, "probe", { ...event, text: "x".repeat(room + 1) }), (error: Error) => {
    assert.equal((error as Error & { $metadata: { httpStatusCode: number } }).$metadata.httpStatusCode, 413);
    return true;
  });
});

test("memory shows as the guest sees it", async () => {
  const used = usedMb((await invoke(client, "probe")).log);
  assert.ok(used > 5 && used < 256, `${used} MB`);
});
