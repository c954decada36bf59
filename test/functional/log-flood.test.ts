/** A function that prints without end: what that costs Hearth's loop, and that nothing of it is silently missing. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { after, test } from "node:test";
import { deploy } from "../../src/cli/deploy.ts";
import { invoke, zipOf } from "./functions.ts";
import { startHearth } from "./hearth.ts";

const FLOODER = `
import { writeSync } from "node:fs";
const lines = Buffer.from("y\\n".repeat(32768));
export const handler = async ({ ms, count }) => {
  let printed = 0;
  if (count !== undefined) for (; printed < count; printed += 1) console.log("line " + printed);
  else for (const end = Date.now() + ms; Date.now() < end;) try { printed += writeSync(1, lines) / 2; } catch {}
  return printed;
};
`;

const hearth = await startHearth("--log-rate", "256");
after(() => hearth[Symbol.asyncDispose]());
const client = hearth.client();
const zip = await zipOf({ "index.mjs": FLOODER });
const deployFlooder = (name: string): Promise<unknown> =>
  deploy(client, { name, zip, runtime: "nodejs24.x", handler: "index.handler", memoryMb: 512, timeoutS: 30 });

/** CPU time that the process has used, in ms: fields 14 and 15 of /proc/PID/stat, in ticks of 10 ms. */
const cpuMs = (pid: number): number => {
  const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
  const [user = 0, system = 0] = stat
    .slice(stat.lastIndexOf(")") + 2)
    .split(" ")
    .slice(11, 13)
    .map(Number);
  return (user + system) * 10;
};

test("a flood takes a small part of the loop, and what is left out is told where it is missing", async () => {
  await deployFlooder("flood");
  // What a slot may write at once is behind it then.
  await invoke(client, "flood", { ms: 4_000 });
  const [cpuBeforeMs, beganMs] = [cpuMs(hearth.pid), performance.now()];
  const { error, log } = await invoke(client, "flood", { ms: 4_000 });
  const share = (cpuMs(hearth.pid) - cpuBeforeMs) / (performance.now() - beganMs);
  assert.equal(error, undefined);
  assert.match(log, /^REPORT RequestId: /m);
  // Reading all of it takes more than three quarters of a CPU here.
  assert.ok(share < 0.4, `the loop was busy for ${share} of the time`);
  const lines = await hearth.logOf("flood");
  const notices = lines.filter((text) => text.startsWith("LOGS_DROPPED"));
  assert.ok(notices.length > 0);
  assert.ok(notices.every((text) => /Records: [1-9]\d*\tBytes: \d+\t/.test(text)));
});

test("what a function prints at once is kept whole, also beside another's flood", async () => {
  await Promise.all([deployFlooder("noisy"), deployFlooder("quiet")]);
  await Promise.all([invoke(client, "noisy", { ms: 1 }), invoke(client, "quiet", { count: 1 })]);
  const noise = invoke(client, "noisy", { ms: 6_000 });
  const { value, error } = await invoke(client, "quiet", { count: 10_000 });
  assert.deepEqual([error, value], [undefined, 10_000]);
  await noise;
  const lines = (await hearth.logOf("quiet")).filter((text) => /\tline \d+$/.test(text));
  assert.equal(lines.length, 10_001);
  assert.deepEqual(
    lines.slice(1).map((text) => text.split("\t").at(-1)),
    Array.from({ length: 10_000 }, (_, n) => `line ${n}`),
  );
});
