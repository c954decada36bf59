import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { text } from "node:stream/consumers";
import { test } from "node:test";
import { InvokeCommand, PutFunctionConcurrencyCommand } from "@aws-sdk/client-lambda";
import { parseSamples } from "../../src/telemetry/prometheus-text.ts";
import { deployProbe, invoke } from "../functional/functions.ts";
import { eventually, startHearth } from "../functional/hearth.ts";

/** `promtool check metrics` of Prometheus itself, where it is installed: what it says, or null. */
const promtool = async (exposition: string): Promise<string | null> => {
  const child = spawn("promtool", ["check", "metrics"], { stdio: ["pipe", "pipe", "pipe"] });
  const failed = once(child, "error").then(() => null);
  child.stdin.on("error", () => {}).end(exposition);
  const said = Promise.all([text(child.stdout), text(child.stderr), once(child, "close")]);
  const ended = await Promise.race([said, failed]);
  return ended === null ? null : ended[0] + ended[1];
};

test("a real Hearth's metrics tell what happened in it, and no function's name", async () => {
  await using hearth = await startHearth("--metrics", "127.0.0.1:0");
  const url = hearth.about.metricsUrl ?? "";
  const client = hearth.client();
  const scrape = async (): Promise<string> => {
    const answer = await fetch(url);
    assert.equal(answer.status, 200);
    assert.match(answer.headers.get("content-type") ?? "", /^text\/plain; version=0\.0\.4/);
    return answer.text();
  };
  const sum = async (name: string, labels: Readonly<Record<string, string>> = {}): Promise<number> =>
    parseSamples(await scrape())
      .filter((sample) => sample.name === name)
      .filter((sample) => Object.entries(labels).every(([key, value]) => sample.labels[key] === value))
      .reduce((total, sample) => total + sample.value, 0);

  await deployProbe(client, "pineapple");
  for (let n = 0; n < 3; n += 1) await invoke(client, "pineapple");
  await invoke(client, "pineapple", { op: "throw", message: "as told" });
  await client.send(
    new InvokeCommand({ FunctionName: "pineapple", InvocationType: "Event", Payload: Buffer.from("{}") }),
  );
  await eventually("the event is done", async () =>
    (await sum("hearth_events_total", { outcome: "done" })) === 1 ? true : null,
  );
  await client.send(new PutFunctionConcurrencyCommand({ FunctionName: "pineapple", ReservedConcurrentExecutions: 0 }));
  await assert.rejects(invoke(client, "pineapple"), { name: "TooManyRequestsException" });

  const exposition = await scrape();
  assert.deepEqual(
    await Promise.all([
      sum("hearth_invoke_seconds_count", { start: "cold", result: "success" }),
      sum("hearth_invoke_seconds_count", { start: "warm", result: "success" }),
      sum("hearth_invoke_seconds_count", { start: "warm", result: "function-error" }),
      sum("hearth_invoke_seconds_count", { result: "throttled" }),
      sum("hearth_reserve_seconds_count", { outcome: "cold" }),
      sum("hearth_reserve_seconds_count", { outcome: "warm" }),
      sum("hearth_throttles_total", { reason: "ReservedFunctionConcurrentInvocationLimitExceeded" }),
      sum("hearth_init_seconds_count", { outcome: "ready" }),
      sum("hearth_placement_seconds_count"),
      sum("hearth_pool_total"),
      sum("hearth_slots"),
      sum("hearth_events_total", { outcome: "accepted" }),
      sum("hearth_events_waiting"),
      sum("hearth_concurrent_executions"),
      sum("hearth_http_requests_total", { operation: "Invoke", status: "200" }),
      sum("hearth_http_requests_total", { operation: "Invoke", status: "202" }),
      sum("hearth_http_requests_total", { operation: "Invoke", status: "429" }),
      sum("hearth_http_requests_total", { operation: "CreateFunction" }),
    ]),
    [1, 3, 1, 1, 1, 4, 1, 1, 1, 1, 1, 1, 0, 0, 4, 1, 1, 1],
  );
  assert.ok((await sum("hearth_boot_seconds_count", { outcome: "ready" })) >= 1);
  const mb = 1024 * 1024;
  assert.equal(await sum("hearth_memory_committed_bytes"), 256 * mb);
  assert.ok((await sum("hearth_slots_memory_bytes")) > mb);
  assert.ok((await sum("process_cpu_seconds_total")) > 0);

  assert.ok(!exposition.includes("pineapple"));
  assert.ok(parseSamples(exposition).length < 600, `${parseSamples(exposition).length} series`);
  // It dislikes the names of three of prom-client's own metrics.
  const said = (await promtool(exposition))?.split("\n").filter((line) => line !== "" && !line.startsWith("nodejs_"));
  assert.deepEqual(said ?? [], []);
  assert.equal((await fetch(new URL("/", url))).status, 404);
});
