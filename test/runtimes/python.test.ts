import assert from "node:assert/strict";
import { join } from "node:path";
import { after, test } from "node:test";
import { runtimeOf } from "../../src/runtimes/catalog.ts";
import { extractImage } from "./extract-image.ts";
import { type Answer, RuntimeUnderTest } from "./runtime-api-double.ts";

const image = await extractImage("python3.11");
after(() => image[Symbol.asyncDispose]());
const [python, ...args] = runtimeOf("python3.11").argv.map((part) => join(image.path, part));
const environment = {
  LD_LIBRARY_PATH: join(image.path, "usr/lib/x86_64-linux-gnu"),
  PYTHONPATH: join(image.path, "var/lang/lib/python3.11/site-packages"),
};

type Files = Readonly<Record<string, string>>;
async function start(code: string | Files, handler = "app.handler", env: Files = {}): Promise<RuntimeUnderTest> {
  assert.ok(python !== undefined);
  const files = typeof code === "string" ? { "app.py": code } : code;
  return await RuntimeUnderTest.start([python, ...args], files, handler, { ...environment, ...env });
}
const bodyOf = (answer: Answer): Record<string, unknown> => JSON.parse(answer.body) as Record<string, unknown>;

test("a handler answers, again and again, over both kinds of body", async () => {
  await using runtime = await start("n = 0\ndef handler(e, c):\n  global n\n  n += 1\n  return {'n': n, 'e': e}\n");
  const first = await runtime.invoke({ text: "größe ✓" });
  assert.equal(first.path, "/invocation/request-1/response");
  assert.deepEqual(bodyOf(first), { n: 1, e: { text: "größe ✓" } });
  const second = await runtime.invoke({ long: "x".repeat(2_000_000) });
  assert.equal((bodyOf(second)["e"] as { long: string }).long.length, 2_000_000);
  assert.deepEqual(bodyOf(await runtime.invoke([1, 2], { chunked: true })), { n: 3, e: [1, 2] });
});

test("results are written as Lambda writes them", async () => {
  await using runtime = await start(`
from collections import namedtuple
from datetime import date
from decimal import Decimal
Point = namedtuple("Point", "x y")
def handler(e, c):
    return {"none": None, "dict": {"a": 1.5, "b": [True, "ü"]}, "decimal": {"d": Decimal("1.10")},
            "tuple": Point(1, 2), "bytes": b"raw", "date": date(2026, 1, 1)}[e]
`);
  assert.equal((await runtime.invoke('"none"')).body, "null");
  assert.equal((await runtime.invoke('"dict"')).body, '{"a": 1.5, "b": [true, "\\u00fc"]}');
  assert.equal((await runtime.invoke('"decimal"')).body, '{"d": 1.10}');
  assert.equal((await runtime.invoke('"tuple"')).body, '{"x": 1, "y": 2}');
  const raw = await runtime.invoke('"bytes"');
  assert.deepEqual([raw.body, raw.headers["content-type"]], ["raw", "application/unknown"]);
  const failed = await runtime.invoke('"date"');
  assert.equal(failed.headers["lambda-runtime-function-error-type"], "Runtime.MarshalError");
  assert.equal(
    bodyOf(failed)["errorMessage"],
    "Unable to marshal response: Object of type date is not JSON serializable",
  );
});

test("the context says what Lambda's says", async () => {
  await using runtime = await start(`
import os
def handler(e, c):
    left = c.get_remaining_time_in_millis()
    return [c.function_name, c.function_version, c.memory_limit_in_mb, c.log_group_name, c.log_stream_name,
            c.invoked_function_arn, c.aws_request_id, c.identity.cognito_identity_id,
            c.client_context and c.client_context.custom, c.client_context and c.client_context.client.app_title,
            0 < left <= 60000, os.environ.get("_X_AMZN_TRACE_ID")]
`);
  const headers = {
    "Lambda-Runtime-Client-Context": '{"custom":{"a":"b"},"client":{"app_title":"t"}}',
    "Lambda-Runtime-Cognito-Identity": '{"cognitoIdentityId":"i","cognitoIdentityPoolId":"p"}',
    "Lambda-Runtime-Trace-Id": "Root=1-2-3",
  };
  const arn = "arn:aws:lambda:us-east-1:000000000000:function:f";
  const common = (id: string): unknown[] => ["f", "$LATEST", "128", "/aws/lambda/f", "stream", arn, id];
  assert.deepEqual(JSON.parse((await runtime.invoke({}, { headers })).body), [
    ...common("request-1"),
    "i",
    { a: "b" },
    "t",
    true,
    "Root=1-2-3",
  ]);
  const without = JSON.parse((await runtime.invoke({})).body) as unknown[];
  assert.deepEqual(without, [...common("request-2"), null, null, null, true, null]);
});

