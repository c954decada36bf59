import assert from "node:assert/strict";
import { describe, it } from "node:test";
import * as lambda from "@aws-sdk/client-lambda";
import { functionArn } from "../../src/frontend/api/names.ts";
import { ACCOUNT, arnOf, functionInput, REGION, startHarness } from "./harness.ts";
import type { Harness } from "./harness.ts";

const start = async (): Promise<Harness> => {
  const at = await startHarness();
  await at.client.send(new lambda.CreateFunctionCommand({ ...(await functionInput("f")), Publish: true }));
  return at;
};

const text = (payload: Uint8Array | undefined): string => Buffer.from(payload ?? []).toString("utf8");

describe("Invoke", () => {
  it("waits for a function that is just being created, and hands over what the function must know", async () => {
    await using at = await start();
    const answer = await at.client.send(
      new lambda.InvokeCommand({
        FunctionName: "f",
        Payload: '{"text":"grüß dich"}',
        ClientContext: Buffer.from('{"custom":{"a":1}}').toString("base64"),
      }),
    );
    assert.deepEqual([answer.StatusCode, answer.ExecutedVersion, answer.FunctionError], [200, "$LATEST", undefined]);
    assert.equal(text(answer.Payload), '{"text":"grüß dich"}');
    const [request] = at.echo.invoked;
    assert.equal(request?.invokedFunctionArn, arnOf("f"));
    assert.equal(request?.requestId, answer.$metadata.requestId);
    assert.equal(request?.clientContext, '{"custom":{"a":1}}');
    assert.match(request?.traceId ?? "", /^Root=1-[0-9a-f]{8}-[0-9a-f]{24}/);
    assert.equal(at.echo.reserved[0]?.spec.timeoutMs, 3_000);
    assert.deepEqual([at.echo.released, at.echo.leased], [["reusable"], 0]);
  });

  it("runs the version that is asked for", async () => {
    await using at = await start();
    const home = { accountId: ACCOUNT, region: REGION };
    for (const Qualifier of ["1", "$LATEST"]) {
      const answer = await at.client.send(new lambda.InvokeCommand({ FunctionName: arnOf("f"), Qualifier }));
      assert.equal(answer.ExecutedVersion, Qualifier);
      assert.equal(at.echo.invoked.at(-1)?.invokedFunctionArn, functionArn(home, "f", Qualifier));
    }
    assert.equal(new Set(at.echo.reserved.map(({ spec }) => spec.revision)).size, 2);
    for (const Qualifier of ["2", "alias"]) {
      await assert.rejects(at.client.send(new lambda.InvokeCommand({ FunctionName: "f", Qualifier })), {
        name: "ResourceNotFoundException",
        message: `Function not found: ${arnOf("f")}:${Qualifier}`,
      });
    }
  });

  it("gives an empty event as an empty object", async () => {
    await using at = await start();
    assert.equal(text((await at.client.send(new lambda.InvokeCommand({ FunctionName: "f" }))).Payload), "{}");
  });

  it("answers a function's own failure with status 200", async () => {
    await using at = await start();
    const answer = await at.client.send(
      new lambda.InvokeCommand({ FunctionName: "f", Payload: '{"do":"fail"}', LogType: "Tail" }),
    );
    assert.deepEqual([answer.StatusCode, answer.FunctionError], [200, "Unhandled"]);
    assert.deepEqual(JSON.parse(text(answer.Payload)), { errorType: "Error", errorMessage: "as told" });
    assert.match(Buffer.from(answer.LogResult ?? "", "base64").toString(), /^START\nEND\nREPORT/);
    assert.deepEqual(at.echo.released, ["reusable"]);
  });

  it("gives back the slot when the worker breaks, and tells nothing of its insides", async () => {
    await using at = await start();
    await assert.rejects(at.client.send(new lambda.InvokeCommand({ FunctionName: "f", Payload: '{"do":"break"}' })), {
      name: "ServiceException",
      message: "An error occurred and the request cannot be processed.",
    });
    assert.deepEqual([at.echo.released, at.echo.leased], [["broken"], 0]);
  });

  it("tries another slot when one ended before the invocation began, but not for ever", async () => {
    await using at = await start();
    at.echo.slotsGone = 2;
    assert.equal((await at.client.send(new lambda.InvokeCommand({ FunctionName: "f" }))).StatusCode, 200);
    assert.deepEqual(at.echo.released, ["broken", "broken", "reusable"]);
    at.echo.slotsGone = 3;
    await assert.rejects(at.client.send(new lambda.InvokeCommand({ FunctionName: "f" })), {
      name: "ServiceException",
      message: "No slot lasted until the invocation began: slot-1 is gone",
    });
    assert.equal(at.echo.leased, 0);
  });

  it("passes throttles on with their reason", async () => {
    await using at = await start();
    at.echo.throttles = 1;
    await assert.rejects(at.client.send(new lambda.InvokeCommand({ FunctionName: "f" })), {
      name: "TooManyRequestsException",
      Reason: "ConcurrentInvocationLimitExceeded",
    });
    await at.client.send(new lambda.InvokeCommand({ FunctionName: "f" }));
  });

  it("only checks on a dry run", async () => {
    await using at = await start();
    const dry = (FunctionName: string): Promise<lambda.InvokeCommandOutput> =>
      at.client.send(new lambda.InvokeCommand({ FunctionName, InvocationType: "DryRun" }));
    assert.equal((await dry("f")).StatusCode, 204);
    await assert.rejects(dry("missing"), { name: "ResourceNotFoundException" });
    assert.deepEqual(at.echo.reserved, []);
  });

  it("sees at once what was changed", async () => {
    await using at = await start();
    await at.client.send(new lambda.InvokeCommand({ FunctionName: "f" }));
    await lambda.waitUntilFunctionUpdatedV2(
      { client: at.client, maxWaitTime: 10, minDelay: 1, maxDelay: 1 },
      { FunctionName: "f" },
    );
    await at.client.send(
      new lambda.UpdateFunctionConfigurationCommand({ FunctionName: "f", Environment: { Variables: { NEW: "1" } } }),
    );
    await at.client.send(new lambda.InvokeCommand({ FunctionName: "f" }));
    assert.deepEqual(at.echo.reserved.at(-1)?.spec.environment, { NEW: "1" });
    await at.client.send(new lambda.DeleteFunctionCommand({ FunctionName: "f" }));
    await assert.rejects(at.client.send(new lambda.InvokeCommand({ FunctionName: "f" })), {
      name: "ResourceNotFoundException",
    });
  });
});

