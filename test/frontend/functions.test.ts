import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { describe, it } from "node:test";
import * as lambda from "@aws-sdk/client-lambda";
import { arnOf, functionInput, REGION, ROLE, startHarness, zipOf } from "./harness.ts";
import type { Harness } from "./harness.ts";

const WAIT = { maxWaitTime: 10, minDelay: 1, maxDelay: 1 } as const;

const active = async ({ client }: Harness, name: string): Promise<void> => {
  await lambda.waitUntilFunctionActiveV2({ client, ...WAIT }, { FunctionName: name });
};

const updated = async ({ client }: Harness, name: string): Promise<void> => {
  await lambda.waitUntilFunctionUpdatedV2({ client, ...WAIT }, { FunctionName: name });
};

const create = async (at: Harness, name: string, changes: object = {}): Promise<lambda.FunctionConfiguration> => {
  const input = { ...(await functionInput(name)), ...changes };
  const created = await at.client.send(new lambda.CreateFunctionCommand(input));
  await active(at, name);
  return created;
};

describe("functions", () => {
  it("are created pending, become active, and show every default", async () => {
    await using at = await startHarness();
    const input = await functionInput("f");
    const created = await at.client.send(new lambda.CreateFunctionCommand(input));
    assert.equal(created.$metadata.httpStatusCode, 201);
    assert.match(created.$metadata.requestId ?? "", /^[0-9a-f-]{36}$/);
    assert.deepEqual(
      [created.State, created.StateReason, created.StateReasonCode, created.LastUpdateStatus],
      ["Pending", "The function is being created.", "Creating", undefined],
    );
    await active(at, "f");
    const { $metadata: _, ...found } = await at.client.send(
      new lambda.GetFunctionConfigurationCommand({ FunctionName: "f" }),
    );
    assert.match(found.LastModified ?? "", /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+0000$/);
    assert.match(found.RevisionId ?? "", /^[0-9a-f-]{36}$/);
    assert.match(
      found.RuntimeVersionConfig?.RuntimeVersionArn ?? "",
      /^arn:aws:lambda:us-east-1::runtime:[0-9a-f]{64}$/,
    );
    const { LastModified, RevisionId, RuntimeVersionConfig, ...rest } = found;
    assert.ok(LastModified !== undefined && RevisionId !== undefined && RuntimeVersionConfig !== undefined);
    assert.deepEqual(rest, {
      FunctionName: "f",
      FunctionArn: arnOf("f"),
      Runtime: "nodejs24.x",
      Role: ROLE,
      Handler: "index.handler",
      CodeSize: input.Code.ZipFile.byteLength,
      Description: "",
      Timeout: 3,
      MemorySize: 128,
      CodeSha256: createHash("sha256").update(input.Code.ZipFile).digest("base64"),
      Version: "$LATEST",
      TracingConfig: { Mode: "PassThrough" },
      State: "Active",
      LastUpdateStatus: "Successful",
      PackageType: "Zip",
      Architectures: ["x86_64"],
      EphemeralStorage: { Size: 512 },
      SnapStart: { ApplyOn: "None", OptimizationStatus: "Off" },
      LoggingConfig: { LogFormat: "Text", LogGroup: "/aws/lambda/f" },
    });
  });

  it("keep what they are given", async () => {
    await using at = await startHarness();
    const given = {
      Description: "what it does",
      Timeout: 900,
      MemorySize: 10_240,
      EphemeralStorage: { Size: 10_240 },
      Environment: { Variables: { GREETING: "grüß dich" } },
      LoggingConfig: { LogFormat: "JSON", ApplicationLogLevel: "DEBUG", SystemLogLevel: "WARN", LogGroup: "/my/group" },
      VpcConfig: { SubnetIds: ["subnet-1"], SecurityGroupIds: ["sg-1"] },
      TracingConfig: { Mode: "Active" },
      Tags: { team: "blue" },
    } as const;
    await create(at, "f", given);
    const found = await at.client.send(new lambda.GetFunctionCommand({ FunctionName: "f" }));
    const { Tags, ...configuration } = given;
    assert.partialDeepStrictEqual(found.Configuration, configuration);
    assert.deepEqual(found.Tags, Tags);
  });

  it("are downloaded from the link of GetFunction, and only with it", async () => {
    await using at = await startHarness();
    await create(at, "f");
    const { Code } = await at.client.send(new lambda.GetFunctionCommand({ FunctionName: "f" }));
    const location = Code?.Location ?? "";
    assert.ok(location.startsWith(`${at.endpoint}/`));
    const zip = Buffer.from(await (await fetch(location)).arrayBuffer());
    assert.deepEqual(zip, Buffer.from((await functionInput("f")).Code.ZipFile));
    assert.equal((await fetch(location.replace(/Expires=\d+/, "Expires=9999999999999"))).status, 403);
    assert.equal((await fetch(location.replace(/\?.*/, ""))).status, 403);
  });

  it("are named in all of Lambda's forms", async () => {
    await using at = await startHarness();
    await create(at, "f");
    await at.client.send(new lambda.PublishVersionCommand({ FunctionName: "f" }));
    const forms = ["f", "function:f", "123456789012:function:f", `${REGION}:123456789012:function:f`, arnOf("f")];
    for (const FunctionName of forms) {
      const plain = await at.client.send(new lambda.GetFunctionConfigurationCommand({ FunctionName }));
      assert.equal(plain.FunctionArn, arnOf("f"), FunctionName);
      for (const qualifier of ["1", "$LATEST"]) {
        const inside = { FunctionName: `${FunctionName}:${qualifier}` };
        const beside = { FunctionName, Qualifier: qualifier };
        for (const input of [inside, beside, { ...inside, Qualifier: qualifier }]) {
          const found = await at.client.send(new lambda.GetFunctionConfigurationCommand(input));
          assert.equal(found.FunctionArn, `${arnOf("f")}:${qualifier}`, FunctionName);
        }
      }
    }
  });

  it("change their code and configuration, by revision", async () => {
    await using at = await startHarness();
    const created = await create(at, "f");
    const ZipFile = await zipOf({ "index.js": "exports.other = 1" });
    const dry = await at.client.send(
      new lambda.UpdateFunctionCodeCommand({ FunctionName: "f", ZipFile, DryRun: true }),
    );
    assert.equal(dry.CodeSize, ZipFile.byteLength);
    assert.equal(dry.RevisionId, created.RevisionId);
    const code = await at.client.send(
      new lambda.UpdateFunctionCodeCommand({ FunctionName: "f", ZipFile, RevisionId: created.RevisionId }),
    );
    assert.equal(code.LastUpdateStatus, "InProgress");
    assert.notEqual(code.CodeSha256, created.CodeSha256);
    assert.notEqual(code.RevisionId, created.RevisionId);
    await updated(at, "f");
    const stale = { FunctionName: "f", RevisionId: created.RevisionId };
    for (const command of [
      new lambda.UpdateFunctionCodeCommand({ ...stale, ZipFile }),
      new lambda.UpdateFunctionConfigurationCommand({ ...stale, Timeout: 9 }),
      new lambda.PublishVersionCommand(stale),
    ]) {
      await assert.rejects(at.client.send(command), {
        name: "PreconditionFailedException",
        message: /^The Revision Id provided does not match the latest Revision Id\./,
      });
    }
    await at.client.send(new lambda.UpdateFunctionConfigurationCommand({ FunctionName: "f", Timeout: 9 }));
    await updated(at, "f");
    const found = await at.client.send(new lambda.GetFunctionConfigurationCommand({ FunctionName: "f" }));
    assert.deepEqual([found.Timeout, found.MemorySize, found.CodeSha256], [9, 128, code.CodeSha256]);
    assert.deepEqual(
      at.echo.retired.map(([arn, except]) => [arn, except === null]),
      [
        [arnOf("f"), false],
        [arnOf("f"), false],
      ],
    );
  });

  it("publish versions: the same one while nothing changes, and never a number twice", async () => {
    await using at = await startHarness();
    await create(at, "f");
    const publish = async (changes: object = {}): Promise<string | undefined> =>
      (await at.client.send(new lambda.PublishVersionCommand({ FunctionName: "f", ...changes }))).Version;
    assert.equal(await publish({ Description: "first" }), "1");
    assert.equal(await publish({ Description: "ignored, as nothing has changed" }), "1");
    await at.client.send(new lambda.UpdateFunctionConfigurationCommand({ FunctionName: "f", MemorySize: 256 }));
    await updated(at, "f");
    await assert.rejects(publish({ CodeSha256: "other" }), {
      name: "InvalidParameterValueException",
      message: /^CodeSHA256 \(other\) is different from current CodeSHA256 in \$LATEST/,
    });
    assert.equal(await publish(), "2");
    await at.client.send(new lambda.DeleteFunctionCommand({ FunctionName: "f", Qualifier: "2" }));
    assert.equal(await publish(), "3");
    const list = await at.client.send(new lambda.ListVersionsByFunctionCommand({ FunctionName: "f" }));
    assert.deepEqual(
      list.Versions?.map(({ Version, FunctionArn, MemorySize, Description }) => [
        Version,
        FunctionArn,
        MemorySize,
        Description,
      ]),
      [
        ["$LATEST", `${arnOf("f")}:$LATEST`, 256, ""],
        ["1", `${arnOf("f")}:1`, 128, "first"],
        ["3", `${arnOf("f")}:3`, 256, ""],
      ],
    );
    await lambda.waitUntilPublishedVersionActive({ client: at.client, ...WAIT }, { FunctionName: "f", Qualifier: "3" });
  });

  it("are listed in pages", async () => {
    await using at = await startHarness();
    for (let n = 0; n < 7; n += 1) await create(at, `f${n}`, { Publish: n === 3 });
    const seen: (string | undefined)[] = [];
    for await (const page of lambda.paginateListFunctions({ client: at.client, pageSize: 3 }, {})) {
      seen.push(...(page.Functions ?? []).map(({ FunctionName }) => FunctionName));
    }
    assert.deepEqual(seen, ["f0", "f1", "f2", "f3", "f4", "f5", "f6"]);
    const all = await at.client.send(new lambda.ListFunctionsCommand({ FunctionVersion: "ALL" }));
    assert.equal(all.Functions?.length, 8);
    assert.ok(all.Functions?.some(({ FunctionArn }) => FunctionArn === `${arnOf("f3")}:1`));
    const wrong = at.client.send(new lambda.ListFunctionsCommand({ Marker: "nonsense" }));
    await assert.rejects(wrong, { name: "InvalidParameterValueException" });
  });

  it("are deleted with everything, or one version at a time", async () => {
    await using at = await startHarness();
    await create(at, "f", { Publish: true });
    const remove = (changes: object): Promise<lambda.DeleteFunctionCommandOutput> =>
      at.client.send(new lambda.DeleteFunctionCommand({ FunctionName: "f", ...changes }));
    await assert.rejects(
      remove({ Qualifier: "$LATEST" }),
      /\$LATEST version cannot be deleted without deleting the function/,
    );
    await remove({ Qualifier: "1" });
    await assert.rejects(at.client.send(new lambda.GetFunctionCommand({ FunctionName: "f", Qualifier: "1" })), {
      name: "ResourceNotFoundException",
      message: `Function not found: ${arnOf("f")}:1`,
    });
    await remove({});
    assert.deepEqual(at.echo.retired.at(-1), [arnOf("f"), null]);
    for (const again of [remove({}), at.client.send(new lambda.GetFunctionCommand({ FunctionName: "f" }))]) {
      await assert.rejects(again, { name: "ResourceNotFoundException", message: `Function not found: ${arnOf("f")}` });
    }
  });

  it("carry tags, of which one says whether slots serve again", async () => {
    await using at = await startHarness();
    await create(at, "f", { Tags: { a: "1" } });
    const Resource = arnOf("f");
    const invoke = (): Promise<unknown> => at.client.send(new lambda.InvokeCommand({ FunctionName: "f" }));
    await invoke();
    await at.client.send(new lambda.TagResourceCommand({ Resource, Tags: { b: "2", "hearth:reuse": "never" } }));
    await invoke();
    await at.client.send(new lambda.UntagResourceCommand({ Resource, TagKeys: ["a", "hearth:reuse"] }));
    await invoke();
    assert.deepEqual(
      at.echo.reserved.map(({ spec }) => spec.reuse),
      ["always", "never", "always"],
    );
    assert.equal(new Set(at.echo.reserved.map(({ spec }) => spec.revision)).size, 2);
    assert.deepEqual((await at.client.send(new lambda.ListTagsCommand({ Resource }))).Tags, { b: "2" });
    const tag = (Tags: Record<string, string>, arn = Resource): Promise<unknown> =>
      at.client.send(new lambda.TagResourceCommand({ Resource: arn, Tags }));
    const many = Object.fromEntries(Array.from({ length: 50 }, (_, n) => [`key${n}`, ""]));
    await assert.rejects(tag(many), { message: "Number of tags exceeds resource tag limit." });
    await assert.rejects(tag({ "hearth:reuse": "sometimes" }), { name: "InvalidParameterValueException" });
    await assert.rejects(tag({ x: "1" }, `${Resource}:1`), /Tags on function aliases and versions are not supported/);
    await assert.rejects(tag({ x: "1" }, arnOf("missing")), { name: "ResourceNotFoundException" });
  });

  it("reserve concurrency, of which a part of the account's stays free", async () => {
    await using at = await startHarness();
    await create(at, "f");
    await create(at, "g");
    const put = (FunctionName: string, ReservedConcurrentExecutions: number): Promise<unknown> =>
      at.client.send(new lambda.PutFunctionConcurrencyCommand({ FunctionName, ReservedConcurrentExecutions }));
    await put("f", 800);
    await assert.rejects(put("g", 101), {
      name: "InvalidParameterValueException",
      message:
        "Specified ReservedConcurrentExecutions for function decreases account's UnreservedConcurrentExecution below its minimum value of [100].",
    });
    await put("g", 100);
    const settings = await at.client.send(new lambda.GetAccountSettingsCommand({}));
    assert.equal(settings.AccountLimit?.UnreservedConcurrentExecutions, 100);
    assert.equal(settings.AccountUsage?.FunctionCount, 2);
    const found = await at.client.send(new lambda.GetFunctionCommand({ FunctionName: "f" }));
    assert.deepEqual(found.Concurrency, { ReservedConcurrentExecutions: 800 });
    await put("f", 0);
    await assert.rejects(at.client.send(new lambda.InvokeCommand({ FunctionName: "f" })), {
      name: "TooManyRequestsException",
      Reason: "ReservedFunctionConcurrentInvocationLimitExceeded",
      retryAfterSeconds: "1",
      message: "Rate Exceeded.",
    });
    await at.client.send(new lambda.DeleteFunctionConcurrencyCommand({ FunctionName: "f" }));
    const gone = await at.client.send(new lambda.GetFunctionConcurrencyCommand({ FunctionName: "f" }));
    assert.equal(gone.ReservedConcurrentExecutions, undefined);
    await at.client.send(new lambda.InvokeCommand({ FunctionName: "f" }));
    await assert.rejects(put("missing", 1), { name: "ResourceNotFoundException" });
  });
});
