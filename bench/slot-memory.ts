import { setTimeout as sleep } from "node:timers/promises";
import { deploy } from "../src/cli/deploy.ts";
import type { Result } from "./result.ts";
import { call, nodeFunction } from "./invoke.ts";
import type { InvokeBench } from "./invoke.ts";
import { memoryAvailable } from "./machine.ts";
import { parallel, round } from "./statistics.ts";

const SLOTS = 24;
/** Long enough that no slot serves twice. */
const HOLD_MS = 8_000;
const SETTLE_MS = 3_000;
const HANDLER =
  "export const handler = async ({ ms }) => { await new Promise((resolve) => setTimeout(resolve, ms)); return { ok: true }; };";

/** Host memory of a warm Node slot that waits for its next invocation, everything counted: MemAvailable before and after many. */
export const slotMemory: InvokeBench = async ({ unpooled }): Promise<Result> => {
  const name = "slot-memory";
  await deploy(unpooled, await nodeFunction(name, HANDLER));
  // The first one brings what all of them share into the host's page cache.
  await call(unpooled, name, '{"ms":0}');
  await sleep(SETTLE_MS);
  const before = await memoryAvailable();
  await parallel(SLOTS, SLOTS, async () => void (await call(unpooled, name, JSON.stringify({ ms: HOLD_MS }))));
  await sleep(SETTLE_MS);
  // One of them was there before.
  return { slots: SLOTS, mbEach: round((before - (await memoryAvailable())) / (SLOTS - 1) / 2 ** 20), nominalMb: 256 };
};
