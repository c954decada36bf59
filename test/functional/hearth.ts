import { LambdaClient } from "@aws-sdk/client-lambda";
import { spawn } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { getControl, getSlots } from "../../src/daemon/control.ts";
import type { RunningHearth } from "../../src/daemon/hearth-options.ts";
import { readCredentials } from "../../src/daemon/settings.ts";
import { logFilesOf, parseStoredRecord } from "../../src/telemetry/index.ts";
import { SLOTS_MEASURE_MS } from "../../src/wire/limits.ts";
import type { SlotInfo } from "../../src/wire/slot.ts";
import { descendants, gone } from "./processes.ts";
import type { ProcessIdentity } from "./processes.ts";

/** The command, to be run with this process's Node. */
export const MAIN: string = fileURLToPath(new URL("../../src/cli/main.ts", import.meta.url));

const START_MS_MAX = 60_000;
const STOP_MS_MAX = 30_000;
const DRAIN_S = "8";

const namesOf = (processes: readonly ProcessIdentity[]): string => processes.map((each) => each.name).join(", ");

/** What `hearth up --json` says when it serves, and the secret that it does not say. */
interface Announcement {
  readonly endpoint: string;
  /** null without `--metrics`. */
  readonly metricsUrl: string | null;
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
  readonly region: string;
  readonly network: RunningHearth["network"];
}

/** A real Hearth in a process of its own, with a data directory that goes away with it. */
export class TestHearth implements AsyncDisposable {
  readonly dataDir: string;
  readonly #options: readonly string[];
  readonly #launcher: readonly string[];
  readonly #clients: LambdaClient[] = [];
  #process: ChildProcess | null = null;
  #announcement: Announcement | null = null;
  /** What a killed one left; the next one clears it away. */
  readonly #orphans: ProcessIdentity[] = [];
  /** stderr of all its processes: Hearth's own log. */
  log = "";

  /** `launcher`: what its command line begins with, when something else is to start it; it must become it by execve(2). */
  constructor(dataDir: string, options: readonly string[], launcher: readonly string[] = []) {
    this.dataDir = dataDir;
    this.#options = options;
    this.#launcher = launcher;
  }

