import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { LambdaClient } from "@aws-sdk/client-lambda";
import { ZipFile } from "yazl";
import { systemClock } from "../../src/lib/clock.ts";
import { fixedKeys, startFrontend } from "../../src/frontend/frontend.ts";
import type { Clock } from "../../src/lib/clock.ts";
import { systemIds } from "../../src/lib/ids.ts";
import { noTurns } from "../../src/lib/turn-meter.ts";
import { systemRandom } from "../../src/lib/random.ts";
import type { Random } from "../../src/lib/random.ts";
import type { Frontend, FrontendOptions } from "../../src/frontend/frontend.ts";
import { openCodeStore } from "../../src/store/code/file-code-store.ts";
import { openSqliteStore } from "../../src/store/sqlite/sqlite.ts";
import type { Store } from "../../src/store/store.ts";
import { noTracer, silentLog } from "../../src/telemetry/index.ts";
import { Echo } from "./echo.ts";

export const ACCOUNT = "123456789012";
export const REGION = "us-east-1";
export const ROLE: string = `arn:aws:iam::${ACCOUNT}:role/lambda`;
export const KEYS = { accessKeyId: "AKIAEXAMPLEEXAMPLE00", secretAccessKey: "a secret that only tests know" };
export const arnOf = (name: string): string => `arn:aws:lambda:${REGION}:${ACCOUNT}:function:${name}`;

export interface Harness extends AsyncDisposable {
  readonly endpoint: string;
  readonly client: LambdaClient;
  readonly echo: Echo;
  readonly store: Store;
  readonly directory: string;
  readonly frontend: Frontend;
}

export interface HarnessOptions extends Partial<
  Pick<FrontendOptions, "auth" | "asyncParallel" | "allowedHosts" | "connectionsMax">
> {
  /** Address to listen on; the loopback when it is not said. */
  readonly host?: string;
  readonly directory?: string;
  readonly clock?: Clock;
  readonly random?: Random;
  /** What stands between the Frontend and its store: for one that fails. */
  readonly before?: (store: Store) => Store;
}

export const clientOf = (endpoint: string, changes: object = {}): LambdaClient =>
  new LambdaClient({ endpoint, region: REGION, credentials: KEYS, maxAttempts: 1, ...changes });

export const temporaryDirectory = (): Promise<string> => mkdtemp(join(tmpdir(), "hearth-frontend-"));

/** A Frontend on a free port of the loopback, with a real store and an echo below it. A directory that was given is kept. */
export const startHarness = async (options: HarnessOptions = {}): Promise<Harness> => {
  const directory = options.directory ?? (await temporaryDirectory());
  const store = openSqliteStore(join(directory, "hearth.db"), systemClock);
  const code = await openCodeStore(directory, systemClock);
  const echo = new Echo();
  const frontend = await startFrontend({
    listen: { host: options.host ?? "127.0.0.1", port: 0 },
    auth: options.auth ?? fixedKeys([KEYS]),
    clock: options.clock ?? systemClock,
    ids: systemIds,
    random: options.random ?? systemRandom,
    ...(options.allowedHosts === undefined ? {} : { allowedHosts: options.allowedHosts }),
    ...(options.connectionsMax === undefined ? {} : { connectionsMax: options.connectionsMax }),
    ...(options.asyncParallel === undefined ? {} : { asyncParallel: options.asyncParallel }),
    store: options.before?.(store) ?? store,
    code,
    workerManager: echo,
    workers: () => echo,
    config: {
      instance: "tests",
      accountId: ACCOUNT,
      region: REGION,
      runtimes: ["nodejs22.x", "nodejs24.x", "provided.al2023"],
      reuse: "always",
      concurrencyMax: 1_000,
    },
    log: silentLog(),
    turns: noTurns,
    metrics: {
      invoke: () => undefined,
      event: () => undefined,
      request: () => undefined,
      connectionEnded: () => undefined,
    },
    tracer: noTracer,
  });
  const endpoint = `http://127.0.0.1:${frontend.port}`;
  const client = clientOf(endpoint);
  return {
    endpoint,
    client,
    echo,
    store,
    directory,
    frontend,
    [Symbol.asyncDispose]: async () => {
      client.destroy();
      await frontend.drain();
      await frontend[Symbol.asyncDispose]();
      await store[Symbol.asyncDispose]();
      if (options.directory === undefined) await rm(directory, { recursive: true });
    },
  };
};

export const zipOf = async (files: Readonly<Record<string, string>>): Promise<Buffer> => {
  const zip = new ZipFile();
  for (const [name, text] of Object.entries(files)) zip.addBuffer(Buffer.from(text), name, { mtime: new Date(0) });
  zip.end();
  const chunks: Buffer[] = [];
  for await (const chunk of zip.outputStream) chunks.push(Buffer.from(chunk));
  return Buffer.concat(chunks);
};

/** Input of CreateFunction for a function that needs nothing. */
export const functionInput = async (
  name: string,
): Promise<{
  readonly FunctionName: string;
  readonly Role: string;
  readonly Runtime: "nodejs24.x";
  readonly Handler: string;
  readonly Code: { readonly ZipFile: Uint8Array };
}> => ({
  FunctionName: name,
  Role: ROLE,
  Runtime: "nodejs24.x",
  Handler: "index.handler",
  Code: { ZipFile: await zipOf({ "index.js": `exports.name = "${name}"` }) },
});
