import assert from "node:assert/strict";
import { join } from "node:path";
import { after, test } from "node:test";
import { runtimeOf } from "../../src/runtimes/catalog.ts";
import { extractImage } from "./extract-image.ts";
import { RuntimeUnderTest } from "./runtime-api-double.ts";

// What differs from Node 24: callbacks, and the end of an invocation by an empty event loop.
const image = await extractImage("nodejs22.x");
after(() => image[Symbol.asyncDispose]());
const [node, ...args] = runtimeOf("nodejs22.x").argv.map((part) =>
  part.startsWith("/") ? join(image.path, part) : part,
);

async function start(code: string, name = "index.js"): Promise<RuntimeUnderTest> {
  assert.ok(node !== undefined);
  return await RuntimeUnderTest.start([node, ...args], { [name]: code }, "index.handler");
}

test("a callback answers, with a result or an error", async () => {
  await using runtime = await start(
    "exports.handler = (e, c, callback) => setTimeout(() => callback(e.fail ? new TypeError('no') : null, { ok: 1 }), 1);",
  );
  assert.equal((await runtime.invoke({})).body, '{"ok":1}');
  const failed = await runtime.invoke({ fail: true });
  assert.equal(failed.path, "/invocation/request-2/error");
  assert.equal((JSON.parse(failed.body) as Record<string, unknown>)["errorType"], "TypeError");
  assert.equal((await runtime.invoke({})).body, '{"ok":1}');
});

test("after the callback the answer waits for an empty event loop, unless that is declined", async () => {
  await using runtime = await start(`exports.handler = (event, context, callback) => {
    context.callbackWaitsForEmptyEventLoop = event.wait; const result = { late: false };
    setTimeout(() => (result.late = true), 30); callback(null, result); };`);
  assert.equal((await runtime.invoke({ wait: true })).body, '{"late":true}');
  assert.equal((await runtime.invoke({ wait: false })).body, '{"late":false}');
});

test("a handler that neither calls back nor returns a promise answers null when nothing is left to do", async () => {
  await using runtime = await start("exports.handler = () => { setTimeout(() => {}, 5); return 'ignored'; };");
  assert.equal((await runtime.invoke({})).body, "null");
  assert.equal((await runtime.invoke({})).body, "null");
});

test("context.succeed, fail and done answer, and only the first counts", async () => {
  await using runtime = await start(`exports.handler = (e, c) => { if (e === 1) c.succeed('s'); 
    if (e === 2) c.fail(new Error('f')); if (e === 3) { c.done(null, 'd'); c.succeed('again'); } };`);
  assert.equal((await runtime.invoke(1)).body, '"s"');
  assert.equal((await runtime.invoke(2)).path, "/invocation/request-2/error");
  assert.equal((await runtime.invoke(3)).body, '"d"');
  assert.equal((await runtime.invoke(1)).body, '"s"');
});

test("a promise that never settles answers null, an async result answers as ever", async () => {
  await using runtime = await start("exports.handler = async (e) => (e === 1 ? new Promise(() => {}) : 'done');");
  assert.equal((await runtime.invoke(1)).body, "null");
  assert.equal((await runtime.invoke(2)).body, '"done"');
});

test("an ES module in a .js file that nothing declares is a syntax error, as on Lambda", async () => {
  await using runtime = await start("export const handler = async () => 1;");
  const answer = await runtime.answer();
  assert.equal(answer.headers["lambda-runtime-function-error-type"], "Runtime.UserCodeSyntaxError");
  assert.equal(await runtime.exited, 129);
});
