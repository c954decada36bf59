/** Durations, memory, inits and logs: the figures and lines of Lambda, to the digit where Lambda's are. */
import assert from "node:assert/strict";
import { after, describe, test } from "node:test";
import { InvokeCommand } from "@aws-sdk/client-lambda";
import { deploy } from "../../src/cli/deploy.ts";
import { buildRuntime } from "../shim/guest.ts";
import { temporaryFile, zipOf } from "./functions.ts";
import { eventually, startHearth } from "./hearth.ts";

const MIB = 1024 * 1024;
const hearth = await startHearth();
after(() => hearth[Symbol.asyncDispose]());
const client = hearth.client();
const native = await zipOf({ bootstrap: await temporaryFile(buildRuntime) });

interface Answer {
  readonly text: string;
  readonly error: string | undefined;
  readonly log: string;
  readonly tail: Buffer;
  readonly report: Readonly<Record<string, string>>;
}

/** Invokes, and reads the report's `Name: value` pairs. */
const invoke = async (name: string, payload: unknown = {}): Promise<Answer> => {
  const answer = await client.send(
    new InvokeCommand({ FunctionName: name, Payload: Buffer.from(JSON.stringify(payload)), LogType: "Tail" }),
  );
  const tail = Buffer.from(answer.LogResult ?? "", "base64");
  const log = tail.toString();
  const pairs = (/^REPORT .*$/m.exec(log)?.[0] ?? "").split("\t").map((pair) => pair.split(": "));
  return {
    text: Buffer.from(answer.Payload ?? []).toString(),
    error: answer.FunctionError,
    log,
    tail,
    report: Object.fromEntries(pairs.flatMap(([key, value]) => (value === undefined ? [] : [[key, value]]))) as Record<
      string,
      string
    >,
  };
};
const number = (text: string | undefined): number => Number.parseFloat(text ?? "NaN");

