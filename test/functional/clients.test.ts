import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { LambdaClient, ListFunctionsCommand } from "@aws-sdk/client-lambda";
import { dataFiles } from "../../src/daemon/settings.ts";
import { logFilesOf, parseStoredRecord } from "../../src/telemetry/index.ts";
import { deployProbe, invoke, zipOf } from "./functions.ts";
import { eventually, hearthCommand, MAIN, run, startHearth } from "./hearth.ts";

const hearth = await startHearth();
const directory = await mkdtemp(join(tmpdir(), "hearth-clients-"));
after(async () => {
  await rm(directory, { recursive: true, force: true });
  await hearth[Symbol.asyncDispose]();
});

const aws = async (...args: string[]): Promise<{ code: number | null; stdout: string; stderr: string }> =>
  // Debian's: another one may stand before it in PATH.
  run("/usr/bin/aws", ["lambda", "--endpoint-url", hearth.about.endpoint, "--output", "json", ...args], {
    env: { ...hearth.environment, AWS_PAGER: "" },
  });

test("the AWS CLI: create, wait, invoke, list, delete", async () => {
  const zip = join(directory, "code.zip");
  await writeFile(zip, await zipOf({ "index.mjs": "export const handler = async (event) => ({ got: event });" }));
  const settings = "--function-name from-cli --runtime nodejs22.x --handler index.handler".split(" ");
  const role = "arn:aws:iam::000000000000:role/r";
  const created = await aws("create-function", ...settings, "--role", role, "--zip-file", `fileb://${zip}`);
  assert.equal(created.code, 0, created.stderr);
  assert.equal((JSON.parse(created.stdout) as { FunctionName: string }).FunctionName, "from-cli");
  const waited = await aws("wait", "function-active-v2", "--function-name", "from-cli");
  assert.equal(waited.code, 0, waited.stderr);
  const out = join(directory, "out.json");
  // As a file of bytes the payload is the same for versions 1 and 2 of the CLI.
  const event = join(directory, "event.json");
  await writeFile(event, '{"a":1}');
  const invocation = ["--function-name", "from-cli", "--payload", `fileb://${event}`, "--log-type", "Tail"];
  const invoked = await aws("invoke", ...invocation, out);
  assert.equal(invoked.code, 0, invoked.stderr);
  assert.deepEqual(JSON.parse(await readFile(out, "utf8")), { got: { a: 1 } });
  const { LogResult } = JSON.parse(invoked.stdout) as { LogResult: string };
  assert.match(Buffer.from(LogResult, "base64").toString(), /REPORT RequestId/);
  const listed = await aws("list-functions");
  assert.match(listed.stdout, /"FunctionName": "from-cli"/);
  const missing = await aws("get-function", "--function-name", "nobody");
  assert.notEqual(missing.code, 0);
  assert.match(missing.stderr, /ResourceNotFoundException.*Function not found: arn:aws:lambda:/);
  const removed = await aws("delete-function", "--function-name", "from-cli");
  assert.equal(removed.code, 0, removed.stderr);
});

test("wrong keys are refused, by the SDK's client too", async () => {
  const { endpoint, region, accessKeyId } = hearth.about;
  const credentials = { accessKeyId, secretAccessKey: "wrong" };
  const client = new LambdaClient({ endpoint, region, credentials, maxAttempts: 1 });
  await assert.rejects(client.send(new ListFunctionsCommand({})), (error: Error) => {
    assert.equal((error as Error & { $metadata: { httpStatusCode: number } }).$metadata.httpStatusCode, 403);
    return true;
  });
  client.destroy();
});

