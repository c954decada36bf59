import type { Random } from "../../src/lib/random.ts";
import type { Fault, Plan, PlannedFunction, PlannedWork } from "./plan.ts";

const SPAN_MS = 20_000;
const STEP_MS_MAX = 7_200_000;
/** All of the crowd at once is within these. */
const ACCOUNT_CONCURRENCY = 600;
const SLOTS_MAX = 700;
const CROWD_TIMEOUT_S = 30;
const CROWD_CALL_MS_MAX = 2_000;
const CROWD_EVENT_MS = 25_000;
const QUIET_MS_MAX = 300;
const QUIET_TIMEOUT_S = 5;
const QUIET_FUNCTIONS_MAX = 3;

/**
 * How long a call or event of another function may wait. Its own start takes 0.23 s of a CPU at most, which it shares with
 * two or three others for each CPU: 0.92 s. In front of it may be the starts of the other quiet functions, one each, and
 * one of its own. How large the crowd is does not matter.
 */
const QUIET_WAIT_MS_MAX = 5_000;

/**
 * Draws a machine on which one function is asked for hundreds of times at once, in cold calls and in events that run for
 * 25 s, while others are called now and then. Nothing goes wrong, but for the clock that somebody sets.
 */
export const drawCrowd = (random: Random): Plan => {
  const below = (count: number): number => Math.floor(random() * count);
  const quiet = Array.from({ length: 1 + below(QUIET_FUNCTIONS_MAX) }, (_, at): PlannedFunction => ({
    name: `quiet${at}`,
    timeoutS: QUIET_TIMEOUT_S,
    reserved: null,
    reuse: below(3) === 0 ? "never" : "always",
  }));
  const crowd: PlannedFunction = { name: "crowd", timeoutS: CROWD_TIMEOUT_S, reserved: null, reuse: "always" };
  const work: PlannedWork[] = [];
  const add = (functionName: string, atMs: number, asynchronous: boolean, ms: number): void => {
    work.push({ atMs, functionName, asynchronous, isHopeless: false, order: { n: work.length, ms, fail: false } });
  };
  const burstMs = random() * (SPAN_MS / 2);
  for (let n = 200 + below(150); n > 0; n -= 1) add(crowd.name, burstMs, false, 1 + below(CROWD_CALL_MS_MAX));
  for (let n = 50 + below(150); n > 0; n -= 1) add(crowd.name, random() * burstMs, true, CROWD_EVENT_MS);
  for (let n = 6 + below(8); n > 0; n -= 1) {
    const { name } = quiet[below(quiet.length)] ?? crowd;
    add(name, burstMs + random() * SPAN_MS, below(2) === 0, 1 + below(QUIET_MS_MAX));
  }
  const faults = Array.from({ length: below(3) }, (): { readonly atMs: number; readonly fault: Fault } => ({
    atMs: random() * SPAN_MS,
    fault: { kind: "wall", byMs: below(2 * STEP_MS_MAX) - STEP_MS_MAX },
  }));
  return {
    isCalm: true,
    cpus: 1 + below(4),
    accountConcurrency: ACCOUNT_CONCURRENCY,
    slotsMax: SLOTS_MAX,
    waitMsMax: new Map(quiet.map(({ name }) => [name, QUIET_WAIT_MS_MAX])),
    functions: [...quiet, crowd],
    work,
    faults,
  };
};
