import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { copyFile, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { Agent } from "node:https";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { connect } from "node:tls";
import { promisify } from "node:util";
import { LambdaClient, ListFunctionsCommand } from "@aws-sdk/client-lambda";
import { RawConnection } from "../frontend/raw-http.ts";
import { eventually, hearthCommand, MAIN, run, startHearth } from "./hearth.ts";

const OPENSSL = "/usr/bin/openssl";
const AWS = "/usr/bin/aws";
const CURL = "/usr/bin/curl";

const openssl = (...args: readonly string[]): Promise<unknown> => promisify(execFile)(OPENSSL, args);

/** An authority, and certificates by it. */
class Authority implements AsyncDisposable {
  readonly directory: string;

  constructor(directory: string) {
    this.directory = directory;
  }

  static async make(): Promise<Authority> {
    const made = new Authority(await mkdtemp(join(tmpdir(), "hearth-tls-")));
    const { key, cert } = made.files("ca");
    await openssl(
      "req",
      "-x509",
      "-newkey",
      "ec",
      "-pkeyopt",
      "ec_paramgen_curve:P-256",
      "-nodes",
      "-days",
      "2",
      "-subj",
      "/CN=tests",
      "-keyout",
      key,
      "-out",
      cert,
    );
    return made;
  }

  files(name: string): { readonly key: string; readonly cert: string } {
    return { key: join(this.directory, `${name}.key`), cert: join(this.directory, `${name}.pem`) };
  }

  /** A certificate for 127.0.0.1. */
  async issue(name: string, days: number): Promise<{ readonly key: string; readonly cert: string }> {
    const made = this.files(name);
    const ca = this.files("ca");
    const request = join(this.directory, "request");
    const names = join(this.directory, "names");
    await writeFile(names, "subjectAltName=IP:127.0.0.1,DNS:localhost\n");
    await openssl(
      "req",
      "-new",
      "-newkey",
      "ec",
      "-pkeyopt",
      "ec_paramgen_curve:P-256",
      "-nodes",
      "-subj",
      `/CN=${name}`,
      "-keyout",
      made.key,
      "-out",
      request,
    );
    await openssl(
      "x509",
      "-req",
      "-in",
      request,
      "-CA",
      ca.cert,
      "-CAkey",
      ca.key,
      "-CAcreateserial",
      "-days",
      `${days}`,
      "-extfile",
      names,
      "-out",
      made.cert,
    );
    return made;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return rm(this.directory, { recursive: true });
  }
}

/** Whose certificate is served. */
const served = (port: number, ca: Buffer): Promise<string> =>
  new Promise((resolve, reject) => {
    const socket = connect({ port, host: "127.0.0.1", ca }, () => {
      resolve(String(socket.getPeerCertificate().subject.CN));
      socket.destroy();
    }).on("error", reject);
  });

test("TLS for every client, and a certificate that is replaced while Hearth runs", async (context) => {
  if (!existsSync(OPENSSL)) return context.skip("openssl is not installed");
  await using authority = await Authority.make();
  const { cert: caFile } = authority.files("ca");
  const ca = await readFile(caFile);
  const [first, second] = [await authority.issue("first", 90), await authority.issue("second", 2)];
  const live = authority.files("live");
  await copyFile(first.cert, live.cert);
  await copyFile(first.key, live.key);
  await using hearth = await startHearth("--tls-cert", live.cert, "--tls-key", live.key);
  const { endpoint, region, accessKeyId, secretAccessKey } = hearth.about;
  const port = Number(new URL(endpoint).port);
  assert.match(endpoint, /^https:/);

  const client = new LambdaClient({
    endpoint,
    region,
    credentials: { accessKeyId, secretAccessKey },
    maxAttempts: 1,
    requestHandler: { httpsAgent: new Agent({ ca }) },
  });
  assert.deepEqual((await client.send(new ListFunctionsCommand({}))).Functions, []);
  client.destroy();
  const { HEARTH_ENDPOINT: _, ...found } = hearth.environment;
  const own = await run(process.execPath, [MAIN, "ls"], { env: found });
  assert.equal(own.code, 0, own.stderr);
  const named = await hearthCommand(hearth, ["ls"]);
  assert.match(named.stderr, /certificate/, "an endpoint that was named is trusted by authorities only");
  const extra = { ...hearth.environment, NODE_EXTRA_CA_CERTS: caFile };
  assert.equal((await run(process.execPath, [MAIN, "ls"], { env: extra })).code, 0);
  if (existsSync(AWS)) {
    const env = { ...hearth.environment, AWS_CA_BUNDLE: caFile };
    const aws = await run(AWS, ["lambda", "--endpoint-url", endpoint, "list-functions"], { env });
    assert.equal(aws.code, 0, aws.stderr);
  }
  if (existsSync(CURL)) {
    const unsigned = ["-H", "x-amz-content-sha256: UNSIGNED-PAYLOAD", "--aws-sigv4", `aws:amz:${region}:lambda`];
    const keys = ["--user", `${accessKeyId}:${secretAccessKey}`, "--cacert", caFile];
    const curl = await run(CURL, ["-sS", "-f", ...keys, ...unsigned, `${endpoint}/2015-03-31/functions/`], {});
    assert.match(curl.stdout, /"Functions":\[\]/, curl.stderr);
  }
  // Plain HTTP at that port, and half a handshake, end without an answer.
  using plain = new RawConnection(port).send("GET /health HTTP/1.1\r\nHost: x\r\n\r\n");
  assert.equal((await plain.answer).status, null);

  assert.equal(await served(port, ca), "first");
  await copyFile(second.cert, live.cert);
  await eventually("the half of a pair is told", async () => (/old one is served on/.test(hearth.log) ? true : null));
  assert.equal(await served(port, ca), "first");
  await copyFile(second.key, live.key);
  await eventually("the new one is served", async () => ((await served(port, ca)) === "second" ? true : null));
  await eventually("its end is warned of", async () => (/the certificate expires soon/.test(hearth.log) ? true : null));
});

test("files that are no pair are refused by name", async (context) => {
  if (!existsSync(OPENSSL)) return context.skip("openssl is not installed");
  await using authority = await Authority.make();
  const [one, other] = [await authority.issue("one", 2), await authority.issue("other", 2)];
  const up = (...options: readonly string[]): ReturnType<typeof run> => {
    const args = [MAIN, "up", "--listen", "127.0.0.1:0", "--data-dir", join(authority.directory, "data"), ...options];
    return run(process.execPath, args, { env: { PATH: process.env["PATH"] ?? "", HOME: authority.directory } });
  };
  const half = await up("--tls-cert", one.cert);
  assert.deepEqual([half.code, /need each other/.test(half.stderr)], [2, true]);
  const mixed = await up("--tls-cert", one.cert, "--tls-key", other.key);
  assert.deepEqual([mixed.code, /other\.key is not that of .*one\.pem/.test(mixed.stderr)], [1, true]);
  const missing = await up("--tls-cert", join(authority.directory, "none.pem"), "--tls-key", one.key);
  assert.deepEqual([missing.code, /none\.pem must hold a certificate in PEM/.test(missing.stderr)], [1, true]);
});
