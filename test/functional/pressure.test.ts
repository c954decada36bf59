import assert from "node:assert/strict";
import { test } from "node:test";
import { LambdaServiceException } from "@aws-sdk/client-lambda";
import { deployProbe, invoke } from "./functions.ts";
import { eventually, startHearth } from "./hearth.ts";

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
