import assert from "node:assert/strict";
import { test } from "node:test";
import {
  CreateFunctionCommand,
  DeleteFunctionCommand,
  InvokeCommand,
  LambdaServiceException,
  PublishVersionCommand,
  PutFunctionConcurrencyCommand,
  TagResourceCommand,
  waitUntilFunctionActiveV2,
} from "@aws-sdk/client-lambda";
import { arnOf, functionInput, startHarness } from "./harness.ts";

const ROUNDS = 20;
const EACH = 4;

test("what meets a deletion half-way is not found, or done before it: never an internal error", async () => {
  await using at = await startHarness();
  const input = await functionInput("f");
  const Resource = arnOf("f");
  const seen = new Set<string>();
  const tell = async (answer: Promise<unknown>): Promise<void> => {
    try {
      await answer;
      seen.add("done");
    } catch (error) {
      assert.ok(error instanceof LambdaServiceException, String(error));
      const status = error.$metadata.httpStatusCode ?? 0;
      assert.ok(status >= 400 && status < 500, `${status} ${error.name}: ${error.message}`);
      seen.add(error.name);
    }
  };
  for (let round = 0; round < ROUNDS; round += 1) {
    await at.client.send(new CreateFunctionCommand(input));
    await waitUntilFunctionActiveV2({ client: at.client, maxWaitTime: 10, minDelay: 1, maxDelay: 1 }, input);
    const calls = Array.from({ length: EACH }, (_, n) => [
      () => at.client.send(new PublishVersionCommand({ FunctionName: "f" })),
      () => at.client.send(new TagResourceCommand({ Resource, Tags: { n: String(n) } })),
      () => at.client.send(new InvokeCommand({ FunctionName: "f", InvocationType: "Event", Payload: "{}" })),
      () => at.client.send(new PutFunctionConcurrencyCommand({ FunctionName: "f", ReservedConcurrentExecutions: n })),
    ]).flat();
    calls.splice(round % calls.length, 0, () => at.client.send(new DeleteFunctionCommand({ FunctionName: "f" })));
    await Promise.all(calls.map((call) => tell(call())));
  }
  assert.ok(seen.has("done") && seen.has("ResourceNotFoundException"), [...seen].join(", "));
});
