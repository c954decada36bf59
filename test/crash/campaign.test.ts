import { rm } from "node:fs/promises";
import { test } from "node:test";
import { startHearth } from "../functional/hearth.ts";
import { Campaign } from "./campaign.ts";
import { drawPlan } from "./plans.ts";
import { Random } from "./random.ts";

/*
 * Hearth is killed at random moments and at chosen calls, under load and while it starts. HEARTH_SEED repeats a run's
 * plans, HEARTH_CRASH_ROUNDS makes it longer: `HEARTH_CRASH_ROUNDS=100 ./hearth test crash/campaign`.
 */
const ROUNDS = Number(process.env["HEARTH_CRASH_ROUNDS"] ?? 8);
const LONG = ROUNDS >= 50;

test(`killed ${ROUNDS} times, it loses nothing that it accepted and leaves nothing behind`, async (t) => {
  const random = new Random();
  t.diagnostic(`HEARTH_SEED=${random.seed}`);
  await using hearth = await startHearth();
  const campaign = new Campaign({ hearth, random, invocations: LONG ? 50 : 12, events: LONG ? 20 : 8 });
  try {
    await campaign.begin();
    for (let round = 1; round <= ROUNDS; round += 1) {
      const plan = drawPlan(random);
      try {
        await campaign.round(plan);
      } catch (error) {
        throw new Error(`Round ${round}, ${JSON.stringify(plan)}:\n${hearth.log.slice(-4_000)}`, { cause: error });
      }
    }
    await campaign.end();
    t.diagnostic(JSON.stringify(campaign.tally));
  } finally {
    await rm(campaign.preload, { force: true });
  }
});
