import type { LambdaClient } from "@aws-sdk/client-lambda";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { lambdaClient } from "../src/cli/client.ts";
import { readCredentials, REGION_DEFAULT } from "../src/daemon/settings.ts";

const MAIN = fileURLToPath(new URL("../src/cli/main.ts", import.meta.url));
const STOP_MS_MAX = 30_000;

/** Options for benches that count what fails: without signatures, and without a line for each failure. */
export const QUIETLY: readonly string[] = ["--auth", "none", "--log-level", "silent"];

/** A Hearth in a process of its own, as in life: its client's work is not done by the same thread. */
export interface BenchHearth extends AsyncDisposable {
  readonly client: LambdaClient;
  readonly endpoint: string;
  readonly pid: number;
}

/** Starts one with these options of `hearth up`. Rejects when it ends before it serves. */
export const startHearth = async (dataDir: string, ...options: readonly string[]): Promise<BenchHearth> => {
  const args = ["up", "--json", "--listen", "127.0.0.1:0", "--data-dir", dataDir, "--log-level", "error", ...options];
  const child = spawn(process.execPath, [MAIN, ...args], { stdio: ["ignore", "pipe", "inherit"] });
  const exited = once(child, "exit");
  const announced = once(createInterface({ input: child.stdout }), "line") as Promise<[string]>;
  const line = await Promise.race([announced.then(([text]) => text), exited.then(() => null)]);
  if (line === null || child.pid === undefined) throw new Error("hearth up ended before it served");
  const { endpoint } = JSON.parse(line) as { readonly endpoint: string };
  const credentials = readCredentials(dataDir);
  if (credentials === null) throw new Error(`${dataDir} has no keys`);
  const client = lambdaClient({ endpoint, credentials, dataDir, region: REGION_DEFAULT });
  return {
    client,
    endpoint,
    pid: child.pid,
    [Symbol.asyncDispose]: async () => {
      client.destroy();
      const late = setTimeout(() => child.kill("SIGKILL"), STOP_MS_MAX);
      child.kill("SIGTERM");
      await exited;
      clearTimeout(late);
    },
  };
};
