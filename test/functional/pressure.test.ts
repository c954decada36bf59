import assert from "node:assert/strict";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { LambdaServiceException } from "@aws-sdk/client-lambda";
import type { LambdaClient } from "@aws-sdk/client-lambda";
import { deploy } from "../../src/cli/deploy.ts";
import { deployProbe, invoke, zipOf } from "./functions.ts";
import { eventually, startHearth, startHearthBy } from "./hearth.ts";
import { MemoryGroup } from "./memory-group.ts";

test("nominal memory that is used up: idle slots give way, busy ones do not, and the client is told", async () => {
  await using hearth = await startHearth("--memory", "600", "--pool", "0");
  const client = hearth.client();
  for (const name of ["a", "b", "c"]) await deployProbe(client, name, { memoryMb: 256 });
  await invoke(client, "a");
  await invoke(client, "b");
  await invoke(client, "c");
  const names = (await hearth.slots()).map((slot) => slot.functionArn.at(-1) ?? "");
  assert.deepEqual(new Set(names), new Set(["b", "c"]));

  const busy = ["b", "c"].map((name) => invoke(client, name, { op: "sleep", ms: 3_000 }));
  await eventually("both are busy", async () =>
    (await hearth.slots()).filter((slot) => slot.state === "Busy").length === 2 ? true : null,
  );
  const refused = await invoke(client, "a").catch((error: unknown) => error);
  assert.ok(refused instanceof LambdaServiceException, JSON.stringify(refused));
  assert.equal(refused.name, "ServiceUnavailableException");
  assert.equal(refused.$metadata.httpStatusCode, 503);
  assert.match(refused.message, /has promised 512 of at most 600 MB of memory .* \(`--overcommit` or `--memory`\)/);
  for (const { error } of await Promise.all(busy)) assert.equal(error, undefined);
  assert.equal((await invoke(client, "a")).error, undefined);
});

const MIB = 1024 * 1024;
const LIMIT_MIB = 900;

/** Keeps what it is told to, so that an idle slot of it takes so much of the host; not faster than a worker can see. */
const KEEPER = `
import time
kept = []
def handler(event, context):
    time.sleep(event.get("wait", 0))
    while len(kept) < event["mb"] // 10:
        kept.append(bytearray(b"x") * (10 << 20))
        time.sleep(0.04)
    time.sleep(event.get("s", 0))
    return len(kept)
`;

const deployKeepers = async (client: LambdaClient, count: number): Promise<readonly string[]> => {
  const zip = await zipOf({ "app.py": KEEPER });
  const names = Array.from({ length: count }, (_, n) => `keeper-${n}`);
  for (const name of names) {
    await deploy(client, { name, zip, runtime: "python3.11", handler: "app.handler", memoryMb: 256, timeoutS: 60 });
  }
  return names;
};

test("in a control group with little memory idle slots give way, longest idle first, and all are served", async () => {
  await using group = new MemoryGroup(LIMIT_MIB * MIB);
  await using hearth = await startHearthBy(group.launcher, "--metrics", "127.0.0.1:0");
  const client = hearth.client();
  const names = await deployKeepers(client, 10);
  // Three times what the group may have, one after the other.
  for (const name of names) {
    const answer = await invoke(client, name, { mb: 180 });
    assert.equal(answer.value, 18, JSON.stringify(answer));
  }
  assert.equal(group.kills, 0);
  const warm = (await hearth.slots()).map((slot) => slot.functionArn.split(":").at(-1));
  assert.ok(warm.length >= 1 && warm.length <= 4, warm.join(" "));
  for (const name of warm) assert.ok(names.slice(-warm.length).includes(name ?? ""), warm.join(" "));
  const exposition = await (await fetch(hearth.about.metricsUrl ?? "")).text();
  assert.match(exposition, /^hearth_slots_ended_total\{reason="pressure"\} [6-9]$/m);
  assert.match(exposition, new RegExp(`^hearth_host_memory_bytes\\{worker="[^"]*"\\} ${LIMIT_MIB * MIB}$`, "m"));
});

test("when nothing is idle a new slot is refused, busy ones go on, and once they are through it is made", async () => {
  await using group = new MemoryGroup(LIMIT_MIB * MIB);
  await using hearth = await startHearthBy(group.launcher, "--pool", "0");
  const client = hearth.client();
  const names = await deployKeepers(client, 6);
  const running: Promise<{ readonly value: unknown }>[] = [];
  const refusals: LambdaServiceException[] = [];
  for (const name of names) {
    const invoked = invoke(client, name, { mb: 180, s: 12 });
    running.push(invoked);
    invoked.catch((error: unknown) => refusals.push(error as LambdaServiceException));
    // So that what it takes is seen before the next comes.
    await sleep(1_000);
  }
  const served = (await Promise.allSettled(running)).filter((each) => each.status === "fulfilled");
  assert.ok(served.length >= 2 && refusals.length >= 2, `${served.length} served, ${refusals.length} refused`);
  for (const { value } of served) assert.equal(value.value, 18);
  for (const { name, message, $metadata } of refusals) {
    assert.equal(name, "ServiceUnavailableException", message);
    assert.equal($metadata.httpStatusCode, 503);
    // Who says it depends on how short it is: Placement goes by the last report.
    assert.match(
      message,
      /^This worker is short of memory: \d+ of 900 MB are available|has memory left for one of 256 MB\. Try again later\.$/,
    );
  }
  assert.equal((await invoke(client, names.at(-1) ?? "", { mb: 180 })).value, 18);
  assert.equal(group.kills, 0);
});

test("busy functions that take more than there is: those that end are told why, and Hearth goes on", async () => {
  await using group = new MemoryGroup(LIMIT_MIB * MIB);
  await using hearth = await startHearthBy(group.launcher, "--pool", "0");
  const client = hearth.client();
  const names = await deployKeepers(client, 5);
  // All have a slot, and are small, before the first begins to take memory: starts take turns, and none may be late. What one that is killed had is not back at once, so the
  // kernel may well end more of them than it would have to.
  await Promise.all(names.map((name) => invoke(client, name, { mb: 10 })));
  const answers = await Promise.allSettled(
    names.map((name, at) => invoke(client, name, { mb: 220, wait: 1 + 0.6 * at, s: 8 })),
  );
  const failures: string[] = [];
  for (const answer of answers) {
    if (answer.status === "rejected") failures.push((answer.reason as Error).message);
    else assert.equal(answer.value.value, 22, JSON.stringify(answer.value));
  }
  assert.ok(failures.length >= 1, "there was enough for all");
  for (const failure of failures) {
    assert.match(
      failure,
      /^The microVM ended before the invocation did: The host's kernel killed a part of it for want of/,
    );
  }
  assert.ok(hearth.isRunning);
  assert.equal((await invoke(client, names[0] ?? "", { mb: 10 })).error, undefined);
});
