import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import * as lambda from "@aws-sdk/client-lambda";
import * as limits from "../../src/wire/limits.ts";
import { arnOf, functionInput, startHarness, zipOf } from "./harness.ts";
import type { Harness } from "./harness.ts";

let at: Harness;
before(async () => {
  at = await startHarness();
  await at.client.send(new lambda.CreateFunctionCommand(await functionInput("f")));
  await at.client.send(new lambda.InvokeCommand({ FunctionName: "f" }));
});
after(() => at[Symbol.asyncDispose]());

const create = async (changes: object): Promise<unknown> =>
  at.client.send(new lambda.CreateFunctionCommand({ ...(await functionInput("bad")), ...changes }));

const invoke = (changes: object): Promise<unknown> =>
  at.client.send(new lambda.InvokeCommand({ FunctionName: "f", ...changes }));

const validation = (...problems: readonly string[]): { name: string; message: string } => ({
  name: "ValidationException",
  message: `${problems.length} validation error${problems.length === 1 ? "" : "s"} detected: ${problems
    .map((problem) => problem.replace(": ", " failed to satisfy constraint: "))
    .join("; ")}`,
});

/** A request signed by nobody's client: the body as it is. */
const raw = async (
  method: string,
  path: string,
  body?: string,
): Promise<{ status: number; type: string | null; json: unknown }> => {
  const open = await startHarness({ auth: "none" });
  try {
    const answer = await fetch(`${open.endpoint}${path}`, { method, ...(body === undefined ? {} : { body }) });
    assert.match(answer.headers.get("x-amzn-requestid") ?? "", /^[0-9a-f-]{36}$/);
    return { status: answer.status, type: answer.headers.get("x-amzn-errortype"), json: await answer.json() };
  } finally {
    await open[Symbol.asyncDispose]();
  }
};

const environment = (Variables: Record<string, string>): Promise<unknown> => create({ Environment: { Variables } });

const code = (Code: object): Promise<unknown> => create({ Code });

