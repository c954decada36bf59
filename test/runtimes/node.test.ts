import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { joinModules } from "../../scripts/images/join-modules.ts";
import { type Answer, RuntimeUnderTest } from "./runtime-api-double.ts";

const client = join(import.meta.dirname, "../../src/runtimes/node");
const folder = await mkdtemp(join(tmpdir(), "hearth-client-"));
after(() => rm(folder, { recursive: true, force: true }));
const entry = join(folder, "index.cjs");
await writeFile(entry, await joinModules(client, "index.mjs"));

type Files = Readonly<Record<string, string>>;
const start = (files: Files, handler = "index.handler", env: Files = {}): Promise<RuntimeUnderTest> =>
  RuntimeUnderTest.start([process.execPath, "--single-threaded", entry], files, handler, env);
const bodyOf = (answer: Answer): Record<string, unknown> => JSON.parse(answer.body) as Record<string, unknown>;

test("an async handler answers, again and again, over both kinds of body", async () => {
  await using runtime = await start({ "index.js": "let n = 0; exports.handler = async (e) => ({ n: ++n, e });" });
  const first = await runtime.invoke({ text: "größe ✓" });
  assert.equal(first.path, "/invocation/request-1/response");
  assert.deepEqual(bodyOf(first), { n: 1, e: { text: "größe ✓" } });
  const second = await runtime.invoke({ long: "x".repeat(2_000_000) });
  assert.equal((bodyOf(second)["e"] as { long: string }).long.length, 2_000_000);
  assert.deepEqual(bodyOf(await runtime.invoke([1, 2], { chunked: true })), { n: 3, e: [1, 2] });
});

test("a result of undefined is null, and a value that JSON has no form for is an error", async () => {
  const code = "exports.handler = async (e) => (e === 1 ? undefined : { n: 1n });";
  await using runtime = await start({ "index.js": code });
  assert.equal((await runtime.invoke(1)).body, "null");
  const failed = await runtime.invoke(2);
  assert.equal(failed.path, "/invocation/request-2/error");
  assert.equal(failed.headers["lambda-runtime-function-error-type"], "Runtime.JSONStringifyError");
  assert.equal(bodyOf(failed)["errorMessage"], "Unable to stringify response body");
});

test("the context says what Lambda's says", async () => {
  const code = `exports.handler = async (_e, c) => ({ ...c, left: c.getRemainingTimeInMillis(),
    trace: process.env._X_AMZN_TRACE_ID, store: awslambda.InvokeStore.getRequestId() });`;
  await using runtime = await start({ "index.js": code });
  const headers = {
    "Lambda-Runtime-Client-Context": '{"custom":{"a":"b"}}',
    "Lambda-Runtime-Cognito-Identity": '{"cognitoIdentityId":"i"}',
    "Lambda-Runtime-Trace-Id": "Root=1-2-3",
  };
  const context = bodyOf(await runtime.invoke({}, { headers }));
  const left = Number(context["left"]);
  assert.ok(left > 0 && left <= 60_000);
  assert.deepEqual(
    { ...context, left: 0 },
    {
      functionName: "f",
      functionVersion: "$LATEST",
      memoryLimitInMB: "128",
      logGroupName: "/aws/lambda/f",
      logStreamName: "stream",
      clientContext: { custom: { a: "b" } },
      identity: { cognitoIdentityId: "i" },
      invokedFunctionArn: "arn:aws:lambda:us-east-1:000000000000:function:f",
      awsRequestId: "request-1",
      xRayTraceId: "Root=1-2-3",
      left: 0,
      trace: "Root=1-2-3",
      store: "request-1",
    },
  );
  assert.equal(bodyOf(await runtime.invoke({}))["trace"], undefined);
});

