import { DeleteFunctionCommand } from "@aws-sdk/client-lambda";
import type { LambdaClient } from "@aws-sdk/client-lambda";
import { setTimeout as sleep } from "node:timers/promises";
import { deploy } from "../src/cli/deploy.ts";
import type { Result } from "./result.ts";
import { call, nodeFunction, WARM_UP_CALLS } from "./invoke.ts";
import type { InvokeBench } from "./invoke.ts";
import { percentile, round, timed } from "./statistics.ts";

/*
 * How much one function slows down another: warm calls of a quiet function alone, then beside a function that takes all
 * it can get of one thing. The rounds alternate, and each figure is the ratio to the quiet function alone in the same
 * run, so that a machine that is busy with something else spoils both sides alike.
 */

const ROUNDS = 3;
const CALLS_PER_ROUND = 150;
/** A greedy call outlasts the calls that are measured beside it, and the next round waits for its end. */
const GREED_MS = 4_000;
/** The greedy function is at full speed before anything is measured. */
const LEAD_MS = 500;

/** Each runs for `event.ms`. The flood goes to the guest's gateway, where the host's rules drop it: nothing leaves the machine. */
const GREEDY = `
import { closeSync, fsyncSync, openSync, readFileSync, writeSync } from "node:fs";
import { createSocket } from "node:dgram";
import { setTimeout as sleep } from "node:timers/promises";
const until = (ms, step) => { for (const end = Date.now() + ms; Date.now() < end;) step(); };
const gateway = () => {
  const line = readFileSync("/proc/net/route", "utf8").split("\\n").map((each) => each.split("\\t")).find((each) => each[1] === "00000000");
  return [6, 4, 2, 0].map((at) => parseInt(line[2].slice(at, at + 2), 16)).join(".");
};
const greeds = {
  cpu: (ms) => until(ms, () => {}),
  output: (ms) => { const lines = Buffer.from("y\\n".repeat(32768)); until(ms, () => { try { writeSync(1, lines); } catch {} }); },
  fsync: (ms) => {
    const block = Buffer.alloc(1 << 20, 1);
    const file = openSync("/tmp/greedy", "w");
    let at = 0;
    until(ms, () => { writeSync(file, block, 0, block.length, at); fsyncSync(file); at = (at + block.length) % (64 << 20); });
    closeSync(file);
  },
  write: (ms) => {
    const block = Buffer.alloc(1 << 20, 1);
    const file = openSync("/tmp/greedy", "w");
    let at = 0;
    until(ms, () => { writeSync(file, block, 0, block.length, at); at = (at + block.length) % (256 << 20); });
    closeSync(file);
  },
  network: async (ms) => {
    const socket = createSocket("udp4");
    const address = gateway();
    const packet = Buffer.alloc(1200, 1);
    for (const end = Date.now() + ms; Date.now() < end;)
      await Promise.all(Array.from({ length: 64 }, () => new Promise((resolve) => socket.send(packet, 9, address, resolve))));
    socket.close();
  },
};
export const handler = async (event) => { if (event.greed !== undefined) await greeds[event.greed](event.ms); await sleep(0); return { ok: true }; };
`;

const GREEDS = ["cpu", "fsync", "write", "output", "network"] as const;

/** p50 of warm calls, in ms. */
const p50Ms = async (client: LambdaClient, name: string): Promise<number> => {
  const timesMs: number[] = [];
  for (let n = 0; n < CALLS_PER_ROUND; n += 1) timesMs.push(await timed(() => call(client, name)));
  return percentile(timesMs, 0.5);
};

/** The same while another function is greedy; resolves when that has ended too. */
const p50MsBeside = async (client: LambdaClient, quiet: string, greedy: string, greed: string): Promise<number> => {
  const running = call(client, greedy, JSON.stringify({ greed, ms: GREED_MS }));
  await sleep(LEAD_MS);
  const [measured] = await Promise.all([p50Ms(client, quiet), running]);
  return measured;
};

export const neighbours: InvokeBench = async ({ pooled }) => {
  const quiet = "neighbour-quiet";
  const greedy = "neighbour-greedy";
  await deploy(pooled, await nodeFunction(quiet));
  await deploy(pooled, { ...(await nodeFunction(greedy, GREEDY)), memoryMb: 512 });
  for (let n = 0; n < WARM_UP_CALLS; n += 1) await call(pooled, quiet);
  await call(pooled, greedy);
  const alone: number[] = [];
  const beside = new Map<string, number[]>(GREEDS.map((greed) => [greed, []]));
  for (let round = 0; round < ROUNDS; round += 1) {
    alone.push(await p50Ms(pooled, quiet));
    for (const greed of GREEDS) beside.get(greed)?.push(await p50MsBeside(pooled, quiet, greedy, greed));
  }
  for (const FunctionName of [quiet, greedy]) await pooled.send(new DeleteFunctionCommand({ FunctionName }));
  return figures(alone, beside);
};

const figures = (alone: readonly number[], beside: ReadonlyMap<string, readonly number[]>): Result => {
  const aloneMs = percentile(alone, 0.5);
  const result: Record<string, number> = { rounds: ROUNDS, aloneP50Ms: round(aloneMs) };
  for (const [greed, valuesMs] of beside) {
    const measuredMs = percentile(valuesMs, 0.5);
    result[`${greed}P50Ms`] = round(measuredMs);
    result[`${greed}Ratio`] = round(measuredMs / aloneMs);
  }
  return result;
};
