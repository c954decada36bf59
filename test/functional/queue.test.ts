import assert from "node:assert/strict";
import { test } from "node:test";
import { InvokeCommand, PutFunctionConcurrencyCommand } from "@aws-sdk/client-lambda";
import { deploy } from "../../src/cli/deploy.ts";
import { getControl } from "../../src/daemon/control.ts";
import type { QueueReading } from "../../src/daemon/hearth-options.ts";
import { zipOf } from "./functions.ts";
import { eventually, startHearth } from "./hearth.ts";

const EVENTS = 15;
const RUN_MS = 100;
/** Room for a busy machine; in waves of a back-off the events would take 2 ** (EVENTS - 1) seconds. */
const TIMES_ALONE_MAX = 5;
const SLACK_MS = 10_000;

const SLEEPS = `export const handler = async ({ ms }) => { await new Promise((resolve) => setTimeout(resolve, ms)); };`;

test("events at reserved concurrency 1 take hardly longer than as many calls one after the other", async () => {
  await using hearth = await startHearth();
  const client = hearth.client();
  const name = "one-at-a-time";
  await deploy(client, {
    name,
    zip: await zipOf({ "index.mjs": SLEEPS }),
    runtime: "nodejs24.x",
    handler: "index.handler",
    // A call that a busy machine held up for longer than the usual 3 s would be tried again after a minute.
    timeoutS: 60,
  });
  await client.send(new PutFunctionConcurrencyCommand({ FunctionName: name, ReservedConcurrentExecutions: 1 }));
  const call = (InvocationType: "Event" | "RequestResponse"): Promise<unknown> =>
    client.send(new InvokeCommand({ FunctionName: name, InvocationType, Payload: JSON.stringify({ ms: RUN_MS }) }));
  await call("RequestResponse");
  const startedMs = performance.now();
  for (let n = 0; n < EVENTS; n += 1) await call("RequestResponse");
  const aloneMs = performance.now() - startedMs;
  const tookMsMax = TIMES_ALONE_MAX * aloneMs + SLACK_MS;
  await Promise.all(Array.from({ length: EVENTS }, () => call("Event")));
  const queue = JSON.parse(await getControl(hearth.dataDir, "/queue")) as QueueReading;
  assert.ok(
    queue.busiest.every((one) => one.functionName === name),
    JSON.stringify(queue),
  );
  const haveRun = async (): Promise<true | null> =>
    /^hearth_events_waiting 0$/m.test(await getControl(hearth.dataDir, "/metrics")) ? true : null;
  await eventually(`all events have run, ${aloneMs} ms of calls`, haveRun, tookMsMax);
  const slots = (await hearth.slots()).filter((slot) => slot.functionArn.endsWith(name));
  assert.equal(slots.length, 1);
});