const run = async (
  at: Harness,
  payload: string,
): Promise<{
  text: string;
  complete: lambda.InvokeWithResponseStreamCompleteEvent | undefined;
  version: unknown;
}> => {
  const answer = await at.client.send(
    new lambda.InvokeWithResponseStreamCommand({ FunctionName: "f", Payload: payload, LogType: "Tail" }),
  );
  let received = "";
  let complete: lambda.InvokeWithResponseStreamCompleteEvent | undefined;
  for await (const event of answer.EventStream ?? []) {
    received += text(event.PayloadChunk?.Payload);
    complete = event.InvokeComplete ?? complete;
  }
  return { text: received, complete, version: answer.ExecutedVersion };
};

describe("InvokeWithResponseStream", () => {
  it("streams the answer in pieces and ends with the log", async () => {
    await using at = await start();
    const payload = JSON.stringify({ long: "x".repeat(300_000) });
    const answer = await run(at, payload);
    assert.equal(answer.text, payload);
    assert.equal(answer.version, "$LATEST");
    assert.equal(answer.complete?.ErrorCode, undefined);
    assert.match(Buffer.from(answer.complete?.LogResult ?? "", "base64").toString(), /REPORT/);
    assert.deepEqual([at.echo.released, at.echo.leased], [["reusable"], 0]);
  });

  it("tells a failure at the stream's end", async () => {
    await using at = await start();
    const { complete } = await run(at, '{"do":"fail"}');
    assert.deepEqual(
      [complete?.ErrorCode, JSON.parse(complete?.ErrorDetails ?? "null")],
      ["Error", { errorType: "Error", errorMessage: "as told" }],
    );
    assert.equal(at.echo.leased, 0);
  });
});