describe("CreateFunction refuses", () => {
  it("one over each limit, in AWS's words", async () => {
    const cases: readonly (readonly [object, { name: string; message: string | RegExp }])[] = [
      [{ Timeout: 901 }, validation("Value '901' at 'timeout': Member must have value less than or equal to 900")],
      [{ Timeout: 0 }, validation("Value '0' at 'timeout': Member must have value greater than or equal to 1")],
      [
        { MemorySize: 127 },
        validation("Value '127' at 'memorySize': Member must have value greater than or equal to 128"),
      ],
      [
        { MemorySize: 10_241 },
        validation("Value '10241' at 'memorySize': Member must have value less than or equal to 10240"),
      ],
      [
        { EphemeralStorage: { Size: 511 } },
        validation("Value '511' at 'ephemeralStorage.size': Member must have value greater than or equal to 512"),
      ],
      [
        { EphemeralStorage: { Size: 10_241 } },
        validation("Value '10241' at 'ephemeralStorage.size': Member must have value less than or equal to 10240"),
      ],
      [
        { Handler: "h".repeat(129) },
        validation(`Value '${"h".repeat(129)}' at 'handler': Member must have length less than or equal to 128`),
      ],
      [
        { Description: "d".repeat(257) },
        validation(`Value '${"d".repeat(256)}' at 'description': Member must have length less than or equal to 256`),
      ],
      [
        { FunctionName: "n".repeat(65) },
        validation(`Value '${"n".repeat(65)}' at 'functionName': Member must have length less than or equal to 64`),
      ],
      [
        { FunctionName: "n".repeat(141) },
        validation(`Value '${"n".repeat(141)}' at 'functionName': Member must have length less than or equal to 140`),
      ],
      [
        { Timeout: 901, MemorySize: 1 },
        { name: "ValidationException", message: /^2 validation errors detected: .*; Value/ },
      ],
      [
        { FunctionName: "no spaces" },
        {
          name: "ValidationException",
          message:
            /'functionName' failed to satisfy constraint: Member must satisfy regular expression pattern: \(arn:/,
        },
      ],
      [{ Role: "admin" }, { name: "ValidationException", message: /'role' failed to satisfy .* pattern: arn:\(aws/ }],
      [
        { Tags: Object.fromEntries(Array.from({ length: 51 }, (_, n) => [`k${n}`, ""])) },
        { name: "InvalidParameterValueException", message: "Number of tags exceeds resource tag limit." },
      ],
      [
        { Layers: Array.from({ length: 6 }, (_, n) => `${arnOf("x")}:${n}`) },
        { name: "InvalidParameterValueException", message: "Cannot reference more than 5 layers." },
      ],
    ];
    for (const [changes, error] of cases) await assert.rejects(create(changes), error);
    await assert.rejects(at.client.send(new lambda.GetFunctionCommand({ FunctionName: "bad" })), {
      name: "ResourceNotFoundException",
    });
  });

  it("an environment over 4 KB, reserved or impossible names", async () => {
    const room = limits.ENVIRONMENT_BYTES_MAX - '{"KEY":""}'.length;
    await assert.rejects(
      environment({ KEY: "v".repeat(room + 1) }),
      /provided exceeded the 4KB limit\. String measured: \{"KEY":"vvv/,
    );
    await assert.rejects(
      environment({ AWS_REGION: "x", GOOD: "y", _HANDLER: "z" }),
      /contains reserved keys .* Reserved keys used in this request: AWS_REGION, _HANDLER$/,
    );
    await assert.rejects(environment({ "1BAD": "x" }), { name: "ValidationException" });
    await assert.rejects(environment({ NUL: "a\0b" }), /NUL contains a NUL character/);
  });

  it("runtimes that are unknown or not installed, naming those that are", async () => {
    await assert.rejects(create({ Runtime: "python3.14" }), {
      name: "InvalidParameterValueException",
      message: "The runtime python3.14 is not installed here. Available: nodejs22.x, nodejs24.x, provided.al2023.",
    });
    await assert.rejects(
      create({ Runtime: "cobol" }),
      /Value cobol at 'runtime' failed to satisfy constraint: Member must satisfy enum/,
    );
    await assert.rejects(create({ Runtime: undefined }), /Runtime and Handler are mandatory parameters/);
    await assert.rejects(create({ Architectures: ["arm64"] }), /arm64 is not available here/);
  });

  it("code that is missing, damaged, too large, or elsewhere", async () => {
    await assert.rejects(code({}), { message: "Please provide a source for function code." });
    await assert.rejects(code({ S3Bucket: "b", S3Key: "k" }), /Code in S3 .* is not supported by Hearth yet/);
    await assert.rejects(code({ ImageUri: "x" }), /ImageUri is not supported by Hearth yet/);
    await assert.rejects(code({ ZipFile: Buffer.from("no zip") }), {
      name: "InvalidParameterValueException",
      message: "Could not unzip uploaded file. Please check your file, then try to upload again.",
    });
    await assert.rejects(code({ ZipFile: new Uint8Array(0) }), /non-empty zip/);
    const zip = await zipOf({ "index.js": "exports.handler" });
    await assert.rejects(code({ ZipFile: zip.subarray(0, -10) }), /Could not unzip/);
    // Just under the body's limit, over the archive's.
    await assert.rejects(code({ ZipFile: new Uint8Array(limits.ZIP_BYTES_MAX + 1) }), {
      name: "RequestEntityTooLargeException",
      message: "Zipped size must be smaller than 52428800 bytes",
    });
    await assert.rejects(code({ ZipFile: new Uint8Array(limits.ZIP_BYTES_MAX + 500_000) }), {
      name: "RequestEntityTooLargeException",
      message: "Request must be smaller than 70167211 bytes for the CreateFunction operation",
    });
  });

  it("a name that is taken", async () => {
    await assert.rejects(create({ FunctionName: "f" }), {
      name: "ResourceConflictException",
      message: "Function already exist: f",
    });
  });
});

describe("names and qualifiers", () => {
  it("of other accounts and regions, and those that contradict", async () => {
    const get = (FunctionName: string, Qualifier?: string): Promise<unknown> =>
      at.client.send(
        new lambda.GetFunctionCommand({ FunctionName, ...(Qualifier === undefined ? {} : { Qualifier }) }),
      );
    await assert.rejects(get(arnOf("f").replace("us-east-1", "eu-west-1")), {
      name: "ResourceNotFoundException",
      message: "Functions from 'eu-west-1' are not reachable in this region ('us-east-1')",
    });
    await assert.rejects(get(arnOf("f").replace("123456789012", "999999999999")), { name: "AccessDeniedException" });
    await assert.rejects(get("f:1", "2"), {
      name: "InvalidParameterValueException",
      message: "The derived qualifier from the function name does not match the specified qualifier.",
    });
    await assert.rejects(get("f", "a b"), { name: "ValidationException" });
    await assert.rejects(get("arn:aws:s3:::bucket"), { name: "ValidationException" });
    const update = new lambda.UpdateFunctionConfigurationCommand({ FunctionName: "f:1", Timeout: 4 });
    await assert.rejects(at.client.send(update), /This operation is permitted on Lambda functions only/);
  });
});

const payload = (bytes: number): string => JSON.stringify("p".repeat(bytes - 2));

const deadLetters = (TargetArn: string): Promise<lambda.UpdateFunctionConfigurationCommandOutput> =>
  at.client.send(new lambda.UpdateFunctionConfigurationCommand({ FunctionName: "f", DeadLetterConfig: { TargetArn } }));

describe("settings without effect", () => {
  it("are refused; an empty one takes the setting away", async () => {
    await assert.rejects(deadLetters("arn:aws:sqs:us-east-1:123456789012:dead"), {
      name: "InvalidParameterValueException",
      message: "DeadLetterConfig is not supported by Hearth yet. Leave it out.",
    });
    assert.equal((await deadLetters("")).DeadLetterConfig, undefined);
  });
});

describe("Invoke refuses", () => {
  it("payloads that are no JSON", async () => {
    for (const Payload of ["{", "nonsense", Buffer.from([0x22, 0xff, 0x22])]) {
      await assert.rejects(invoke({ Payload }), {
        name: "InvalidRequestContentException",
        message: /^Could not parse request body into json: /,
      });
    }
  });

  it("payloads one byte over the limit, and takes those at it", async () => {
    await assert.rejects(invoke({ Payload: payload(limits.PAYLOAD_BYTES_MAX + 1) }), {
      name: "RequestTooLargeException",
      message: "Request must be smaller than 6291556 bytes for the InvokeFunction operation",
    });
    await invoke({ Payload: payload(limits.PAYLOAD_BYTES_MAX) });
    const Payload = payload(limits.PAYLOAD_ASYNC_BYTES_MAX + 1);
    await assert.rejects(invoke({ Payload, InvocationType: "Event" }), {
      name: "RequestTooLargeException",
      message: "1048577 byte payload is too large for the Event invocation type (limit 1048576 bytes)",
    });
  });

  it("wrong types of invocation and bad client contexts", async () => {
    await assert.rejects(invoke({ InvocationType: "Maybe" }), /enum value set: \[DryRun, Event, RequestResponse\]/);
    await assert.rejects(invoke({ ClientContext: "!!" }), /Client context must be a valid Base64-encoded JSON object/);
    await assert.rejects(invoke({ ClientContext: "a".repeat(3_584) }), /no more than 3583 bytes/);
    await assert.rejects(invoke({ FunctionName: "missing" }), { message: `Function not found: ${arnOf("missing")}` });
  });
});

const post = (body: string): ReturnType<typeof raw> => raw("POST", "/2015-03-31/functions", body);

describe("the API answers", () => {
  it("operations that are not built with 501 and their name", async () => {
    const command = new lambda.CreateAliasCommand({ FunctionName: "f", Name: "a", FunctionVersion: "1" });
    await assert.rejects(at.client.send(command), { message: "Hearth does not have the operation CreateAlias yet." });
    const found = await raw("GET", "/2018-10-31/layers?find=LayerVersion&Arn=x");
    assert.deepEqual(
      [found.status, (found.json as { message: string }).message],
      [501, "Hearth does not have the operation GetLayerVersionByArn yet."],
    );
    const list = await raw("GET", "/2018-10-31/layers");
    assert.match((list.json as { message: string }).message, /ListLayers/);
  });

  it("unknown paths with 404", async () => {
    for (const path of ["/", "/2015-03-31/nothing", "/2015-03-31/functions/f/%zz"]) {
      const { status } = await raw("GET", path);
      assert.ok(status === 404 || status === 400, path);
    }
    assert.equal((await raw("GET", "/2015-03-31/nothing")).type, "UnknownOperationException");
  });

  it("bodies that are no JSON, or of the wrong types", async () => {
    assert.equal((await post("{")).type, "InvalidRequestContentException");
    assert.equal((await post("[]")).type, "SerializationException");
    assert.equal((await post('{"FunctionName":1}')).type, "SerializationException");
    assert.equal((await post('{"Timeout":"3"}')).type, "SerializationException");
    assert.equal((await post('{"Timeout":1.5}')).type, "SerializationException");
    assert.equal((await post('{"Code":{"ZipFile":"**"}}')).type, "SerializationException");
    assert.equal((await post('{"__proto__":{"x":1},"Layers":{}}')).type, "SerializationException");
    const empty = await post("{}");
    assert.equal(empty.status, 400);
    assert.deepEqual(empty.json, {
      message:
        "3 validation errors detected: Value null at 'functionName' failed to satisfy constraint: Member must not be null; " +
        "Value null at 'role' failed to satisfy constraint: Member must not be null; " +
        "Value null at 'code' failed to satisfy constraint: Member must not be null",
    });
  });
});