test("a thrown error has its name, message and stack, and the next event is served", async () => {
  const code = "exports.handler = async (e) => { if (e.fail) throw new TypeError('not so'); return 1; };";
  await using runtime = await start({ "index.js": code });
  const failed = await runtime.invoke({ fail: true });
  assert.equal(failed.path, "/invocation/request-1/error");
  const { errorType, errorMessage, trace } = bodyOf(failed);
  assert.deepEqual({ errorType, errorMessage }, { errorType: "TypeError", errorMessage: "not so" });
  assert.match(String((trace as string[])[1]), /index\.js:1:/);
  assert.match(String(failed.headers["lambda-runtime-function-xray-error-cause"]), /"working_directory"/);
  assert.match(runtime.output, /^\S+Z\trequest-1\tERROR\tInvoke Error \t\{"errorType":"TypeError"/m);
  assert.equal((await runtime.invoke({})).body, "1");
});

test("handlers are found as Lambda finds them", async () => {
  const answer = "async () => import.meta.url.split('/').at(-1)";
  const cases: [files: Files, handler: string, wanted: string][] = [
    [{ "index.mjs": `export const handler = ${answer};` }, "index.handler", "index.mjs"],
    [{ "a.js": `export const handler = ${answer};`, "package.json": '{"type":"module"}' }, "a.handler", "a.js"],
    [{ "a.cjs": "exports.handler = async () => 'cjs';" }, "a.handler", "cjs"],
    [{ "lib/b.js": "exports.in = { deep: { fn: async () => 'nested' } };" }, "lib/b.in.deep.fn", "nested"],
    [{ "index.mjs": `export default { handler: ${answer} };` }, "index.handler", "index.mjs"],
    [{ "node_modules/m/index.js": "exports.handler = async () => 'module';" }, "m.handler", "module"],
  ];
  for (const [files, handler, wanted] of cases) {
    await using runtime = await start(files, handler);
    assert.equal((await runtime.invoke({})).body, JSON.stringify(wanted), handler);
  }
});

test("a handler that cannot be loaded is an init error of the kind that Lambda names", async () => {
  const deprecated = "exports.handler = (event, context, callback) => callback(null, 1);";
  const cases: [files: Files, handler: string, type: string, message: RegExp][] = [
    [{}, "index.handler", "Runtime.ImportModuleError", /^Error: Cannot find module 'index'/],
    [{ "index.js": "require('nowhere');" }, "index.handler", "Runtime.ImportModuleError", /module 'nowhere'/],
    [{ "index.js": "exports.other = 1;" }, "index.handler", "Runtime.HandlerNotFound", /is undefined or not exported/],
    [{ "index.js": "exports.handler = 1;" }, "index.handler", "Runtime.HandlerNotFound", /is not a function/],
    [{ "index.js": "let x = ;" }, "index.handler", "Runtime.UserCodeSyntaxError", /^SyntaxError: Unexpected token/],
    [{ "index.js": "" }, "index", "Runtime.MalformedHandlerName", /^Bad handler$/],
    [{ "index.js": "" }, "../index.handler", "Runtime.MalformedHandlerName", /is not a valid handler name/],
    [{ "index.js": deprecated }, "index.handler", "Runtime.CallbackHandlerDeprecated", /removed support for callback/],
    [{ "index.js": "throw new RangeError('at load');" }, "index.handler", "RangeError", /^at load$/],
  ];
  for (const [files, handler, type, message] of cases) {
    await using runtime = await start(files, handler);
    const answer = await runtime.answer();
    assert.equal(answer.path, "/init/error");
    assert.equal(answer.headers["lambda-runtime-function-error-type"], type);
    assert.equal(bodyOf(answer)["errorType"], type);
    assert.match(String(bodyOf(answer)["errorMessage"]), message);
    assert.notEqual(await runtime.exited, 0);
  }
});

test("what nobody caught is reported for its invocation, and ends the process", async () => {
  const code = `exports.handler = (e) => new Promise((resolve) => {
    if (e === 1) setTimeout(() => { throw new Error("later"); }, 1);
    else Promise.reject(new Error("lost"));
    // Its answer is on the way when the error comes: the error is what counts.
    if (e === 3) resolve("answered");
  });`;
  for (const [event, type, exitCode] of [
    [1, "Error", 129],
    [2, "Runtime.UnhandledPromiseRejection", 128],
    [3, "Runtime.UnhandledPromiseRejection", 128],
  ] as const) {
    await using runtime = await start({ "index.js": code });
    const answer = await runtime.invoke(event);
    assert.equal(answer.path, "/invocation/request-1/error");
    assert.equal(bodyOf(answer)["errorType"], type);
    assert.equal(await runtime.exited, exitCode);
  }
});

test("console writes Lambda's lines, in text and in JSON, from the level asked for", async () => {
  const code = `exports.handler = async () => { console.log("a %s", "b"); console.debug("hidden");
    console.error("two\\nlines"); console.warn({ k: 1 }); return 1; };`;
  await using text = await start({ "index.js": code }, "index.handler", { AWS_LAMBDA_LOG_LEVEL: "INFO" });
  await text.invoke({});
  const lines = text.output
    .trimEnd()
    .split("\n")
    .map((line) => line.split("\t").slice(1).join("|"));
  assert.deepEqual(lines, ["request-1|INFO|a b", "request-1|ERROR|two\rlines", "request-1|WARN|{ k: 1 }"]);

  await using json = await start({ "index.js": code }, "index.handler", { AWS_LAMBDA_LOG_FORMAT: "JSON" });
  await json.invoke({});
  const records = json.output
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line) as Record<string, unknown>);
  assert.deepEqual(
    records.map(({ level, message, requestId }) => [level, message, requestId]),
    [
      ["INFO", "a b", "request-1"],
      ["DEBUG", "hidden", "request-1"],
      ["ERROR", "two\nlines", "request-1"],
      ["WARN", { k: 1 }, "request-1"],
    ],
  );
});

