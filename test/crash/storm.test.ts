import assert from "node:assert/strict";
import { test } from "node:test";
import { deploy } from "../../src/cli/deploy.ts";
import { getStats } from "../../src/daemon/control.ts";
import { invoke } from "../functional/functions.ts";
import { eventually, startHearth } from "../functional/hearth.ts";
import type { TestHearth } from "../functional/hearth.ts";
import { MarkedCodes } from "./code.ts";
import { ownerName } from "./processes.ts";
import { assertNothingLeft } from "./remains.ts";

/*
 * Hearth is killed while it starts many microVMs. What is left of them (processes that are still to give their memory back,
 * control groups, directories) is cleared away beside the loop: the next Hearth answers about as soon as after a clean end.
 */
const NAME = "f";
const SLOTS = 60;
/** Some of the microVMs run, and others are still being made. */
const RUNNING = 16;
const WORK_MS = 20_000;
/** Of the time of a clean start. What is killed takes part of the CPU time that the start needs. */
const CLEAN_STARTS_MAX = 4;
const SERVED = /"time":"([^"]+)"[^\n]*the Lambda API is served/g;

/** How long a start takes until the API is served, by what the log says. */
const startMs = async (hearth: TestHearth): Promise<number> => {
  const beganMs = Date.now();
  await hearth.start();
  const [, time = ""] = [...hearth.log.matchAll(SERVED)].at(-1) ?? [];
  return Date.parse(time) - beganMs;
};

test("killed in a storm of starts, it serves again about as soon as after a clean end", async (t) => {
  await using hearth = await startHearth("--pool", "0");
  const client = hearth.client();
  const { zip } = await new MarkedCodes().make("m");
  await deploy(client, { name: NAME, zip, runtime: "provided.al2023", handler: "bootstrap", timeoutS: 60 });
  await hearth.stop();
  const cleanMs = await startMs(hearth);
  const owner = ownerName(hearth.pid);
  const again = hearth.client();
  const calls = Array.from({ length: SLOTS }, () => invoke(again, NAME, { ms: WORK_MS }).catch(() => null));
  await eventually("the storm", async () => ((await getStats(hearth.dataDir)).worker.slots >= RUNNING ? true : null));
  await hearth.stop("SIGKILL");
  const stormMs = await startMs(hearth);
  t.diagnostic(JSON.stringify({ cleanMs, stormMs }));
  await assertNothingLeft(hearth.dataDir, [owner]);
  const answer = await invoke(hearth.client(), NAME);
  assert.equal(answer.error, undefined);
  assert.ok(stormMs <= CLEAN_STARTS_MAX * cleanMs, `${stormMs} ms, ${cleanMs} ms after a clean end`);
  await Promise.all(calls);
});
