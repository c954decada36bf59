import assert from "node:assert/strict";
import { test } from "node:test";
import {
  DeleteFunctionCommand,
  InvokeCommand,
  PublishVersionCommand,
  PutFunctionConcurrencyCommand,
  UpdateFunctionCodeCommand,
  waitUntilFunctionUpdatedV2,
} from "@aws-sdk/client-lambda";
import { deploy, settled } from "../../src/cli/deploy.ts";
import { deployProbe, invoke, zipOf } from "./functions.ts";
import { eventually, startHearth } from "./hearth.ts";

interface Instance {
  readonly instance: string;
  readonly calls: number;
}

const says = (text: string): Promise<Uint8Array> =>
  zipOf({ "index.mjs": `export const handler = async () => ${JSON.stringify(text)};` });

test("updates, versions and their code", async () => {
  await using hearth = await startHearth();
  const client = hearth.client();
  const name = "versioned";
  await deploy(client, { name, zip: await says("one"), runtime: "nodejs24.x", handler: "index.handler" });
  assert.equal((await invoke(client, name)).value, "one");
  await client.send(new PublishVersionCommand({ FunctionName: name }));
  await client.send(new UpdateFunctionCodeCommand({ FunctionName: name, ZipFile: await says("two") }));
  await waitUntilFunctionUpdatedV2({ client, maxWaitTime: 60 }, { FunctionName: name });
  assert.equal((await invoke(client, name)).value, "two");
  const old = await invoke(client, name, {}, "1");
  assert.equal(old.value, "one");
  assert.equal(old.version, "1");
  await client.send(new DeleteFunctionCommand({ FunctionName: name }));
  await assert.rejects(invoke(client, name), { name: "ResourceNotFoundException" });
  await eventually("the slots of a removed function end", async () =>
    (await hearth.slots()).length === 0 ? true : null,
  );
});

test("a warm slot is reused, one after the other; reuse: never makes a fresh one each time", async () => {
  await using hearth = await startHearth();
  const client = hearth.client();
  await deployProbe(client, "warm");
  const warm: Instance[] = [];
  for (let n = 0; n < 5; n += 1) warm.push((await invoke(client, "warm")).value as Instance);
  assert.equal(new Set(warm.map((each) => each.instance)).size, 1);
  assert.deepEqual(
    warm.map((each) => each.calls),
    [1, 2, 3, 4, 5],
  );
  await deployProbe(client, "once", { reuse: "never" });
  const once: Instance[] = [];
  for (let n = 0; n < 4; n += 1) once.push((await invoke(client, "once")).value as Instance);
  assert.equal(new Set(once.map((each) => each.instance)).size, 4);
  assert.ok(once.every((each) => each.calls === 1));
});

test("many cold starts at once, each in a microVM of its own", async () => {
  await using hearth = await startHearth();
  const client = hearth.client();
  await deployProbe(client, "many", { timeoutS: 60 });
  const event = { op: "sleep", ms: 2_000 };
  const answers = await Promise.all(Array.from({ length: 20 }, () => invoke(client, "many", event)));
  for (const answer of answers) assert.equal(answer.error, undefined, JSON.stringify(answer.value));
  const instances = new Set(answers.map((answer) => (answer.value as Instance).instance));
  // One that was ready early may have served twice while the last still booted.
  assert.ok(instances.size >= 15, `${instances.size} microVMs`);
  assert.ok((await hearth.slots()).length <= 20);
});

test("reserved concurrency throttles with 429", async () => {
  await using hearth = await startHearth();
  const client = hearth.client();
  await deployProbe(client, "narrow");
  await client.send(new PutFunctionConcurrencyCommand({ FunctionName: "narrow", ReservedConcurrentExecutions: 1 }));
  const first = invoke(client, "narrow", { op: "sleep", ms: 3_000 });
  await eventually("the slot is busy", async () =>
    (await hearth.slots()).some((slot) => slot.state === "Busy") ? true : null,
  );
  await assert.rejects(invoke(client, "narrow"), {
    name: "TooManyRequestsException",
    Reason: "ReservedFunctionConcurrentInvocationLimitExceeded",
  });
  assert.equal((await first).error, undefined);
  assert.equal((await invoke(client, "narrow")).error, undefined);
});

test("everything is there after a restart, and after kill -9", async () => {
  await using hearth = await startHearth();
  let client = hearth.client();
  await deployProbe(client, "kept");
  await deploy(client, {
    name: "kept-too",
    zip: await says("still here"),
    runtime: "nodejs24.x",
    handler: "index.handler",
  });
  assert.equal((await invoke(client, "kept")).error, undefined);
  assert.equal(await hearth.stop("SIGTERM"), 0);
  await hearth.start();
  client = hearth.client();
  assert.equal((await invoke(client, "kept")).error, undefined);
  assert.equal((await invoke(client, "kept-too")).value, "still here");
  await hearth.stop("SIGKILL");
  await hearth.start();
  client = hearth.client();
  assert.equal((await invoke(client, "kept-too")).value, "still here");
  assert.equal((await settled(client, "kept")).State, "Active");
});

test("an event that was accepted runs, even when Hearth is killed right after", async () => {
  await using hearth = await startHearth();
  const client = hearth.client();
  await deployProbe(client, "events");
  const send = async (mark: string): Promise<void> => {
    const payload = Buffer.from(JSON.stringify({ op: "sleepAndLog", ms: 1_000, lines: [mark] }));
    const answer = await client.send(
      new InvokeCommand({ FunctionName: "events", InvocationType: "Event", Payload: payload }),
    );
    assert.equal(answer.StatusCode, 202);
  };
  const logged = (mark: string): Promise<true> =>
    eventually(
      `the log has ${mark}`,
      async () => {
        const lines = await hearth.logOf("events");
        return lines.some((line) => line.includes(mark)) ? true : null;
      },
      120_000,
    );
  await send("mark-first");
  await logged("mark-first");
  const marks = ["mark-a", "mark-b", "mark-c", "mark-d"];
  // They take a second each, so that none is through when Hearth is killed.
  await Promise.all(marks.map(send));
  await hearth.stop("SIGKILL");
  await hearth.start();
  for (const mark of marks) await logged(mark);
});