await describe("exactness", { concurrency: true }, () => {
  test("Max Memory Used is what was used, by all processes together; the limit is where it ends", async () => {
    const settings = { runtime: "provided.al2023", handler: "x", memoryMb: 256, timeoutS: 60 };
    await deploy(client, { ...settings, name: "memory", zip: native });
    const used = async (event: string): Promise<number> => {
      const { text, report } = await invoke("memory", event);
      assert.equal(text, "touched");
      return number(report["Max Memory Used"]);
    };
    // It never goes down within one microVM, so each uses more than the one before. 2 MB are the program's own and pages' tables.
    for (const [event, mib] of [
      [`memory ${20 * MIB}`, 20],
      [`memory ${64 * MIB}`, 64],
      [`memory ${30 * MIB} 3`, 90],
      [`memory ${200 * MIB}`, 200],
      [`memory ${240 * MIB}`, 240],
    ] as const) {
      const megabytes = await used(event);
      assert.ok(megabytes >= mib && megabytes <= mib + 4, `${event}: ${megabytes} MB`);
    }
    const over = await invoke("memory", `memory ${257 * MIB}`);
    assert.match(over.text, /"errorType":"Runtime\.OutOfMemory"/);
    assert.equal(over.report["Max Memory Used"], "256 MB");
    const by = await invoke("memory", `memory ${100 * MIB} 3`);
    assert.match(by.text, /"errorType":"Runtime\.OutOfMemory"/);
  });

  test("a runtime that ended starts again in the same sandbox, /tmp kept, its init in the duration", async () => {
    const code = `
      import { existsSync, writeFileSync } from "node:fs";
      for (const end = Date.now() + 300; Date.now() < end; ) continue;
      export const handler = async (event) => {
        if (event.exit) { writeFileSync("/tmp/kept", "x"); process.exit(1); }
        return existsSync("/tmp/kept");
      };`;
    const zip = await zipOf({ "index.mjs": code });
    await deploy(client, { name: "restarts", zip, runtime: "nodejs24.x", handler: "index.handler", timeoutS: 60 });
    const first = await invoke("restarts", { exit: true });
    assert.equal(first.error, "Unhandled");
    assert.ok(number(first.report["Init Duration"]) >= 300);
    const billed = Math.ceil(number(first.report["Duration"]) + number(first.report["Init Duration"]));
    // Both are rounded to the hundredth in the report.
    assert.ok(Math.abs(number(first.report["Billed Duration"]) - billed) <= 1, first.log);
    const second = await invoke("restarts");
    assert.equal(second.text, "true");
    assert.equal(second.report["Init Duration"], undefined);
    assert.ok(number(second.report["Duration"]) >= 300, second.log);
    assert.equal(number(second.report["Billed Duration"]), Math.ceil(number(second.report["Duration"])));
    const third = await invoke("restarts");
    assert.equal(third.text, "true");
    assert.ok(number(third.report["Duration"]) < number(second.report["Duration"]), third.log);
  });

  test("an init of more than 10 s is cut, and runs again within the first invocation", async () => {
    const code = `
      import { existsSync, writeFileSync } from "node:fs";
      const isSecond = existsSync("/tmp/begun");
      writeFileSync("/tmp/begun", "x");
      if (!isSecond) await new Promise((resolve) => setTimeout(resolve, 60_000));
      export const handler = async () => "at last";`;
    const zip = await zipOf({ "index.mjs": code });
    await deploy(client, { name: "slow-init", zip, runtime: "nodejs24.x", handler: "index.handler", timeoutS: 60 });
    const answer = await invoke("slow-init");
    assert.equal(answer.text, '"at last"', answer.log);
    assert.equal(answer.report["Init Duration"], undefined);
    const lines = await hearth.logOf("slow-init");
    const line = lines.find((each) => each.startsWith("INIT_REPORT")) ?? "";
    assert.match(line, /^INIT_REPORT Init Duration: \d+\.\d\d ms\tPhase: init\tStatus: timeout$/);
    const cutMs = number(line.slice("INIT_REPORT Init Duration: ".length));
    assert.ok(cutMs >= 10_000 && cutMs < 15_000, line);
  });

  test("an init that fails is told of twice: for itself, and for the invocation that tried again", async () => {
    const zip = await zipOf({ "index.mjs": 'throw new RangeError("no start");' });
    await deploy(client, { name: "no-init", zip, runtime: "nodejs24.x", handler: "index.handler", timeoutS: 60 });
    const answer = await invoke("no-init");
    assert.equal(answer.error, "Unhandled");
    assert.match(answer.text, /"errorMessage":"no start"/);
    const reports = await eventually("both inits are in the log", async () => {
      const found = (await hearth.logOf("no-init")).filter((each) => each.startsWith("INIT_REPORT"));
      return found.length === 2 ? found : null;
    });
    const rest = "\tStatus: error\tError Type: Runtime.Unknown";
    assert.match(reports[0] ?? "", new RegExp(`^INIT_REPORT Init Duration: [\\d.]+ ms\tPhase: init${rest}$`));
    assert.match(reports[1] ?? "", new RegExp(`^INIT_REPORT Init Duration: [\\d.]+ ms\tPhase: invoke${rest}$`));
    await deploy(client, {
      name: "endless-init",
      zip: await zipOf({
        "index.mjs":
          'import { existsSync, writeFileSync } from "node:fs"; if (!existsSync("/tmp/a")) { writeFileSync("/tmp/a", ""); process.exit(1); } await new Promise((resolve) => setTimeout(resolve, 60_000));',
      }),
      runtime: "nodejs24.x",
      handler: "index.handler",
      timeoutS: 1,
    });
    const endless = await invoke("endless-init");
    assert.match(endless.text, /Task timed out after 1\.00 seconds/);
    assert.equal(endless.report["Duration"], "1000.00 ms");
    assert.equal(endless.report["Billed Duration"], "1000 ms");
    assert.match(endless.log, /^INIT_REPORT Init Duration: \d+\.\d\d ms\tPhase: invoke\tStatus: timeout$/m);
  });

  test("the tail is the last 4 KB of the log to the byte, and the log is whole and in order", async () => {
    const code = `
      export const handler = async (event) => {
        for (let n = 0; n < event.lines; n += 1) console.log("línea", n);
        process.stderr.write("to stderr\\n");
      };`;
    const zip = await zipOf({ "index.mjs": code });
    await deploy(client, { name: "talks", zip, runtime: "nodejs24.x", handler: "index.handler", timeoutS: 60 });
    const few = await invoke("talks", { lines: 3 });
    assert.match(few.log, /^INIT_START|^START RequestId/);
    const many = await invoke("talks", { lines: 500 });
    const lines = await eventually("the last report is in the log", async () => {
      const found = await hearth.logOf("talks");
      return found.filter((line) => line.startsWith("REPORT")).length === 2 ? found : null;
    });
    const numbers = lines.flatMap((line) => /línea (\d+)$/.exec(line)?.[1] ?? []);
    assert.deepEqual(numbers, ["0", "1", "2", ...Array.from({ length: 500 }, (_, n) => String(n))]);
    const whole = Buffer.from(`${lines.join("\n")}\n`);
    assert.ok(many.tail.length > 4092 && many.tail.length <= 4096, `${many.tail.length} bytes`);
    assert.ok(whole.subarray(-many.tail.length).equals(many.tail));
    assert.ok(many.log.includes("to stderr"));
  });
});
