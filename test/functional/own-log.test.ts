import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { describe, it } from "node:test";
import { LambdaClient } from "@aws-sdk/client-lambda";
import { deploy } from "../../src/cli/deploy.ts";
import { getControl } from "../../src/daemon/control.ts";
import { readCredentials } from "../../src/daemon/settings.ts";
import { openPipe } from "../../src/telemetry/testing.ts";
import { parseSamples } from "../../src/telemetry/prometheus-text.ts";
import { MarkedCodes } from "../crash/code.ts";
import { invoke } from "./functions.ts";
import { eventually, MAIN, run } from "./hearth.ts";

const CALLS = 60;
/** A process that logs its own failure to log, over and over, takes all of a CPU. */
const QUIET_MS = 2_000;
const QUIET_SHARE_MAX = 0.15;
const USER_TICKS = 11;

/** CPU time of a process in ms, with that of its threads. */
const cpuMs = (pid: number): number => {
  const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return (Number(fields[USER_TICKS]) + Number(fields[USER_TICKS + 1])) * 10;
};

interface Served {
  readonly child: ChildProcess;
  readonly dataDir: string;
  readonly client: LambdaClient;
}

const metric = async ({ dataDir }: Served, name: string): Promise<number> =>
  parseSamples(await getControl(dataDir, "/metrics"))
    .filter((sample) => sample.name === name)
    .reduce((sum, { value }) => sum + value, 0);

/** A `hearth up` that logs to `stderr`; `work` has it while it serves. */
const serve = async (stderr: "pipe" | number, work: (served: Served) => Promise<void>): Promise<void> => {
  const dataDir = mkdtempSync(join(tmpdir(), "hearth-test-"));
  const up = [MAIN, "up", "--json", "--listen", "127.0.0.1:0", "--data-dir", dataDir, "--log-level", "debug"];
  const child = spawn(process.execPath, up, { stdio: ["ignore", "pipe", stderr] });
  try {
    const lines = createInterface({ input: child.stdout ?? process.stdin });
    const [line] = (await once(lines, "line")) as [string];
    const { endpoint, region } = JSON.parse(line) as { endpoint: string; region: string };
    const credentials = readCredentials(dataDir);
    assert.ok(credentials);
    const client = new LambdaClient({ endpoint, region, credentials, maxAttempts: 1 });
    const { zip } = await new MarkedCodes().make("m");
    await deploy(client, { name: "f", zip, runtime: "provided.al2023", handler: "bootstrap", timeoutS: 10 });
    await work({ child, dataDir, client });
    client.destroy();
  } finally {
    const ended = child.exitCode === null && child.signalCode === null ? once(child, "exit") : null;
    child.kill("SIGTERM");
    await ended;
    rmSync(dataDir, { recursive: true, force: true });
  }
};

/** Invocations work, none of its failures had no owner, and then the process has nothing to do. */
const assertWell = async (served: Served): Promise<void> => {
  const { client, child } = served;
  for (let n = 0; n < CALLS; n += 1) assert.equal((await invoke(client, "f")).error, undefined);
  assert.equal(child.exitCode, null);
  assert.equal(await metric(served, "hearth_unowned_failures_total"), 0);
  const pid = child.pid ?? 0;
  // A share of its time, not time: a busy machine only makes it less.
  const [beganMs, before] = [performance.now(), cpuMs(pid)];
  await new Promise((resolve) => setTimeout(resolve, QUIET_MS));
  const share = (cpuMs(pid) - before) / (performance.now() - beganMs);
  assert.ok(share < QUIET_SHARE_MAX, `it uses ${share} of a CPU for nothing`);
};

/** Has it log a line: a key came, or went. */
const makeLog = async (served: Served): Promise<void> => {
  const before = await metric(served, "hearth_host_log_failures_total");
  const { code, stderr } = await run(
    process.execPath,
    [MAIN, "keys", "add", "another", "--json", "--data-dir", served.dataDir],
    {
      env: { PATH: process.env["PATH"] ?? "" },
    },
  );
  assert.equal(code, 0, stderr);
  await eventually("a line of the log failed", async () =>
    (await metric(served, "hearth_host_log_failures_total")) > before ? true : null,
  );
};

describe("Hearth's own log", () => {
  it("does not matter to the service when nobody reads it or stdout any more", async () => {
    await serve("pipe", async (served) => {
      served.child.stderr?.destroy();
      served.child.stdout?.destroy();
      await makeLog(served);
      await assertWell(served);
    });
  });

  it("does not hold the service up when nobody takes it from its pipe", async () => {
    const { reader, writer, blocking } = await openPipe();
    try {
      assert.throws(
        () => {
          for (;;) writeSync(writer, "x".repeat(1024));
        },
        { code: "EAGAIN" },
      );
      await serve(blocking, assertWell);
    } finally {
      for (const fd of [reader, writer, blocking]) closeSync(fd);
    }
  });

  it("does not matter when its disk is full", async () => {
    const full = openSync("/dev/full", "w");
    try {
      await serve(full, async (served) => {
        await makeLog(served);
        await assertWell(served);
      });
    } finally {
      closeSync(full);
    }
  });
});
