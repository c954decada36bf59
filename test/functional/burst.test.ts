import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";
import { test } from "node:test";
import { InvokeCommand, LambdaServiceException } from "@aws-sdk/client-lambda";
import type { LambdaClient } from "@aws-sdk/client-lambda";
import { spin } from "../../bench/spinners.ts";
import { deploy } from "../../src/cli/deploy.ts";
import { getControl } from "../../src/daemon/control.ts";
import { zipOf } from "./functions.ts";
import { eventually, startHearth } from "./hearth.ts";

const CALLS = 30;
const UNAVAILABLE = 503;
/** Imports nothing and computes for a fraction of a second, as many inits do. */
const HEAVY = `
let sum = 0;
for (let n = 0; n < 100_000_000; n += 1) sum = (sum + n) | 0;
export const handler = async () => ({ sum });
`;
const LIGHT = `export const handler = async () => ({ ok: true });`;

interface Outcome {
  /** Of the function, or of the service; null when all went well. */
  readonly failure: string | null;
  readonly refusals: number;
}

/** Calls until it is not told to come again later: that is what a client does with a 503 and its Retry-After. */
const call = async (client: LambdaClient, name: string): Promise<Outcome> => {
  for (let refusals = 0; ; refusals += 1) {
    try {
      const answer = await client.send(new InvokeCommand({ FunctionName: name, Payload: "{}" }));
      if (answer.FunctionError === undefined) return { failure: null, refusals };
      return { failure: Buffer.from(answer.Payload ?? []).toString(), refusals };
    } catch (error) {
      if (!(error instanceof LambdaServiceException)) throw error;
      const { name: type, message, $metadata, $response } = error;
      if ($metadata.httpStatusCode !== UNAVAILABLE) return { failure: `${type}: ${message}`, refusals };
      await sleep(Number($response?.headers["retry-after"]) * 1000);
    }
  }
};

test("a burst of cold starts on a busy host: every one succeeds, and another function does not wait for all", async () => {
  await using hearth = await startHearth("--pool", "0");
  const client = hearth.client();
  const functions = { heavy: HEAVY, light: LIGHT };
  for (const [name, code] of Object.entries(functions)) {
    const zip = await zipOf({ "index.mjs": code });
    // Every call needs a start of its own; the timeout is Lambda's default.
    await deploy(client, { name, zip, runtime: "nodejs24.x", handler: "index.handler", memoryMb: 256, reuse: "never" });
  }
  await using _spinners = await spin();
  let ended = 0;
  const burst = Array.from({ length: CALLS }, () => call(client, "heavy").finally(() => (ended += 1)));
  // It comes when the burst has been taken in: some starts are under way, the others wait.
  await eventually("most of the burst waits for its turn", async () => {
    const text = await getControl(hearth.dataDir, "/metrics");
    const waiting = Number(/hearth_slot_starts\{.*state="waiting"\} (\d+)/.exec(text)?.[1]);
    return waiting >= CALLS / 2 ? waiting : null;
  });
  const other = await call(client, "light");
  const endedBefore = ended;
  const outcomes = await Promise.all(burst);
  assert.deepEqual(
    [...outcomes, other].map(({ failure }) => failure).filter((failure) => failure !== null),
    [],
    "none is told as a failure, least of all as the function's",
  );
  assert.equal(other.refusals, 0, "its turn comes in time however many others wait");
  assert.ok(endedBefore < CALLS, "it was answered while the burst was under way");
});
