import { once } from "node:events";
import { chmod, rm } from "node:fs/promises";
import { createServer, request } from "node:http";
import type { IncomingMessage, Server, ServerResponse } from "node:http";
import type { Clock } from "../lib/clock.ts";
import type { WorkerReport } from "../wire/roles.ts";
import type { SlotInfo } from "../wire/slot.ts";
import { CliError } from "./errors.ts";
import type { RunningHearth } from "./hearth-options.ts";
import { dataFiles } from "./settings.ts";

/*
 * The control socket: HTTP over `<dataDir>/control.sock`, for what is no part of Lambda's API. Who may open the file
 * may ask: its permissions (owner only) are the authorisation.
 *   GET /slots    SlotInfo[]
 *   GET /stats    ControlStats
 *   GET /queue    QueueReading
 *   GET /metrics  Prometheus text
 */

export interface ControlStats {
  readonly pid: number;
  /** Unix ms. */
  readonly startedAtMs: number;
  readonly endpoint: string;
  readonly hypervisor: { readonly name: string; readonly reason: string };
  readonly worker: WorkerReport;
}

/** A longer answer than any: 10,000 slots of 500 bytes. */
const ANSWER_BYTES_MAX = 64 * 1024 * 1024;
const TIMEOUT_MS = 5_000;

type Source = Pick<RunningHearth, "slots" | "queue" | "metrics" | "hypervisor">;

const json = (value: unknown): { readonly type: string; readonly body: string } => ({
  type: "application/json",
  body: JSON.stringify(value),
});

const answer = async (
  source: Source,
  path: string,
  about: { readonly startedAtMs: number; readonly endpoint: string },
): Promise<{ readonly type: string; readonly body: string } | null> => {
  switch (path) {
    case "/slots":
      return json(await source.slots.listSlots());
    case "/stats": {
      const worker = await source.slots.report();
      return json({ pid: process.pid, ...about, hypervisor: source.hypervisor, worker } satisfies ControlStats);
    }
    case "/queue":
      return json(await source.queue());
    case "/metrics":
      return { type: source.metrics.contentType, body: await source.metrics.text() };
    default:
      return null;
  }
};

/** Serves the control socket until disposed. A file left by a Hearth that crashed is replaced (the lock is ours). */
export const serveControl = async (
  dataDir: string,
  source: Source,
  endpoint: string,
  clock: Clock,
): Promise<AsyncDisposable> => {
  const path = dataFiles(dataDir).control;
  const about = { startedAtMs: clock.wallMs(), endpoint };
  const handle = async (incoming: IncomingMessage, outgoing: ServerResponse): Promise<void> => {
    try {
      const found = incoming.method === "GET" ? await answer(source, incoming.url ?? "", about) : null;
      outgoing.writeHead(found === null ? 404 : 200, { "content-type": found?.type ?? "text/plain" });
      outgoing.end(found?.body ?? "There is /slots, /stats, /queue and /metrics.\n");
    } catch (error) {
      outgoing.writeHead(500, { "content-type": "text/plain" });
      outgoing.end(error instanceof Error ? error.message : String(error));
    }
  };
  const server: Server = createServer((incoming, outgoing) => void handle(incoming, outgoing));
  await rm(path, { force: true });
  server.listen(path);
  await once(server, "listening");
  // From here on it tells of connections that could not be accepted, for want of descriptors: their clients ask again.
  server.on("error", () => {});
  await chmod(path, 0o600);
  return {
    [Symbol.asyncDispose]: async () => {
      server.close();
      server.closeAllConnections();
      await rm(path, { force: true });
    },
  };
};

/** One GET on the control socket. Throws a CliError when no Hearth serves that data directory. */
export const getControl = async (dataDir: string, path: string): Promise<string> => {
  const socketPath = dataFiles(dataDir).control;
  const response = await new Promise<IncomingMessage>((resolve, reject) => {
    const asked = request({ socketPath, path, timeout: TIMEOUT_MS, agent: false }, resolve);
    asked.on("timeout", () => asked.destroy(new Error(`no answer within ${TIMEOUT_MS} ms`)));
    asked.on("error", (error: NodeJS.ErrnoException) => {
      const permission = error.code === "EACCES" || error.code === "EPERM";
      const hint = permission
        ? "Run this as the user who started Hearth."
        : "Start it with `hearth up`, or name its data directory with --data-dir.";
      const message = permission
        ? `You may not open ${socketPath}.`
        : `No Hearth runs on ${dataDir} (${error.code ?? error.message}).`;
      reject(new CliError(message, hint, 1, error));
    });
    asked.end();
  });
  let text = "";
  for await (const chunk of response.setEncoding("utf8")) {
    text += String(chunk);
    if (text.length > ANSWER_BYTES_MAX) throw new CliError(`The answer to ${path} is larger than any should be.`);
  }
  if (response.statusCode !== 200) throw new CliError(`Hearth answered ${response.statusCode} to ${path}: ${text}`);
  return text;
};

export const getSlots = async (dataDir: string): Promise<readonly SlotInfo[]> =>
  JSON.parse(await getControl(dataDir, "/slots")) as SlotInfo[];

export const getStats = async (dataDir: string): Promise<ControlStats> =>
  JSON.parse(await getControl(dataDir, "/stats")) as ControlStats;
