/**
 * What functions get of the host's CPUs beside its other processes, and beside Hearth itself: on a machine that is busy
 * those who pay for a function get its share, and the loop that serves every guest is not kept waiting by one.
 */
import assert from "node:assert/strict";
import { existsSync, mkdirSync, readdirSync, readFileSync, rmdirSync } from "node:fs";
import { after, before, describe, test } from "node:test";
import { InvokeCommand } from "@aws-sdk/client-lambda";
import { LOOP_NICE } from "../../src/vmm/limits.ts";
import { deployProbe, invoke } from "./functions.ts";
import { eventually, startHearthBy, type TestHearth } from "./hearth.ts";
import { descendants } from "./processes.ts";

const CPU_V1 = "/sys/fs/cgroup/cpu";
const skip =
  process.getuid?.() === 0 && existsSync(`${CPU_V1}/cpu.shares`)
    ? false
    : "needs root and the CPU controller of cgroup v1";

/** Field of /proc/PID/stat behind the name (proc_pid_stat(5)): 16 is nice. */
const niceOf = (pid: number): number => {
  const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
  return Number(stat.slice(stat.lastIndexOf(")") + 2).split(" ")[16]);
};

/** A group of its own: other Hearths of this machine have the same one above their guests. */
const group = `${CPU_V1}/hearth-test-${process.pid}`;
/** Of all its guests together. */
const weight = (): number => Number(readFileSync(`${group}/hearth/cpu.shares`, "utf8"));

describe("shares of the CPU", { skip }, () => {
  let hearth: TestHearth;

  before(async () => {
    mkdirSync(group);
    const launcher = ["/bin/sh", "-c", 'echo $$ > "$0/cgroup.procs" && exec "$@"', group];
    hearth = await startHearthBy(launcher, "--pool", "0");
  });

  after(async () => {
    await hearth?.[Symbol.asyncDispose]();
    rmdirSync(`${group}/hearth`);
    rmdirSync(group);
  });

  test("the loop comes before guests, and nothing that it starts does", async () => {
    const client = hearth.client();
    await deployProbe(client, "nice");
    await invoke(client, "nice");
    assert.equal(niceOf(hearth.pid), LOOP_NICE);
    const family = await descendants(hearth.pid);
    assert.ok(family.length > 0);
    for (const { pid, name } of family) assert.equal(niceOf(pid), 0, name);
    const threads = readdirSync(`/proc/${hearth.pid}/task`).map(Number);
    const raised = threads.filter((thread) => niceOf(thread) !== 0);
    assert.ok(raised.includes(hearth.pid), raised.join());
  });

  test("the group of all guests weighs as much as the whole CPUs that work in it", async () => {
    const client = hearth.client();
    await deployProbe(client, "whole", { memoryMb: 1_769 });
    await invoke(client, "whole");
    await eventually("an idle group weighs as one process", async () => (weight() === 1_024 ? true : null));
    const call = (): Promise<unknown> =>
      client.send(new InvokeCommand({ FunctionName: "whole", Payload: Buffer.from('{"op":"sleep","ms":4000}') }));
    const calls = Promise.all([call(), call(), call()]);
    await eventually("three whole CPUs weigh as four processes", async () => (weight() === 4_096 ? true : null));
    await calls;
    await eventually("what is idle weighs nothing", async () => (weight() === 1_024 ? true : null));
  });
});