test("a raised error has its type, message and the function's own frames", async () => {
  await using runtime = await start("def handler(e, c):\n    if e: raise ValueError('not so')\n    return 1\n");
  const failed = await runtime.invoke(1);
  assert.equal(failed.path, "/invocation/request-1/error");
  assert.equal(failed.headers["lambda-runtime-function-error-type"], "ValueError");
  assert.deepEqual(bodyOf(failed), {
    errorMessage: "not so",
    errorType: "ValueError",
    requestId: "request-1",
    stackTrace: [`  File "${runtime.folder}/app.py", line 2, in handler\n    if e: raise ValueError('not so')\n`],
  });
  const nbsp = "\u00a0";
  const frame = `${nbsp}${nbsp}File "${runtime.folder}/app.py", line 2, in handler`;
  assert.ok(runtime.output.startsWith(`[ERROR] ValueError: not so\rTraceback (most recent call last):\r${frame}\r`));
  assert.equal((await runtime.invoke(0)).body, "1");
});

test("handlers are found in folders and packages", async () => {
  const code = "def handler(e, c): return __name__\n";
  for (const handler of ["pack/mod.handler", "pack.mod.handler"]) {
    await using runtime = await start({ "pack/__init__.py": "", "pack/mod.py": code }, handler);
    assert.equal((await runtime.invoke({})).body, '"pack.mod"');
  }
});

test("a handler that cannot be loaded is an init error of the kind that Lambda names", async () => {
  const cases: [files: Files, handler: string, type: string, message: RegExp][] = [
    [{}, "app.handler", "Runtime.ImportModuleError", /^Unable to import module 'app': No module named 'app'$/],
    [{ "app.py": "import nowhere" }, "app.handler", "Runtime.ImportModuleError", /No module named 'nowhere'$/],
    [{ "app.py": "" }, "app.handler", "Runtime.HandlerNotFound", /^Handler 'handler' missing on module 'app'$/],
    [{ "app.py": "def (" }, "app.handler", "Runtime.UserCodeSyntaxError", /^Syntax error in module 'app': /],
    [{ "app.py": "" }, "app", "Runtime.MalformedHandlerName", /^Bad handler 'app': not enough values to unpack/],
    [{ "app.py": "" }, "sys.exit", "Runtime.BuiltInModuleConflict", /^Cannot use built-in module sys/],
    [{ "app.py": "1 / 0" }, "app.handler", "ZeroDivisionError", /^division by zero$/],
  ];
  for (const [files, handler, type, message] of cases) {
    await using runtime = await start(files, handler);
    const answer = await runtime.answer();
    assert.equal(answer.path, "/init/error");
    assert.equal(answer.headers["lambda-runtime-function-error-type"], type);
    assert.match(String(bodyOf(answer)["errorMessage"]), message);
    assert.equal(await runtime.exited, 1);
  }
});

test("print and logging write Lambda's lines", async () => {
  const code = "import logging\nlog = logging.getLogger()\n";
  const handler = "def handler(e, c):\n  print('printed')\n  log.warning('two %s', 'words')\n  log.info('hidden')\n";
  await using text = await start(code + handler);
  await text.invoke({});
  assert.match(text.output, /^printed\n\[WARNING\]\t\d{4}-\d\d-\d\dT[\d:]{8}\.\d{3}Z\trequest-1\ttwo words\n$/);

  const json = { AWS_LAMBDA_LOG_FORMAT: "JSON", AWS_LAMBDA_LOG_LEVEL: "INFO" };
  const failing = "  try: 1 / 0\n  except Exception: log.exception('broke', extra={'k': 1})\n";
  await using structured = await start(code + handler + failing, "app.handler", json);
  await structured.invoke({});
  const [, ...records] = structured.output.trimEnd().split("\n");
  const [warning, info, error] = records.map((line) => JSON.parse(line) as Record<string, unknown>);
  assert.deepEqual([warning?.["level"], warning?.["message"]], ["WARNING", "two words"]);
  assert.deepEqual([info?.["level"], info?.["requestId"], info?.["logger"]], ["INFO", "request-1", "root"]);
  assert.deepEqual(
    [error?.["errorType"], error?.["errorMessage"], error?.["k"]],
    ["ZeroDivisionError", "division by zero", 1],
  );
});

test("logging that nobody imported before the handler runs is set up all the same", async () => {
  await using runtime = await start("def handler(e, c):\n  import logging\n  logging.error('late')\n");
  await runtime.invoke({});
  assert.match(runtime.output, /^\[ERROR\]\t\S+\trequest-1\tlate\n$/);
});

test("sys.exit in a handler ends the runtime with that code", async () => {
  await using runtime = await start("import sys\ndef handler(e, c): sys.exit(3)\n");
  await assert.rejects(runtime.invoke({}), /ended without an answer/);
  assert.equal(await runtime.exited, 3);
});

test("the AWS SDK is there", async () => {
  await using runtime = await start(
    "import boto3\ndef handler(e, c): return boto3.client('s3', region_name='eu-west-1').meta.region_name\n",
  );
  assert.equal((await runtime.invoke({})).body, '"eu-west-1"');
});
