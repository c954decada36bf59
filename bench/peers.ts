import { execFile } from "node:child_process";
import { promisify } from "node:util";
import type { Result } from "./result.ts";
import { spread, timed } from "./statistics.ts";

const BARE_CALLS = 30;
const GVISOR_CALLS = 10;
const TIMEOUT_MS = 30_000;
/** The least that running a handler in a fresh process takes: start, load, call, print. */
const PROGRAM =
  "const handler = async () => ({ ok: true }); handler({}).then((answer) => console.log(JSON.stringify(answer)))";

const run = promisify(execFile);

/** No isolation at all: what a fresh process for every call costs on this host. */
export const bareNode = async (): Promise<Result> => {
  const timesMs: number[] = [];
  for (let n = 0; n < BARE_CALLS; n += 1) {
    timesMs.push(await timed(() => run(process.execPath, ["-e", PROGRAM], { timeout: TIMEOUT_MS })));
  }
  return spread(timesMs);
};

const once = (): Promise<unknown> =>
  run("runsc", ["--network=none", "do", process.execPath, "-e", PROGRAM], { timeout: TIMEOUT_MS });

/** gVisor's `runsc do`: null where it is not installed. */
export const gvisor = async (): Promise<Result | null> => {
  try {
    await once();
  } catch {
    return null;
  }
  const timesMs: number[] = [];
  for (let n = 0; n < GVISOR_CALLS; n += 1) timesMs.push(await timed(once));
  return spread(timesMs);
};
