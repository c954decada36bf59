import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { readFile, stat, writeFile } from "node:fs/promises";
import { test } from "node:test";
import { LambdaClient, ListFunctionsCommand } from "@aws-sdk/client-lambda";
import type { ListFunctionsCommandOutput } from "@aws-sdk/client-lambda";
import { dataFiles } from "../../src/daemon/settings.ts";
import { eventually, hearthCommand, MAIN, run, startHearth } from "./hearth.ts";
import type { TestHearth } from "./hearth.ts";

interface Key {
  readonly name: string;
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
  readonly createdAt: string;
  readonly lastUsedAt: string | null;
}

const SCRIPT = "/usr/bin/script";

/** `hearth keys ARGS… --json`, parsed. */
const keys = async <T>(hearth: TestHearth, ...args: readonly string[]): Promise<T> => {
  const { code, stdout, stderr } = await hearthCommand(hearth, ["keys", ...args, "--json"]);
  assert.equal(code, 0, stderr);
  return JSON.parse(stdout) as T;
};

/** Calls with a key, by a client of its own. */
const call = async (hearth: TestHearth, credentials: Key): Promise<ListFunctionsCommandOutput> => {
  const { endpoint, region } = hearth.about;
  const client = new LambdaClient({ endpoint, region, credentials, maxAttempts: 1 });
  try {
    return await client.send(new ListFunctionsCommand({}));
  } finally {
    client.destroy();
  }
};

test("keys are made, listed and removed while Hearth runs, and are good or not within a moment", async () => {
  await using hearth = await startHearth();
  const made = await keys<Key>(hearth, "add", "ci");
  assert.deepEqual([made.name, made.secretAccessKey.length], ["ci", 40]);
  await eventually("the new key is good", () =>
    call(hearth, made).then(
      () => true,
      () => null,
    ),
  );
  const listed = await eventually("its use is seen", async () => {
    const found = await keys<readonly Key[]>(hearth, "ls");
    return found.find(({ name, lastUsedAt }) => name === "ci" && lastUsedAt !== null) === undefined ? null : found;
  });
  assert.deepEqual(
    listed.map(({ name }) => name),
    ["default", "ci"],
  );
  assert.ok(!JSON.stringify(listed).includes("ecret"), "a list has no secrets");
  assert.equal((await stat(dataFiles(hearth.dataDir).credentials)).mode & 0o777, 0o600);
  await keys(hearth, "rm", "ci");
  await eventually("the key is refused", () =>
    call(hearth, made).then(
      () => null,
      (error: unknown) => (error instanceof Error && error.name === "UnrecognizedClientException" ? true : null),
    ),
  );
  // The others are as good as before, and the last one stays.
  await hearth.client().send(new ListFunctionsCommand({}));
  const last = await hearthCommand(hearth, ["keys", "rm", "default"]);
  assert.deepEqual([last.code, /default is the only key/.test(last.stderr)], [1, true]);
  assert.match((await hearthCommand(hearth, ["keys", "add", "no/name"])).stderr, /is no name of a key|terminal only/);
  assert.match((await hearthCommand(hearth, ["keys", "add", "default", "--json"])).stderr, /a key default already/);
});

test("a file of keys that was damaged locks nobody out, and is told", async () => {
  await using hearth = await startHearth();
  const { credentials: file } = dataFiles(hearth.dataDir);
  const good = await readFile(file, "utf8");
  await writeFile(file, "nonsense");
  await eventually("it is told", async () => (hearth.log.includes("the keys cannot be read") ? true : null));
  const { accessKeyId, secretAccessKey } = hearth.about;
  await call(hearth, { name: "", createdAt: "", lastUsedAt: null, accessKeyId, secretAccessKey });
  await writeFile(file, good);
});

/** What `hearth up` without --json writes to a pipe until it serves. */
const announced = async (dataDir: string): Promise<string> => {
  const args = [MAIN, "up", "--listen", "127.0.0.1:0", "--data-dir", dataDir];
  const child = spawn(process.execPath, args, { stdio: ["ignore", "pipe", "pipe"] });
  let text = "";
  const ended = once(child, "exit");
  const all = new Promise<void>((resolve) => {
    child.stdout.setEncoding("utf8").on("data", (chunk: string) => {
      text += chunk;
      if (text.includes("Ctrl-C stops Hearth")) resolve();
    });
  });
  child.stderr.setEncoding("utf8").on("data", (chunk: string) => (text += chunk));
  await Promise.race([all, ended]);
  child.kill("SIGTERM");
  await ended;
  return text;
};

test("no secret is printed but on a terminal", async (context) => {
  await using hearth = await startHearth("--log-level", "trace");
  const { secretAccessKey } = hearth.about;
  assert.ok(!hearth.log.includes(secretAccessKey));
  const refused = await hearthCommand(hearth, ["keys", "add", "piped"]);
  assert.equal(refused.code, 2);
  assert.match(refused.stderr, /shown on a terminal only/);
  await hearth.stop();
  const text = await announced(hearth.dataDir);
  assert.match(text, /AWS_SHARED_CREDENTIALS_FILE=\S+\/credentials AWS_PROFILE=default/);
  assert.ok(!text.includes(secretAccessKey), "the secret is in what would be a log");

  if (!existsSync(SCRIPT)) return context.skip("script(1) is missing, so there is no terminal");
  const add = `${process.execPath} ${MAIN} keys add person --data-dir ${hearth.dataDir}`;
  const env = { PATH: "/usr/bin:/bin", TERM: "xterm" };
  const { stdout } = await run(SCRIPT, ["-qec", add, "/dev/null"], { env });
  assert.match(stdout, /AWS_ACCESS_KEY_ID=AKIA[0-9A-F]{16} AWS_SECRET_ACCESS_KEY=\S{40}/);
});
