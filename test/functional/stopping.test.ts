import assert from "node:assert/strict";
import { mkdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { ListFunctionsCommand, LambdaServiceException } from "@aws-sdk/client-lambda";
import { deployProbe, invoke } from "./functions.ts";
import { eventually, startHearth } from "./hearth.ts";
import type { TestHearth } from "./hearth.ts";

const MS_PER_S = 1_000;

const busy = (hearth: TestHearth, count: number): Promise<true> =>
  eventually(`${count} slots are busy`, async () =>
    (await hearth.slots()).filter(({ state }) => state === "Busy").length === count ? true : null,
  );

const ask = async (hearth: TestHearth, path: string): Promise<readonly [status: number, answer: unknown]> => {
  const answer = await fetch(`${hearth.about.endpoint}${path}`);
  return [answer.status, await answer.json()];
};

test("a Hearth that is stopped says so, takes nothing new, and lets running calls end", async () => {
  await using hearth = await startHearth("--drain", "60");
  const client = hearth.client();
  await deployProbe(client, "slow", { timeoutS: 60 });
  assert.deepEqual(await ask(hearth, "/ready"), [200, { ready: true }]);
  const calls = Array.from({ length: 3 }, () => invoke(client, "slow", { op: "sleep", ms: 4_000 }));
  await busy(hearth, 3);
  process.kill(hearth.pid, "SIGTERM");
  await eventually("it is not ready", async () => ((await ask(hearth, "/ready"))[0] === 503 ? true : null));
  assert.deepEqual(await ask(hearth, "/ready"), [503, { ready: false, reasons: ["stopping"] }]);
  assert.deepEqual(await ask(hearth, "/health"), [200, { status: "ok" }]);
  await assert.rejects(hearth.client().send(new ListFunctionsCommand({})), (error) => {
    assert.ok(error instanceof LambdaServiceException, String(error));
    assert.deepEqual([error.name, error.$metadata.httpStatusCode], ["ServiceUnavailableException", 503]);
    assert.equal(error.$response?.headers["retry-after"], "5");
    return true;
  });
  await assert.rejects(invoke(client, "slow"), { name: "ServiceUnavailableException" });
  for (const answer of await Promise.all(calls)) assert.equal(answer.error, undefined, JSON.stringify(answer.value));
  await hearth.ended();
  assert.equal(await hearth.stop(), 0);
  await assert.rejects(fetch(`${hearth.about.endpoint}/health`));
});

test("a call that runs on after the time to drain is cut off; a second signal ends at once", async () => {
  await using hearth = await startHearth("--drain", "1");
  const client = hearth.client();
  await deployProbe(client, "slow", { timeoutS: 300 });
  const cut = invoke(client, "slow", { op: "sleep", ms: 300 * MS_PER_S });
  await busy(hearth, 1);
  const [answer] = await Promise.allSettled([cut, hearth.stop()]);
  assert.equal(answer.status, "rejected");

  await using patient = await startHearth("--drain", "1000");
  const other = patient.client();
  await deployProbe(other, "slow", { timeoutS: 300 });
  const lost = invoke(other, "slow", { op: "sleep", ms: 300 * MS_PER_S });
  await busy(patient, 1);
  process.kill(patient.pid, "SIGTERM");
  await eventually("it is being stopped", async () => ((await ask(patient, "/ready"))[0] === 503 ? true : null));
  const [second, code] = await Promise.allSettled([lost, patient.stop("SIGINT")]);
  assert.equal(second.status, "rejected");
  assert.deepEqual(code, { status: "fulfilled", value: 130 });
});

test("a Hearth that cannot write its data is healthy, and not ready", async () => {
  await using hearth = await startHearth();
  const place = join(hearth.dataDir, ".ready");
  assert.equal((await ask(hearth, "/ready"))[0], 200);
  await rm(place);
  await mkdir(place);
  await eventually("it is not ready", async () => ((await ask(hearth, "/ready"))[0] === 503 ? true : null));
  assert.deepEqual(await ask(hearth, "/ready"), [503, { ready: false, reasons: ["store"] }]);
  assert.deepEqual(await ask(hearth, "/health"), [200, { status: "ok" }]);
  await rm(place, { recursive: true });
  await eventually("it is ready again", async () => ((await ask(hearth, "/ready"))[0] === 200 ? true : null));
});