  get about(): Announcement {
    if (this.#announcement === null) throw new Error("Hearth does not run");
    return this.#announcement;
  }

  get pid(): number {
    const pid = this.#process?.pid;
    if (pid === undefined) throw new Error("Hearth does not run");
    return pid;
  }

  /** Starts it (again), on a free port, with further environment variables. Throws when it ends before it serves. */
  async start(environment: Readonly<Record<string, string>> = {}): Promise<void> {
    const up = ["up", "--json", "--listen", "127.0.0.1:0", "--data-dir", this.dataDir, "--log-level", "debug"];
    // A test that ends while an invocation runs does not wait for it long.
    up.push("--drain", DRAIN_S);
    const [program = process.execPath, ...args] = [...this.#launcher, process.execPath, MAIN, ...up, ...this.#options];
    const started = spawn(program, args, {
      stdio: ["ignore", "pipe", "pipe"],
      env: { ...process.env, ...environment },
    });
    this.#process = started;
    started.stderr.setEncoding("utf8").on("data", (text: string) => (this.log += text));
    const ended = once(started, "exit").then(() => {
      throw new Error(`hearth up ended before it served:\n${this.log}`);
    });
    const first = once(createInterface({ input: started.stdout }), "line", {
      signal: AbortSignal.timeout(START_MS_MAX),
    });
    const [line] = (await Promise.race([first, ended])) as [string];
    const credentials = readCredentials(this.dataDir);
    if (credentials === null) throw new Error(`${this.dataDir} has no keys`);
    this.#announcement = { ...(JSON.parse(line) as Omit<Announcement, "secretAccessKey">), ...credentials };
    const left = await gone(this.#orphans.splice(0), STOP_MS_MAX);
    if (left.length > 0) throw new Error(`a killed Hearth's processes outlive the next start: ${namesOf(left)}`);
  }

  get isRunning(): boolean {
    return this.#process !== null && this.#process.exitCode === null && this.#process.signalCode === null;
  }

  /** Resolves when the process has ended, however. */
  async ended(): Promise<void> {
    if (this.#process !== null && this.isRunning) await once(this.#process, "exit");
  }

  /** A client with nothing but endpoint, region and keys. */
  client(): LambdaClient {
    const { endpoint, region, accessKeyId, secretAccessKey } = this.about;
    const client = new LambdaClient({
      endpoint,
      region,
      credentials: { accessKeyId, secretAccessKey },
      maxAttempts: 1,
    });
    this.#clients.push(client);
    return client;
  }

  /** Variables that make the AWS CLI, an SDK or `hearth` itself talk to this one. */
  get environment(): Record<string, string> {
    const { endpoint, region, accessKeyId, secretAccessKey } = this.about;
    return {
      AWS_ACCESS_KEY_ID: accessKeyId,
      AWS_SECRET_ACCESS_KEY: secretAccessKey,
      AWS_REGION: region,
      AWS_DEFAULT_REGION: region,
      HEARTH_ENDPOINT: endpoint,
      HEARTH_DATA_DIR: this.dataDir,
      PATH: process.env["PATH"] ?? "/usr/bin:/bin",
      HOME: this.dataDir,
    };
  }

  slots(): Promise<readonly SlotInfo[]> {
    return getSlots(this.dataDir);
  }

  /** The slots with their memory and CPU time as they are now. */
  async measuredSlots(): Promise<readonly SlotInfo[]> {
    // Who asks for the metrics has the slots measured, unless that was done just before.
    await sleep(SLOTS_MEASURE_MS);
    await getControl(this.dataDir, "/metrics");
    return this.slots();
  }

  /** Lines of a function's log. */
  async logOf(functionName: string): Promise<string[]> {
    const files = await logFilesOf(join(this.dataDir, "logs"), functionName);
    const texts = await Promise.all(files.map((file) => readFile(file, "utf8")));
    return texts.flatMap((text) => text.split("\n")).flatMap((line) => parseStoredRecord(line)?.text ?? []);
  }

  /**
   * Ends it with a signal. Resolves to its exit code once none of its processes is left; throws when some stay.
   * After SIGKILL that is asked of the next start: a frozen microVM does not die before it is thawed.
   */
  async stop(signal: NodeJS.Signals = "SIGTERM"): Promise<number | null> {
    const running = this.#process;
    if (running === null) return null;
    this.#process = null;
    for (const client of this.#clients.splice(0)) client.destroy();
    const family = await descendants(running.pid ?? 0);
    const exited =
      running.exitCode === null && running.signalCode === null
        ? once(running, "exit", { signal: AbortSignal.timeout(STOP_MS_MAX) })
        : Promise.resolve();
    running.kill(signal);
    await exited.catch(() => running.kill("SIGKILL"));
    if (signal === "SIGKILL") {
      this.#orphans.push(...family);
      return running.exitCode;
    }
    const left = await gone(family, STOP_MS_MAX);
    if (left.length > 0) throw new Error(`Hearth left processes behind: ${namesOf(left)}`);
    return running.exitCode;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    try {
      await this.stop();
    } finally {
      await rm(this.dataDir, { recursive: true, force: true });
    }
  }
}

/** Starts a Hearth with further options of `hearth up`. */
export const startHearth = (...options: string[]): Promise<TestHearth> => startHearthBy([], ...options);

/** The same by a launcher. */
export const startHearthBy = async (launcher: readonly string[], ...options: string[]): Promise<TestHearth> => {
  const hearth = new TestHearth(await mkdtemp(join(tmpdir(), "hearth-test-")), options, launcher);
  try {
    await hearth.start();
    return hearth;
  } catch (error) {
    await hearth[Symbol.asyncDispose]();
    throw error;
  }
};

/** Asks again and again until the answer is not null. Throws after `timeoutMs`, saying what was waited for. */
export const eventually = async <T>(what: string, ask: () => Promise<T | null>, timeoutMs = 30_000): Promise<T> => {
  const until = Date.now() + timeoutMs;
  for (;;) {
    const answer = await ask();
    if (answer !== null) return answer;
    if (Date.now() > until) throw new Error(`${what} did not come true within ${timeoutMs} ms`);
    await sleep(50);
  }
};

/** Runs a program to its end. */
export const run = async (
  file: string,
  args: readonly string[],
  options: { readonly env?: Readonly<Record<string, string>>; readonly input?: string } = {},
): Promise<{ readonly code: number | null; readonly stdout: string; readonly stderr: string }> => {
  const child = spawn(file, args, { stdio: "pipe", env: { ...options.env } });
  let stdout = "";
  let stderr = "";
  child.stdout.setEncoding("utf8").on("data", (text: string) => (stdout += text));
  child.stderr.setEncoding("utf8").on("data", (text: string) => (stderr += text));
  // A program that is through before it has read its input is no error of this one.
  child.stdin.on("error", () => {}).end(options.input ?? "");
  const [code] = (await once(child, "close")) as [number | null];
  return { code, stdout, stderr };
};

/** Runs `hearth ARGS…` against a test's Hearth. */
export const hearthCommand = (
  hearth: TestHearth,
  args: readonly string[],
  input?: string,
): Promise<{ readonly code: number | null; readonly stdout: string; readonly stderr: string }> =>
  run(process.execPath, [MAIN, ...args], { env: hearth.environment, ...(input === undefined ? {} : { input }) });
