import { InvokeCommand } from "@aws-sdk/client-lambda";
import type { LambdaClient } from "@aws-sdk/client-lambda";
import { execFile } from "node:child_process";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { readCode } from "./code.ts";
import { deploy } from "./deploy.ts";
import type { Deployment } from "./deploy.ts";
import type { Output } from "./output.ts";

const WARM_CALLS = 20;
const FRESH_CALLS = 5;
const EXAMPLES = fileURLToPath(new URL("../../examples/functions/", import.meta.url));

/** What the demo measured, and what was not as it should be. */
export interface Story {
  readonly functions: readonly { readonly name: string; readonly coldMs: number; readonly warmMsP50: number }[];
  readonly failures: readonly string[];
}

interface Call {
  readonly ms: number;
  readonly value: unknown;
  readonly error: string | null;
  readonly log: string;
}

/** Tells one story: each method is a chapter that prints what it does and notes what went wrong. */
class Storyteller {
  readonly #client: LambdaClient;
  readonly #output: Output;
  readonly functions: { name: string; coldMs: number; warmMsP50: number }[] = [];
  readonly failures: string[] = [];

  constructor(client: LambdaClient, output: Output) {
    this.#client = client;
    this.#output = output;
  }

  /** Deploys a function, invokes it cold and then warm. */
  async coldAndWarm(title: string, wanted: Deployment, greeting: RegExp): Promise<void> {
    this.#title(title);
    await deploy(this.#client, wanted);
    const cold = await this.call(wanted.name, { name: "Ada" });
    const message = (cold.value as { message?: string } | null)?.message ?? JSON.stringify(cold.value);
    this.#expect(cold.error === null && greeting.test(message), `${wanted.name} answered ${message}`);
    const times: number[] = [];
    let calls = 1;
    for (let n = 0; n < WARM_CALLS; n += 1) {
      const warm = await this.call(wanted.name, {});
      times.push(warm.ms);
      calls = (warm.value as { calls?: number } | null)?.calls ?? 0;
    }
    this.#expect(
      calls === WARM_CALLS + 1,
      `${wanted.name} did not stay in its microVM: call ${calls} of ${WARM_CALLS + 1}`,
    );
    const warmMsP50 = median(times);
    this.functions.push({ name: wanted.name, coldMs: cold.ms, warmMsP50 });
    const { green, dim } = this.#output.colours;
    this.#output.line(`  ${green(message)}`);
    this.#output.line(
      `  cold ${cold.ms.toFixed(0)} ms, warm ${warmMsP50.toFixed(1)} ms (median of ${WARM_CALLS}, over HTTP with SigV4)`,
    );
    this.#output.line(dim(`  ${reportOf(cold.log)}`));
  }

  /** An invocation that must fail, with a text in its error. */
  async failing(title: string, name: string, event: unknown, expected: RegExp): Promise<void> {
    this.#title(title);
    const call = await this.call(name, event);
    const text = JSON.stringify(call.value);
    this.#expect(
      call.error === "Unhandled" && expected.test(text),
      `${name} should have failed with ${expected}: ${text}`,
    );
    const { yellow, dim } = this.#output.colours;
    this.#output.line(`  ${yellow(`${call.error ?? "no error"}: ${text.slice(0, 160)}`)}`);
    this.#output.line(dim(`  ${reportOf(call.log)}`));
  }

  /** reuse: never gives each of several invocations a microVM of its own. */
  async freshEachTime(wanted: Deployment): Promise<void> {
    this.#title(`reuse: never — ${FRESH_CALLS} invocations, ${FRESH_CALLS} microVMs`);
    await deploy(this.#client, { ...wanted, reuse: "never" });
    const times: number[] = [];
    for (let n = 0; n < FRESH_CALLS; n += 1) {
      const call = await this.call(wanted.name, {});
      const calls = (call.value as { calls?: number } | null)?.calls;
      this.#expect(calls === 1, `${wanted.name} should be in its first call, not ${calls}`);
      times.push(call.ms);
    }
    this.#output.line(`  each in a fresh one: ${times.map((ms) => ms.toFixed(0)).join(", ")} ms`);
  }

  async call(name: string, event: unknown): Promise<Call> {
    const startedMs = performance.now();
    const payload = Buffer.from(JSON.stringify(event));
    const answer = await this.#client.send(
      new InvokeCommand({ FunctionName: name, Payload: payload, LogType: "Tail" }),
    );
    return {
      ms: performance.now() - startedMs,
      value: JSON.parse(Buffer.from(answer.Payload ?? []).toString() || "null") as unknown,
      error: answer.FunctionError ?? null,
      log: Buffer.from(answer.LogResult ?? "", "base64").toString(),
    };
  }

  #title(text: string): void {
    this.#output.line(`\n${this.#output.colours.bold(text)}`);
  }

  #expect(condition: boolean, otherwise: string): void {
    if (!condition) this.failures.push(otherwise);
  }
}

const reportOf = (log: string): string =>
  (/^REPORT .*$/m.exec(log)?.[0] ?? "(no REPORT line)")
    .replace(/RequestId: \S+\t/, "")
    .replaceAll("\t", "  ")
    .trim();

const median = (values: readonly number[]): number =>
  [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN;

const exampleOf = async (name: string, settings: Partial<Deployment> = {}): Promise<Deployment> => {
  const { zip, guess } = await readCode(join(EXAMPLES, name));
  return { name, zip, runtime: guess?.runtime ?? "", handler: guess?.handler ?? "", ...settings };
};

/** The native example, compiled with this machine's `cc`; where there is none, the one in bash. */
const nativeExample = async (program: string): Promise<{ readonly title: string; readonly wanted: Deployment }> => {
  try {
    await promisify(execFile)("cc", ["-O2", "-static", "-o", program, join(EXAMPLES, "bootstrap-c", "bootstrap.c")]);
    const { zip } = await readCode(program);
    const wanted = { name: "bootstrap-c", zip, runtime: "provided.al2023", handler: "bootstrap" };
    return { title: "A native function: C, compiled just now (provided.al2023)", wanted };
  } catch {
    return { title: "A bash script as a runtime (provided.al2023)", wanted: await exampleOf("bootstrap-bash") };
  }
};

/** The demo, told on `output`. `program` is where a native function may be compiled to. */
export const tellStory = async (client: LambdaClient, output: Output, program: string): Promise<Story> => {
  const teller = new Storyteller(client, output);
  const node = await exampleOf("node-hello", { timeoutS: 10 });
  const python = await exampleOf("python-hello", { timeoutS: 10 });
  const native = await nativeExample(program);
  await teller.coldAndWarm("A Node.js function (nodejs24.x)", node, /^Hello, Ada, from Node\.js v24/);
  await teller.coldAndWarm("A Python function (python3.11)", python, /^Hello, Ada, from Python 3\.11/);
  await teller.coldAndWarm(native.title, native.wanted, /^Hello from /);
  await teller.failing("It throws", "node-hello", { fail: "as you wish" }, /TypeError.*told to fail: as you wish/);
  await deploy(client, { ...node, name: "too-slow", timeoutS: 1 });
  await teller.failing(
    "It takes longer than its timeout of 1 s",
    "too-slow",
    { sleepMs: 5000 },
    /Task timed out after 1\.00 seconds/,
  );
  await teller.freshEachTime({ ...native.wanted, name: "once" });
  return { functions: teller.functions, failures: teller.failures };
};