test("a streaming handler streams, with the prelude of an HTTP answer when it has one", async () => {
  const code = `exports.handler = awslambda.streamifyResponse(async (event, stream) => {
    const out = event.http ? awslambda.HttpResponseStream.from(stream, { statusCode: 201 }) : stream;
    out.write("one "); await new Promise((resolve) => setTimeout(resolve, 5)); out.write({ two: 2 }); out.end();
  });`;
  await using runtime = await start({ "index.js": code });
  const plain = await runtime.invoke({});
  assert.equal(plain.headers["lambda-runtime-function-response-mode"], "streaming");
  assert.equal(plain.headers["content-type"], "application/octet-stream");
  assert.equal(plain.body, 'one {"two":2}');
  const http = await runtime.invoke({ http: true });
  assert.equal(http.headers["content-type"], "application/vnd.awslambda.http-integration-response");
  assert.equal(http.body, '{"statusCode":201}' + "\0".repeat(8) + 'one {"two":2}');
});

test("a stream that fails midway ends with the error in its trailers", async () => {
  const code = `exports.handler = awslambda.streamifyResponse(async (event, stream) => {
    stream.write("begun"); throw new RangeError("midway");
  });`;
  await using runtime = await start({ "index.js": code });
  const answer = await runtime.invoke({});
  assert.equal(answer.body, "begun");
  assert.equal(answer.trailers["lambda-runtime-function-error-type"], "RangeError");
  const body = Buffer.from(answer.trailers["lambda-runtime-function-error-body"] ?? "", "base64").toString();
  assert.equal((JSON.parse(body) as Record<string, unknown>)["errorMessage"], "midway");
});

test("a large stream arrives whole", async () => {
  const code = `const { pipeline } = require("node:stream/promises"); const { Readable } = require("node:stream");
    exports.handler = awslambda.streamifyResponse(async (event, stream) => {
      await pipeline(Readable.from(Array.from({ length: 200 }, (_, i) => String(i % 10).repeat(50_000))), stream);
    });`;
  await using runtime = await start({ "index.js": code });
  assert.equal((await runtime.invoke({})).body.length, 10_000_000);
});

test("a stream that is refused before its end costs its connection, and nothing after it", async () => {
  const code = `exports.handler = awslambda.streamifyResponse(async (event, stream) => {
    if (event.endless) for (;;) if (!stream.write(Buffer.alloc(1 << 20)))
      await require("node:events").once(stream, "drain");
    stream.end("well");
  });`;
  await using runtime = await start({ "index.js": code });
  for (const refusal of ["kept", "reset", "kept", "reset"] as const) {
    await runtime.invokeRefused({ endless: true }, refusal);
    assert.equal((await runtime.invoke({})).body, "well", refusal);
  }
});

test("two modules with the same name at their top level are not joined", async () => {
  await using clash = await mkTemporary();
  await writeFile(join(clash.path, "a.mjs"), 'import { b } from "./b.mjs";\nconst same = b;\n');
  await writeFile(join(clash.path, "b.mjs"), "const same = 1;\nexport const b = same;\n");
  await assert.rejects(joinModules(clash.path, "a.mjs"), /the name same is at the top level of two modules/);
});

async function mkTemporary(): Promise<AsyncDisposable & { readonly path: string }> {
  const path = await mkdtemp(join(tmpdir(), "hearth-join-"));
  return { path, [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true }) };
}
