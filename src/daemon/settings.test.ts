import assert from "node:assert/strict";
import { mkdtemp, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { parseSince } from "../cli/commands/logs.ts";
import { loadOrCreateCredentials } from "./credentials.ts";
import { CliError } from "./errors.ts";
import { lockDataDirectory } from "./lock.ts";
import { clientSettings, dataFiles, isLoopback, parseAddress } from "./settings.ts";

const temporary = async (): Promise<{ readonly path: string } & AsyncDisposable> => {
  const path = await mkdtemp(join(tmpdir(), "hearth-settings-"));
  return { path, [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true }) };
};

test("addresses", () => {
  assert.deepEqual(parseAddress("127.0.0.1:80"), { host: "127.0.0.1", port: 80 });
  assert.deepEqual(parseAddress("[::1]:0"), { host: "::1", port: 0 });
  assert.deepEqual(parseAddress("8080"), { host: "127.0.0.1", port: 8080 });
  for (const wrong of ["", "a", "a:b", "1:2:3", "127.0.0.1:99999"]) {
    assert.throws(
      () => parseAddress(wrong),
      (error) => error instanceof CliError && error.exitCode === 2,
    );
  }
  assert.ok(isLoopback("127.8.8.8") && isLoopback("localhost") && isLoopback("::1"));
  assert.ok(!isLoopback("0.0.0.0") && !isLoopback("127.evil.example") && !isLoopback("::"));
});

test("keys: made once, for the owner alone", async () => {
  await using directory = await temporary();
  const made = await loadOrCreateCredentials(directory.path, 0);
  assert.match(made.accessKeyId, /^AKIA[0-9A-F]{16}$/);
  assert.equal(made.secretAccessKey.length, 40);
  assert.deepEqual(await loadOrCreateCredentials(directory.path, 0), made);
  assert.equal((await stat(dataFiles(directory.path).credentials)).mode & 0o777, 0o600);
});

test("a named endpoint goes with the variables, a found one with the directory's keys", async () => {
  await using directory = await temporary();
  const dataDir = directory.path;
  const own = await loadOrCreateCredentials(dataDir, 0);
  await writeFile(dataFiles(dataDir).endpoint, "http://127.0.0.1:4321\n");
  const env = { AWS_ACCESS_KEY_ID: "theirs", AWS_SECRET_ACCESS_KEY: "s", AWS_REGION: "eu-west-1" };
  const found = clientSettings({ dataDir }, env);
  assert.equal(found.endpoint, "http://127.0.0.1:4321");
  assert.deepEqual(found.credentials, own);
  assert.equal(found.region, "eu-west-1");
  const named = clientSettings({ dataDir, endpoint: "http://other:1" }, env);
  assert.equal(named.credentials.accessKeyId, "theirs");
  assert.throws(() => clientSettings({ endpoint: "other:1" }, {}), /is no endpoint/);
});

test("one Hearth for each data directory", async () => {
  await using directory = await temporary();
  {
    using _lock = lockDataDirectory(directory.path);
    assert.throws(() => lockDataDirectory(directory.path), new RegExp(`\\(process ${process.pid}\\)`));
  }
  using _again = lockDataDirectory(directory.path);
});

test("times of hearth logs", () => {
  assert.equal(parseSince("90s", 100_000), 10_000);
  assert.equal(parseSince("1970-01-01T00:00:01Z", 0), 1_000);
  assert.throws(() => parseSince("soon", 0), /is no time/);
});
