import assert from "node:assert/strict";
import { test } from "node:test";
import { InvokeCommand } from "@aws-sdk/client-lambda";
import type { LambdaClient } from "@aws-sdk/client-lambda";
import { deploy } from "../../src/cli/deploy.ts";
import { invoke, zipOf } from "../functional/functions.ts";
import type { Answer } from "../functional/functions.ts";
import { eventually, startHearth } from "../functional/hearth.ts";
import { OtlpReceiver } from "./otlp-receiver.ts";
import type { ReceivedSpan } from "./otlp-receiver.ts";

const TRACE = "5759e988bd862e3fe1be46a994272793";
const SPAN = "53995c3f42cd8ad8";
const [SERVER, PRODUCER, CONSUMER] = [2, 4, 5];
const ERROR = 2;

/** Answers with the trace it is told of; fails when it is told to. */
const HANDLER = `export const handler = async (event) => {
  if (event.fail) throw new RangeError("as told");
  return process.env._X_AMZN_TRACE_ID;
};`;

const deployTraced = async (client: LambdaClient, name: string): Promise<void> => {
  const zip = await zipOf({ "index.mjs": HANDLER });
  await deploy(client, { name, zip, runtime: "nodejs24.x", handler: "index.handler", memoryMb: 256, timeoutS: 20 });
};

/** Invokes with further headers, as an instrumented client does. */
const invokeWith = async (
  client: LambdaClient,
  name: string,
  headers: Readonly<Record<string, string>>,
): Promise<Answer["value"]> => {
  const command = new InvokeCommand({ FunctionName: name, Payload: Buffer.from("{}") });
  command.middlewareStack.add(
    (next) => (args) => {
      Object.assign((args.request as { headers: Record<string, string> }).headers, headers);
      return next(args);
    },
    { step: "build" },
  );
  const answer = await client.send(command);
  return JSON.parse(Buffer.from(answer.Payload ?? []).toString()) as unknown;
};

/** Whole traces of invocations of that function, oldest first, once there are `count`. */
const tracesOf = (
  receiver: OtlpReceiver,
  name: string,
  count: number,
  last = "Lambda/Invoke",
): Promise<ReceivedSpan[][]> =>
  eventually(`${count} traces of ${name}`, async () => {
    const ids = new Set(receiver.spans.filter((span) => span.name === name).map((span) => span.traceId));
    const traces = [...ids].map((id) => receiver.spans.filter((span) => span.traceId === id));
    // The request's span ends last, and may come with a later batch than the others.
    const whole = traces.filter((trace) => trace.some((span) => span.name === last));
    return whole.length >= count ? whole.sort((a, b) => (startOf(a) < startOf(b) ? -1 : 1)) : null;
  });

const startOf = (trace: readonly ReceivedSpan[]): bigint =>
  trace.map((span) => span.startNs).reduce((least, start) => (start < least ? start : least));

const named = (trace: readonly ReceivedSpan[], name: string): ReceivedSpan => {
  const found = trace.filter((span) => span.name === name);
  assert.equal(found.length, 1, `${found.length} spans "${name}" among ${trace.map((span) => span.name).join(", ")}`);
  return found[0] as ReceivedSpan;
};

/** The trace as a tree of names, children in the order of their starts. */
const treeOf = (trace: readonly ReceivedSpan[], parentId: string): unknown[] =>
  trace
    .filter((span) => span.parentId === parentId)
    .sort((a, b) => (a.startNs < b.startNs ? -1 : 1))
    .map((span) => {
      const below = treeOf(trace, span.spanId);
      return below.length === 0 ? span.name : ([span.name] as unknown[]).concat(below);
    });

const assertNested = (trace: readonly ReceivedSpan[]): void => {
  for (const span of trace) {
    assert.ok(span.startNs <= span.endNs, span.name);
    for (const { name, timeNs } of span.events) assert.ok(timeNs >= span.startNs && timeNs <= span.endNs, name);
    const parent = trace.find((other) => other.spanId === span.parentId);
    if (parent === undefined) continue;
    assert.ok(span.startNs >= parent.startNs, `${span.name} begins before ${parent.name}`);
    // A slot starts on its own: the reservation does not wait for it.
    if (span.name !== "start slot") assert.ok(span.endNs <= parent.endNs, `${span.name} ends after ${parent.name}`);
  }
};

