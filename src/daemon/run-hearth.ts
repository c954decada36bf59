import { rm, writeFile } from "node:fs/promises";
import { resolve } from "node:path";
import { systemClock } from "../lib/clock.ts";
import { createLog, stderrOutput } from "../telemetry/index.ts";
import type { LogLevel } from "../telemetry/index.ts";
import { prioritizeLoop } from "../vmm/jail/priority.ts";
import { serveControl } from "./control.ts";
import { loadOrCreateCredentials } from "./credentials.ts";
import { CliError } from "./errors.ts";
import type { HearthOptions, RunningHearth } from "./hearth-options.ts";
import type { NamedKey } from "./key-file.ts";
import { KeyRing } from "./key-ring.ts";
import { lockDataDirectory } from "./lock.ts";
import { serveMetrics } from "./metrics-server.ts";
import type { MetricsServer } from "./metrics-server.ts";
import { ACCOUNT_DEFAULT, dataFiles, REGION_DEFAULT } from "./settings.ts";
import type { Address } from "./settings.ts";

/** A Hearth with everything around it: lock, keys, control socket. Disposing it leaves nothing running. */
export interface HostedHearth extends AsyncDisposable {
  readonly hearth: RunningHearth;
  readonly endpoint: string;
  /** Where the metrics are; null when they are not served. */
  readonly metricsUrl: string | null;
  /** The key of this machine's commands. */
  readonly credentials: NamedKey;
  /** Where all keys are: a credentials file as AWS's tools read it. */
  readonly credentialsFile: string;
}

/** The usual one; that of a hardened root shell, 077, would leave no microVM a way to its drives. */
const UMASK = 0o022;

/** Starts a Hearth in this process. Throws a CliError when the data directory or the port is taken. */
export const hostHearth = async (wanted: Omit<HearthOptions, "keys">): Promise<HostedHearth> => {
  // MicroVMs run as users of their own and must pass some of our directories. What is closed to them is made so by its mode.
  process.umask(UMASK);
  await using started = new AsyncDisposableStack();
  started.use(lockDataDirectory(wanted.dataDir));
  // Loaded here, because only who serves needs it: the client commands start in half the time without.
  const { assembleHearth } = await import("./assemble.ts");
  const unprivileged = prioritizeLoop();
  if (unprivileged !== null) wanted.log.warn(unprivileged);
  const credentials = await loadOrCreateCredentials(wanted.dataDir, systemClock.wallMs());
  const keys = started.use(new KeyRing(wanted.dataDir, systemClock, wanted.log));
  const hearth = started.use(await assembleHearth({ ...wanted, keys }).catch(explainListen(wanted.listen, "--listen")));
  const endpoint = urlOf(hearth.address, wanted.tls === null ? "http" : "https");
  const metrics = await listenMetrics(wanted, hearth);
  if (metrics !== null) started.use(metrics);
  const { endpoint: file } = dataFiles(wanted.dataDir);
  // The second line: whose certificate this machine's commands may expect there, whatever name is in it.
  await writeFile(file, `${endpoint}\n${wanted.tls === null ? "" : `${resolve(wanted.tls.certFile)}\n`}`);
  started.defer(() => rm(file, { force: true }));
  started.use(await serveControl(wanted.dataDir, hearth, endpoint, systemClock));
  const owned = started.move();
  const metricsUrl = metrics === null ? null : `${urlOf(metrics.address, "http")}/metrics`;
  const { credentials: credentialsFile } = dataFiles(wanted.dataDir);
  return {
    hearth,
    endpoint,
    metricsUrl,
    credentials,
    credentialsFile,
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
};

/** A Hearth with everything at its default on a free port of the loopback: for `demo` and the benches. */
export const hostOnLoopback = (dataDir: string, pool: number | null, logLevel: LogLevel): Promise<HostedHearth> => {
  const logOutput = stderrOutput(systemClock);
  return hostHearth({
    listen: { host: "127.0.0.1", port: 0 },
    metricsListen: null,
    otlp: null,
    dataDir,
    auth: "sigv4",
    allowedHosts: [],
    tls: null,
    accountId: ACCOUNT_DEFAULT,
    region: REGION_DEFAULT,
    hypervisor: "auto",
    memoryMbMax: null,
    overcommit: null,
    slotsMax: null,
    cpu: "soft",
    drivePages: "shared",
    pool,
    network: null,
    nameServers: null,
    networkMbitPerS: null,
    scratchMbMax: null,
    logRateKib: null,
    logsMbMax: null,
    logAgeDaysMax: null,
    networkAllow: [],
    reuse: "always",
    log: createLog({ level: logLevel, format: "text", output: logOutput }),
    logOutput,
  });
};

const urlOf = ({ host, port }: Address, scheme: "http" | "https"): string =>
  `${scheme}://${host.includes(":") ? `[${host}]` : host}:${port}`;

const listenMetrics = (
  { metricsListen, log }: Pick<HearthOptions, "metricsListen" | "log">,
  { metrics }: RunningHearth,
): Promise<MetricsServer | null> =>
  metricsListen === null
    ? Promise.resolve(null)
    : serveMetrics(metricsListen, metrics, log).catch(explainListen(metricsListen, "--metrics"));

const explainListen =
  (listen: Address, option: string) =>
  (error: unknown): never => {
    const code = error instanceof Error && "code" in error ? error.code : null;
    const where = `${listen.host}:${listen.port}`;
    if (code === "EADDRINUSE") {
      throw new CliError(
        `${where} is taken by another program.`,
        `Choose another with ${option} (port 0: any free one).`,
      );
    }
    if (code === "EADDRNOTAVAIL" || code === "EACCES") {
      throw new CliError(`Hearth may not listen on ${where} (${code}).`, `Choose another address with ${option}.`);
    }
    throw error;
  };
