import { InvokeCommand } from "@aws-sdk/client-lambda";
import type { LambdaClient } from "@aws-sdk/client-lambda";
import { execFile } from "node:child_process";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { buffer } from "node:stream/consumers";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { ZipFile } from "yazl";
import { deploy } from "../../src/cli/deploy.ts";
import type { Deployed, Deployment } from "../../src/cli/deploy.ts";

export const example = (name: string): string =>
  fileURLToPath(new URL(`../../examples/functions/${name}`, import.meta.url));

/** A zip of files by name; all of them executable, as a bootstrap must be. */
export const zipOf = async (files: Readonly<Record<string, string | Uint8Array>>): Promise<Uint8Array> => {
  const archive = new ZipFile();
  for (const [name, content] of Object.entries(files)) {
    archive.addBuffer(Buffer.from(content as Uint8Array), name, { mode: 0o100755 });
  }
  archive.end();
  return buffer(archive.outputStream);
};

/** What `write` puts into the file that it is given. */
export const temporaryFile = async (write: (path: string) => void): Promise<Uint8Array> => {
  const directory = await mkdtemp(join(tmpdir(), "hearth-file-"));
  try {
    write(join(directory, "file"));
    return await readFile(join(directory, "file"));
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
};

/** The C example, compiled. */
export const compiledBootstrap = async (): Promise<Uint8Array> => {
  const directory = await mkdtemp(join(tmpdir(), "hearth-cc-"));
  try {
    const program = join(directory, "bootstrap");
    await promisify(execFile)("cc", ["-O2", "-static", "-o", program, join(example("bootstrap-c"), "bootstrap.c")]);
    return await readFile(program);
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
};

/**
 * A Node function that does what the event says: `op` is the name of one of these. `instance` tells one microVM
 * from another.
 */
export const PROBE = `
import { spawn } from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import { setTimeout as sleep } from "node:timers/promises";
const instance = crypto.randomUUID();
let calls = 0;
const attempt = (action) => { try { action(); return null; } catch (error) { return error.code ?? error.message; } };
const ops = {
  echo: (event) => event,
  length: (event) => ({ length: event.text.length }),
  big: (event) => "x".repeat(event.length),
  throw: (event) => { class CustomError extends Error { name = "CustomError"; } throw new CustomError(event.message); },
  exit: (event) => process.exit(event.code),
  sleep: async (event) => { await sleep(event.ms); return { instance, calls }; },
  hang: () => { for (;;); },
  memory: () => { const kept = []; for (;;) kept.push(Buffer.alloc(8 << 20, 1)); },
  log: (event) => { for (const line of event.lines) console.log(line); return null; },
  sleepAndLog: async (event) => { await sleep(event.ms); return ops.log(event); },
  flood: (event) => { const line = "f".repeat(1000); for (let n = 0; n < event.lines; n += 1) console.log(line); return event.lines; },
  env: () => ({ ...process.env }),
  context: (event, context) => ({ ...context, remaining: context.getRemainingTimeInMillis() }),
  world: () => {
    const tmp = fs.statfsSync("/tmp");
    const write = (path) => attempt(() => fs.writeFileSync(path, "x"));
    return {
      uid: process.getuid(), cwd: process.cwd(), user: os.userInfo().username,
      tmpBytes: tmp.blocks * tmp.bsize, tmpWrite: write("/tmp/file"), taskWrite: write("/var/task/file"), rootWrite: write("/file"),
      optExists: fs.existsSync("/opt"), hostFiles: attempt(() => fs.readdirSync("/work")), code: fs.readdirSync("/var/task"),
    };
  },
  hold: (event) => { const file = fs.openSync("/tmp/held", "w"); const block = Buffer.alloc(1 << 20, 1); let written = 0;
    try { for (; written < event.mb; written += 1) { fs.writeSync(file, block); if (written % 16 === 15) fs.fsyncSync(file); }
      fs.fsyncSync(file); return { written, code: null }; }
    catch (error) { return { written, code: error.code }; } finally { fs.closeSync(file); } },
  fill: (event) => { const file = fs.openSync("/tmp/fill", "w"); const block = Buffer.alloc(1 << 20, 1); let written = 0;
    try { while (written < event.mb) written += fs.writeSync(file, block) / block.length; return { written, code: null }; }
    catch (error) { return { written, code: error.code }; } finally { fs.closeSync(file); fs.unlinkSync("/tmp/fill"); } },
};
export const handler = async (event, context) => {
  calls += 1;
  if (event.op === undefined) return { instance, calls };
  return ops[event.op](event, context);
};
`;

/** Deploys the probe under a name, with further settings. */
export const deployProbe = async (
  client: LambdaClient,
  name: string,
  settings: Partial<Deployment> = {},
): Promise<Deployed> =>
  deploy(client, {
    name,
    zip: await zipOf({ "index.mjs": PROBE }),
    runtime: "nodejs24.x",
    handler: "index.handler",
    memoryMb: 256,
    timeoutS: 20,
    ...settings,
  });

export interface Answer {
  readonly status: number | undefined;
  readonly error: string | undefined;
  readonly value: unknown;
  readonly log: string;
  readonly version: string | undefined;
  readonly requestId: string | undefined;
}

/** Invokes with the log's tail; the payload goes in and comes out as JSON. */
export const invoke = async (
  client: LambdaClient,
  name: string,
  event: unknown = {},
  qualifier?: string,
): Promise<Answer> => {
  const answer = await client.send(
    new InvokeCommand({
      FunctionName: name,
      Payload: Buffer.from(JSON.stringify(event)),
      LogType: "Tail",
      ...(qualifier === undefined ? {} : { Qualifier: qualifier }),
    }),
  );
  return {
    status: answer.StatusCode,
    error: answer.FunctionError,
    value: JSON.parse(Buffer.from(answer.Payload ?? []).toString() || "null") as unknown,
    log: Buffer.from(answer.LogResult ?? "", "base64").toString(),
    version: answer.ExecutedVersion,
    requestId: answer.$metadata.requestId,
  };
};