test("hearth deploy, invoke, logs, ls, top and rm", async () => {
  const code = join(directory, "greets.mjs");
  await writeFile(
    code,
    'export const handler = async ({ name, fail }) => { if (fail) throw new Error(fail); console.log("greeting", name); return `hi ${name}`; };',
  );
  const deployed = await hearthCommand(hearth, ["deploy", code, "--memory", "192", "--env", "STAGE=b=c", "--json"]);
  assert.equal(deployed.code, 0, deployed.stderr);
  const configuration = JSON.parse(deployed.stdout) as Record<string, unknown>;
  assert.equal(configuration["Handler"], "greets.handler");
  assert.equal(configuration["MemorySize"], 192);
  assert.deepEqual(configuration["Environment"], { Variables: { STAGE: "b=c" } });
  const again = await hearthCommand(hearth, ["deploy", code]);
  assert.match(again.stdout, /^Updated greets /);
  const invoked = await hearthCommand(hearth, ["invoke", "greets", "--payload", "-", "--tail"], '{"name":"Ada"}');
  assert.equal(invoked.code, 0, invoked.stderr);
  assert.equal(invoked.stdout, '"hi Ada"\n');
  assert.match(invoked.stderr, /REPORT RequestId/);
  const failed = await hearthCommand(hearth, ["invoke", "greets", "--payload", '{"fail":"no"}']);
  assert.equal(failed.code, 1);
  assert.equal(failed.stdout, "");
  assert.match(failed.stderr, /"errorMessage":"no"/);
  await eventually("the log is written", async () => ((await hearth.logOf("greets")).length > 4 ? true : null));
  const logs = await hearthCommand(hearth, ["logs", "greets", "--since", "10m"]);
  assert.match(logs.stdout, /greeting Ada/);
  const ls = await hearthCommand(hearth, ["ls"]);
  assert.match(ls.stdout, /^greets +nodejs24\.x +greets\.handler +192 MB/m);
  const top = await hearthCommand(hearth, ["top"]);
  assert.match(top.stdout, /greets +\$LATEST +Idle/);
  const removed = await hearthCommand(hearth, ["rm", "greets", "nobody", "--yes"]);
  assert.equal(removed.code, 1);
  assert.match(removed.stdout, /Removed greets/);
  assert.match(removed.stderr, /There is no function nobody/);
});

test("hearth logs -f begins before the log does, and misses nothing when files are rotated", async () => {
  const name = "chatty";
  const following = spawn(process.execPath, [MAIN, "logs", name, "--follow", "--json"], { env: hearth.environment });
  let printed = "";
  following.stdout.setEncoding("utf8").on("data", (text: string) => (printed += text));
  const client = hearth.client();
  await deployProbe(client, name, { memoryMb: 512 });
  let invocations = 0;
  while ((await logFilesOf(dataFiles(hearth.dataDir).logs, name)).length < 2) {
    await invoke(client, name, { op: "flood", lines: 10_000 });
    invocations += 1;
  }
  await invoke(client, name);
  invocations += 1;
  const lines = await eventually("all of it is printed", async () => {
    const found = printed
      .trimEnd()
      .split("\n")
      .map((line) => parseStoredRecord(line)?.text ?? "");
    return found.filter((line) => line.startsWith("REPORT")).length === invocations ? found : null;
  });
  following.kill();
  await once(following, "exit");
  assert.deepEqual(lines, await hearth.logOf(name));
});

test("errors are one sentence and what to do", async () => {
  const up = (...args: string[]): Promise<{ code: number | null; stdout: string; stderr: string }> =>
    run(process.execPath, [MAIN, "up", ...args], { env: hearth.environment });
  const twice = await up("--data-dir", hearth.dataDir, "--listen", "127.0.0.1:0");
  assert.equal(twice.code, 1);
  assert.match(twice.stderr, new RegExp(`already runs on ${hearth.dataDir} \\(process ${hearth.pid}\\)`));
  const taken = await up("--data-dir", join(directory, "data"), "--listen", new URL(hearth.about.endpoint).host);
  assert.equal(taken.code, 1);
  assert.match(taken.stderr, /is taken by another program/);
  const open = await up("--auth", "none", "--listen", "0.0.0.0:0");
  assert.equal(open.code, 2);
  const typo = await hearthCommand(hearth, ["depoly"]);
  assert.equal(typo.code, 2);
  assert.match(typo.stderr, /Did you mean deploy\?/);
  const nobody = await hearthCommand(hearth, ["invoke", "nobody"]);
  assert.equal(nobody.code, 1);
  assert.match(nobody.stderr, /Function not found/);
  assert.doesNotMatch(nobody.stderr, /\n\s+at /);
});

test("metrics count what happened", async () => {
  const client = hearth.client();
  await deployProbe(client, "counted");
  const { getControl } = await import("../../src/daemon/control.ts");
  const text = await getControl(hearth.dataDir, "/metrics");
  assert.match(text, /^hearth_invoke_seconds_count/m);
  assert.match(text, /^hearth_boot_seconds_count\{outcome="ready"\} [1-9]/m);
});