test("an invocation is one trace, from the client's span to the function", async () => {
  await using receiver = await OtlpReceiver.start();
  await using hearth = await startHearth("--otlp", receiver.endpoint);
  const client = hearth.client();
  await deployTraced(client, "traced");

  const told = String((await invoke(client, "traced")).value);
  await invoke(client, "traced");
  const [cold = [], warm = []] = await tracesOf(receiver, "traced", 2);
  for (const trace of [cold, warm]) assertNested(trace);

  // Whether it had to be booted is up to the pool.
  const [coldTree] = treeOf(
    cold.filter((span) => span.name !== "boot microVM"),
    "",
  );
  assert.deepEqual(coldTree, [
    "Lambda/Invoke",
    ["reserve slot", "place", ["start slot", "take microVM", "attach drives", "init"]],
    ["traced", "wait for init", "run"],
    "release slot",
  ]);
  assert.deepEqual(treeOf(warm, ""), [["Lambda/Invoke", "reserve slot", ["traced", "run"], "release slot"]]);

  const run = named(cold, "run");
  assert.equal(told, `Root=1-${run.traceId.slice(0, 8)}-${run.traceId.slice(8)};Parent=${run.spanId};Sampled=1`);
  assert.deepEqual(
    run.events.map(({ name }) => name),
    ["answer begins", "answer is complete"],
  );
  const request = named(cold, "Lambda/Invoke");
  assert.equal(request.kind, SERVER);
  assert.equal(request.attributes["http.response.status_code"], 200);
  assert.equal(request.resource["service.name"], "hearth");
  const invoked = named(cold, "traced");
  assert.equal(invoked.kind, SERVER);
  assert.equal(invoked.attributes["faas.coldstart"], true);
  assert.equal(named(warm, "traced").attributes["faas.coldstart"], false);
  assert.equal(invoked.attributes["faas.name"], "traced");
  assert.equal(invoked.attributes["faas.version"], "$LATEST");
  assert.equal(invoked.attributes["faas.invocation.id"], request.attributes["aws.request_id"]);
  assert.equal(invoked.attributes["faas.max_memory"], 256 * 1024 * 1024);
  assert.match(String(named(cold, "take microVM").attributes["hearth.pool"]), /^(none|bare|prepared)$/);

  // The client's own trace goes on, by either header; W3C's counts first.
  const w3c = `00-${TRACE}-${SPAN}-01`;
  const root = `Root=1-${TRACE.slice(0, 8)}-${TRACE.slice(8)}`;
  const own = {
    traceparent: w3c,
    tracestate: "vendor=1",
    "x-amzn-trace-id": "Root=1-5759e988-000000000000000000000001",
  };
  assert.ok(String(await invokeWith(client, "traced", own)).startsWith(`${root};Parent=`));
  const continued = (await tracesOf(receiver, "traced", 3)).find((trace) => trace[0]?.traceId === TRACE) ?? [];
  assert.equal(named(continued, "Lambda/Invoke").parentId, SPAN);
  assert.equal(named(continued, "run").traceState, "vendor=1");
  const amzn = { "x-amzn-trace-id": "Root=1-5759e988-000000000000000000000002;Parent=53995c3f42cd8ad9;Sampled=1" };
  await invokeWith(client, "traced", amzn);
  const byAmzn = (await tracesOf(receiver, "traced", 4)).find((trace) => trace[0]?.traceId.endsWith("0002")) ?? [];
  assert.equal(named(byAmzn, "Lambda/Invoke").parentId, "53995c3f42cd8ad9");

  // Not sampled by the client, not sent; the function is told so.
  const before = receiver.spans.length;
  const unsampled = String(await invokeWith(client, "traced", { traceparent: w3c.replace(/01$/, "00") }));
  assert.match(unsampled, /;Sampled=0$/);
  assert.equal((await invoke(client, "traced", { fail: true })).error, "Unhandled");
  const failed = (await tracesOf(receiver, "traced", 5)).at(-1) ?? [];
  assert.equal(named(failed, "traced").status, ERROR);
  assert.match(String(named(failed, "traced").attributes["error.type"]), /^(Runtime|Function)\./);
  assert.equal(named(failed, "Lambda/Invoke").status, 0, "the service did not fail");
  assert.ok(receiver.spans.slice(before).every((span) => span.traceId !== TRACE));
});

test("an asynchronous invocation's attempts belong to the trace that sent it, and are linked with it", async () => {
  await using receiver = await OtlpReceiver.start();
  await using hearth = await startHearth("--otlp", receiver.endpoint);
  const client = hearth.client();
  await deployTraced(client, "queued");
  const answer = await client.send(
    new InvokeCommand({ FunctionName: "queued", InvocationType: "Event", Payload: Buffer.from("{}") }),
  );
  const [trace = []] = await tracesOf(receiver, "queued", 1, "process queued");
  assertNested(trace.filter((span) => span.name !== "process queued"));
  const sent = named(trace, "send queued");
  const processed = named(trace, "process queued");
  assert.deepEqual([sent.kind, processed.kind], [PRODUCER, CONSUMER]);
  assert.equal(processed.parentId, sent.spanId);
  assert.deepEqual(processed.links, [{ traceId: sent.traceId, spanId: sent.spanId }]);
  assert.equal(processed.attributes["messaging.message.id"], answer.$metadata.requestId);
  assert.equal(processed.attributes["hearth.outcome"], "done");
  assert.equal(named(trace, "queued").parentId, processed.spanId);
  assert.ok(processed.startNs >= sent.startNs);
});

test("a receiver that refuses, or that is not there, disturbs no invocation", async () => {
  await using receiver = await OtlpReceiver.start();
  receiver.status = 400;
  process.env["OTEL_EXPORTER_OTLP_ENDPOINT"] = receiver.endpoint;
  process.env["OTEL_EXPORTER_OTLP_HEADERS"] = "x-key=secret";
  await using hearth = await startHearth();
  delete process.env["OTEL_EXPORTER_OTLP_ENDPOINT"];
  delete process.env["OTEL_EXPORTER_OTLP_HEADERS"];
  const client = hearth.client();
  await deployTraced(client, "undisturbed");
  assert.equal((await invoke(client, "undisturbed")).error, undefined);
  await eventually("the refusal is told", async () =>
    hearth.log.includes("spans could not be sent and are lost") ? true : null,
  );
  assert.equal(receiver.requests[0]?.path, "/v1/traces");
  assert.equal(receiver.requests[0]?.headers["x-key"], "secret");
  await receiver[Symbol.asyncDispose]();
  for (let n = 0; n < 3; n += 1) assert.equal((await invoke(client, "undisturbed")).error, undefined);
  assert.equal(await hearth.stop(), 0);
});
