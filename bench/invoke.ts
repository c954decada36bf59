import { DeleteFunctionCommand, InvokeCommand } from "@aws-sdk/client-lambda";
import type { LambdaClient } from "@aws-sdk/client-lambda";
import { execFile } from "node:child_process";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { ZipFile } from "yazl";
import { buffer } from "node:stream/consumers";
import { readCode } from "../src/cli/code.ts";
import { deploy } from "../src/cli/deploy.ts";
import type { Deployment } from "../src/cli/deploy.ts";
import { PAYLOAD_BYTES_MAX } from "../src/wire/limits.ts";
import type { Result } from "./result.ts";
import { parallel, round, spread, timed } from "./statistics.ts";

/** What the benches of the service get: one Hearth with a filled pool, one without any. */
export interface InvokeParts {
  readonly pooled: LambdaClient;
  readonly unpooled: LambdaClient;
  /** Process of the one without. */
  readonly unpooledPid: number;
  /** Where a program may be compiled to. */
  readonly scratch: string;
}

export type InvokeBench = (parts: InvokeParts) => Promise<Result | null>;

const EXAMPLES = fileURLToPath(new URL("../examples/functions/", import.meta.url));
const COLD_CALLS = 30;
const WARM_CALLS = 500;
export const WARM_UP_CALLS = 50;
export const CLIENTS = 8;
const THROUGHPUT_CALLS = 2_000;
const BIG_CALLS = 10;
const NEVER_CALLS = 500;
/** The pool refills between cold starts, as it would between those of real traffic. */
const POOL_REFILL_MS = 150;

const HANDLER = "export const handler = async (event) => (event.length ? 'x'.repeat(event.length) : { ok: true });";

/** The function that the bare process runs too (peers.ts). */
export const nodeFunction = async (name: string, code: string = HANDLER): Promise<Deployment> => {
  const archive = new ZipFile();
  archive.addBuffer(Buffer.from(code), "index.mjs");
  archive.end();
  const zip = await buffer(archive.outputStream);
  return { name, zip, runtime: "nodejs24.x", handler: "index.handler", memoryMb: 256, timeoutS: 30 };
};

/** The C example, compiled; null where that cannot be. */
export const nativeFunction = async (name: string, scratch: string): Promise<Deployment | null> => {
  const program = join(scratch, "bootstrap");
  try {
    await promisify(execFile)("cc", ["-O2", "-static", "-o", program, join(EXAMPLES, "bootstrap-c", "bootstrap.c")]);
  } catch {
    return null;
  }
  const { zip } = await readCode(program);
  return { name, zip, runtime: "provided.al2023", handler: "bootstrap" };
};

/** Calls a function; resolves to the length of its answer. Throws when it failed. */
export const call = async (client: LambdaClient, name: string, payload: string | Buffer = "{}"): Promise<number> => {
  const Payload = Buffer.from(payload);
  const answer = await client.send(new InvokeCommand({ FunctionName: name, Payload }));
  if (answer.FunctionError !== undefined) {
    throw new Error(
      `${name} failed: ${Buffer.from(answer.Payload ?? [])
        .toString()
        .slice(0, 300)}`,
    );
  }
  return answer.Payload?.length ?? 0;
};

/** Every call is cold, because the function is used once for each microVM (`reuse: never`). */
const coldCalls = async (client: LambdaClient, wanted: Deployment, pauseMs: number): Promise<number[]> => {
  await deploy(client, { ...wanted, reuse: "never" });
  await call(client, wanted.name);
  const timesMs: number[] = [];
  for (let n = 0; n < COLD_CALLS; n += 1) {
    await sleep(pauseMs);
    timesMs.push(await timed(() => call(client, wanted.name)));
  }
  await client.send(new DeleteFunctionCommand({ FunctionName: wanted.name }));
  return timesMs;
};

const coldBoth = async (parts: InvokeParts, wanted: Deployment): Promise<Result> => {
  const { n, p50Ms = 0, p99Ms = 0 } = spread(await coldCalls(parts.pooled, wanted, POOL_REFILL_MS));
  const empty = spread(await coldCalls(parts.unpooled, wanted, 0));
  return { n: n ?? 0, p50Ms, p99Ms, emptyPoolP50Ms: empty["p50Ms"] ?? 0, emptyPoolP99Ms: empty["p99Ms"] ?? 0 };
};

export const coldNative: InvokeBench = async (parts) => {
  const wanted = await nativeFunction("cold-native", parts.scratch);
  return wanted === null ? null : coldBoth(parts, wanted);
};

export const coldNode: InvokeBench = async (parts) => coldBoth(parts, await nodeFunction("cold-node"));

/** Every invocation in a fresh microVM, as many as there can be: by several clients without a pause. */
export const reuseNever: InvokeBench = async ({ pooled, scratch }) => {
  const wanted = await nativeFunction("reuse-never", scratch);
  if (wanted === null) return null;
  await deploy(pooled, { ...wanted, reuse: "never" });
  const once = async (): Promise<number> => timed(() => call(pooled, wanted.name));
  // The pool learns what is wanted.
  await parallel(CLIENTS * 2, CLIENTS, async () => void (await once()));
  const timesMs: number[] = [];
  const totalMs = await timed(() => parallel(NEVER_CALLS, CLIENTS, async () => void timesMs.push(await once())));
  await pooled.send(new DeleteFunctionCommand({ FunctionName: wanted.name }));
  return { ...spread(timesMs), clients: CLIENTS, perSecond: round(NEVER_CALLS / (totalMs / 1000)) };
};

/** Deploys a Node function and warms it up; resolves to its name. */
export const warm = async (client: LambdaClient): Promise<string> => {
  const name = "warm-node";
  await deploy(client, await nodeFunction(name));
  for (let n = 0; n < WARM_UP_CALLS; n += 1) await call(client, name);
  return name;
};

export const warmNode: InvokeBench = async ({ pooled }) => {
  const name = await warm(pooled);
  const timesMs: number[] = [];
  for (let n = 0; n < WARM_CALLS; n += 1) timesMs.push(await timed(() => call(pooled, name)));
  return spread(timesMs);
};

/** So many invocations by CLIENTS clients at once. */
export const invokeMany = (client: LambdaClient, name: string, calls: number): Promise<void> =>
  parallel(calls, CLIENTS, async () => void (await call(client, name)));

export const throughput: InvokeBench = async ({ pooled }) => {
  const name = await warm(pooled);
  await invokeMany(pooled, name, CLIENTS * WARM_UP_CALLS);
  const timesMs: number[] = [];
  const totalMs = await timed(() =>
    parallel(THROUGHPUT_CALLS, CLIENTS, async () => void timesMs.push(await timed(() => call(pooled, name)))),
  );
  return { ...spread(timesMs), clients: CLIENTS, perSecond: round(THROUGHPUT_CALLS / (totalMs / 1000)) };
};

export const bigPayloads: InvokeBench = async ({ pooled }) => {
  const name = await warm(pooled);
  const inwards = Buffer.from(JSON.stringify({ text: "x".repeat(PAYLOAD_BYTES_MAX - '{"text":""}'.length) }));
  const inMs: number[] = [];
  const outMs: number[] = [];
  for (let n = 0; n < BIG_CALLS; n += 1) {
    inMs.push(await timed(() => call(pooled, name, inwards)));
    outMs.push(await timed(() => call(pooled, name, JSON.stringify({ length: PAYLOAD_BYTES_MAX - 2 }))));
  }
  return { n: BIG_CALLS, inP50Ms: spread(inMs)["p50Ms"] ?? 0, outP50Ms: spread(outMs)["p50Ms"] ?? 0 };
};
