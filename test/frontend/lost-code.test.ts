import assert from "node:assert/strict";
import { readdir, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { it } from "node:test";
import * as lambda from "@aws-sdk/client-lambda";
import { functionInput, startHarness, temporaryDirectory } from "./harness.ts";

it("shows a function whose code is lost as Failed, serves the others, and it too when its code is back", async () => {
  const directory = await temporaryDirectory();
  try {
    const digests: string[] = [];
    {
      await using first = await startHarness({ directory });
      for (const name of ["lost", "well"]) {
        const made = await first.client.send(new lambda.CreateFunctionCommand(await functionInput(name)));
        digests.push(Buffer.from(made.CodeSha256 ?? "", "base64").toString("hex"));
      }
    }
    const code = join(directory, "code");
    const away = (await readdir(code)).filter((name) => name.startsWith(digests[0] ?? "none"));
    assert.equal(away.length, 3);
    for (const name of away) await rename(join(code, name), join(directory, name));

    await using second = await startHarness({ directory });
    const { client } = second;
    const { Functions = [] } = await client.send(new lambda.ListFunctionsCommand({}));
    assert.deepEqual(
      Functions.map(({ FunctionName, State }) => [FunctionName, State]),
      [
        ["lost", "Failed"],
        ["well", "Active"],
      ],
    );
    const { Configuration } = await client.send(new lambda.GetFunctionCommand({ FunctionName: "lost" }));
    assert.match(Configuration?.StateReason ?? "", /code is lost: neither its archive .* Upload the code again/);
    await client.send(new lambda.InvokeCommand({ FunctionName: "well", Payload: "1" }));
    await assert.rejects(client.send(new lambda.InvokeCommand({ FunctionName: "lost" })), {
      name: "ResourceConflictException",
      message: /in the following state: Failed$/,
    });
    for (const name of away) await rename(join(directory, name), join(code, name));
    await client.send(new lambda.InvokeCommand({ FunctionName: "lost", Payload: "1" }));
    const { State } = await client.send(new lambda.GetFunctionConfigurationCommand({ FunctionName: "lost" }));
    assert.equal(State, "Active");
  } finally {
    await rm(directory, { recursive: true });
  }
});
