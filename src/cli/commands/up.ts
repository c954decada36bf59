import { InvalidArgumentError, Option } from "commander";
import type { Command } from "commander";
import { createLog, LOG_LEVELS, stderrOutput } from "../../telemetry/index.ts";
import type { HostLogFormat, LogLevel } from "../../telemetry/index.ts";
import { LOG_RATE_KIB_MAX } from "../../worker/log-rate.ts";
import {
  DRAIN_S_DEFAULT,
  LOG_AGE_DAYS_MAX,
  LOGS_MB_MIN,
  NETWORK_MBIT_MAX,
  OVERCOMMIT_DEFAULT,
  OVERCOMMIT_MAX,
  TIMEOUT_S_MAX,
} from "../../wire/limits.ts";
import type { NetworkMode, ReusePolicy } from "../../wire/slot.ts";
import type { DrivePages } from "../../vmm/config.ts";
import type { CpuPolicy } from "../../worker/cpu-share.ts";
import type { AddressRange } from "../../worker/network/address-range.ts";
import type { TlsFiles } from "../../frontend/frontend.ts";
import { EXIT_OK, usageError } from "../../daemon/errors.ts";
import { HYPERVISORS } from "../../daemon/hearth-options.ts";
import type { HypervisorChoice } from "../../daemon/hearth-options.ts";
import type { Output } from "../output.ts";
import {
  command,
  dataDirOption,
  nameServerOption,
  networkAllowOption,
  networkOption,
  outputOf,
  positiveNumber,
  repeated,
  wholeNumber,
} from "../program.ts";
import type { CommonOptions } from "../program.ts";
import { hostHearth } from "../../daemon/run-hearth.ts";
import type { HostedHearth } from "../../daemon/run-hearth.ts";
import {
  ACCOUNT_DEFAULT,
  dataDirectory,
  isLoopback,
  LISTEN_DEFAULT,
  parseAddress,
  REGION_DEFAULT,
} from "../../daemon/settings.ts";
import { systemClock } from "../../lib/clock.ts";
import { supervisorOf } from "../../daemon/supervisor.ts";
import { otlpEndpoint } from "../../daemon/tracing.ts";

interface UpOptions extends CommonOptions {
  readonly listen: string;
  readonly metrics?: string;
  readonly otlp?: string;
  readonly dataDir?: string;
  readonly auth: "sigv4" | "none";
  readonly allowHost?: readonly string[];
  readonly tlsCert?: string;
  readonly tlsKey?: string;
  readonly hypervisor: HypervisorChoice;
  readonly memory?: number;
  readonly overcommit: number;
  readonly slotsMax?: number;
  readonly cpu: CpuPolicy;
  readonly images: DrivePages;
  readonly pool?: number;
  readonly network?: NetworkMode;
  readonly nameServer?: readonly string[];
  readonly networkAllow?: readonly AddressRange[];
  readonly networkRate?: number;
  readonly scratch?: number;
  readonly logRate?: number;
  readonly logsSize?: number;
  readonly logsAge?: number;
  readonly reuse: ReusePolicy;
  readonly drain: number;
  readonly region: string;
  readonly logFormat?: HostLogFormat;
  readonly logLevel: LogLevel;
}

/** Exit code of a process that a signal ended at once, as shells count them. */
const EXIT_SIGNAL = { SIGINT: 130, SIGTERM: 143 } as const;
const SLOTS_MAX = 100_000;
/** The longest timeout of a function, and as long again for an init and what is behind it. */
const DRAIN_S_MAX: number = 2 * TIMEOUT_S_MAX;
const MS_PER_S = 1_000;
const MEMORY_MB_TOTAL_MAX = 100_000_000;

/** `hearth up`: serves in the foreground until a signal. */
export const upCommand = (): Command =>
  command("up", "Run Hearth in the foreground", [
    "hearth up",
    "hearth up --listen 127.0.0.1:8080 --data-dir ./data",
    "hearth up --reuse never --pool 20",
    "hearth up --overcommit 4        # 4 times this host's memory for all slots together",
    "hearth up --metrics 127.0.0.1:9071",
    "hearth up --otlp http://127.0.0.1:4318",
    "hearth up --auth none          # on the loopback only",
    "hearth up --network-allow 10.1.0.0/16   # functions reach that private network too",
    "hearth up --network none       # functions reach nothing but the Runtime API",
  ])
    .option("--listen <address>", "HOST:PORT to serve the Lambda API on (port 0: any free one)", LISTEN_DEFAULT)
    .addOption(dataDirOption())
    .addOption(
      new Option("--auth <how>", "who may call: sigv4 needs the keys").choices(["sigv4", "none"]).default("sigv4"),
    )
    .option(
      "--allow-host <name>",
      "with --auth none: a further name that requests may be for, and whose web pages may send them (repeatable)",
      hostNames,
    )
    .option(
      "--tls-cert <file>",
      "serve TLS with this certificate and the chain behind it (PEM; read again when it changes)",
    )
    .option("--tls-key <file>", "its private key (PEM)")
    .option("--metrics <address>", "HOST:PORT to serve Prometheus on, at /metrics (default: nowhere)")
    .option(
      "--otlp <url>",
      "base URL of the OTLP receiver to send traces to (else OTEL_EXPORTER_OTLP_ENDPOINT)",
      otlpEndpoint,
    )
    .addOption(new Option("--hypervisor <name>", "what microVMs run on").choices(HYPERVISORS).default("auto"))
    .addOption(
      new Option(
        "--overcommit <ratio>",
        "memory promised to all slots together, as a multiple of this host's (or of its control group's)",
      )
        .argParser(positiveNumber(OVERCOMMIT_MAX))
        .default(OVERCOMMIT_DEFAULT),
    )
    .addOption(
      new Option("--memory <MB>", "the same in MB")
        .argParser(wholeNumber(128, MEMORY_MB_TOTAL_MAX))
        .conflicts("overcommit"),
    )
    .option("--slots-max <count>", "slots at most", wholeNumber(1, SLOTS_MAX))
    .addOption(
      new Option(
        "--cpu <policy>",
        "a function's part of a CPU follows its memory; soft: more while a CPU has time left",
      )
        .choices(["soft", "strict"])
        .default("soft"),
    )
    .addOption(
      new Option(
        "--images <how>",
        "shared: microVMs map one copy of runtimes and code in the host's memory; copied: each has its own",
      )
        .choices(["shared", "copied"])
        .default("shared"),
    )
    .option("--pool <count>", "microVMs kept booted and waiting", wholeNumber(0, SLOTS_MAX))
    .addOption(networkOption())
    .addOption(nameServerOption())
    .addOption(networkAllowOption())
    .addOption(
      new Option("--reuse <policy>", "never: a fresh microVM for every invocation")
        .choices(["always", "never"])
        .default("always"),
    )
    .option(
      "--network-rate <Mbit/s>",
      "what a microVM's network card carries, each way (default: 1000)",
      wholeNumber(1, NETWORK_MBIT_MAX),
    )
    .option(
      "--scratch <MB>",
      "disk that the /tmp of all functions may take together (default: what is free but for a tenth)",
      wholeNumber(1, MEMORY_MB_TOTAL_MAX),
    )
    .option("--log-rate <KB>", "a second of log that one microVM may go on writing", wholeNumber(1, LOG_RATE_KIB_MAX))
    .option(
      "--logs-size <MB>",
      "functions' logs kept, all together (default: a tenth of the disk, 4096 at most)",
      wholeNumber(LOGS_MB_MIN, MEMORY_MB_TOTAL_MAX),
    )
    .option("--logs-age <days>", "how long functions' logs are kept", wholeNumber(1, LOG_AGE_DAYS_MAX))
    .option(
      "--drain <seconds>",
      "how long running invocations may go on after SIGTERM or SIGINT",
      wholeNumber(0, DRAIN_S_MAX),
      DRAIN_S_DEFAULT,
    )
    .addOption(
      new Option("--region <name>", "AWS region to be").argParser(regionName).default(REGION_DEFAULT).env("AWS_REGION"),
    )
    .addOption(
      new Option("--log-format <format>", "of Hearth's own log (default: text on a terminal)").choices([
        "text",
        "json",
      ]),
    )
    .addOption(new Option("--log-level <level>", "of Hearth's own log").choices(LOG_LEVELS).default("info"))
    .action(async (options: UpOptions) => {
      await run(options);
      // All is closed. What a receiver of traces still owes an answer to must not keep the process.
      process.exit(EXIT_OK);
    });

const run = async (options: UpOptions): Promise<void> => {
  const output = outputOf(options);
  const listen = parseAddress(options.listen);
  if (options.auth === "none" && !isLoopback(listen.host)) {
    throw usageError(
      `--auth none is refused on ${listen.host}: everyone who reaches it could run code here.`,
      "Listen on 127.0.0.1, or leave --auth away.",
    );
  }
  if (options.auth !== "none" && options.allowHost !== undefined) {
    throw usageError(
      "--allow-host does nothing with authentication: signed requests are taken whatever name they are for.",
      "Leave it away, or say --auth none.",
    );
  }
  const format = options.logFormat ?? (process.stderr.isTTY ? "text" : "json");
  const logOutput = stderrOutput(systemClock);
  const colours = output.colours.isColorSupported;
  const log = createLog({ level: options.logLevel, format, output: logOutput, colours });
  // Nobody needs to read what it announces: a service goes on without.
  process.stdout.removeAllListeners("error").on("error", (error) => log.warn({ err: error }, "stdout is closed"));
  const dataDir = dataDirectory(options.dataDir, process.env);
  // Listening before anything starts: a signal during the start must not leave microVMs behind.
  const stop = stopSignal();
  await using hosted = await hostHearth({
    listen,
    otlp: options.otlp ?? null,
    metricsListen: options.metrics === undefined ? null : parseAddress(options.metrics),
    dataDir,
    auth: options.auth,
    allowedHosts: options.allowHost ?? [],
    tls: tlsOf(options),
    accountId: ACCOUNT_DEFAULT,
    region: options.region,
    hypervisor: options.hypervisor,
    memoryMbMax: options.memory ?? null,
    overcommit: options.overcommit,
    slotsMax: options.slotsMax ?? null,
    cpu: options.cpu,
    drivePages: options.images,
    pool: options.pool ?? null,
    network: options.network ?? null,
    nameServers: options.nameServer ?? null,
    networkAllow: options.networkAllow ?? [],
    networkMbitPerS: options.networkRate ?? null,
    scratchMbMax: options.scratch ?? null,
    logRateKib: options.logRate ?? null,
    logsMbMax: options.logsSize ?? null,
    logAgeDaysMax: options.logsAge ?? null,
    reuse: options.reuse,
    log,
    logOutput,
  });
  using supervisor = supervisorOf(process.env, dataDir, systemClock, log);
  announce(output, hosted, options);
  supervisor.ready(`Serves ${hosted.endpoint}`);
  const signal = await stop;
  supervisor.stopping(`Stops: running invocations have ${options.drain} s to end`);
  log.info({ signal, drainS: options.drain }, "stopping: running invocations may end; a second signal stops at once");
  await hosted.hearth.drain(options.drain * MS_PER_S);
};

/** The files of --tls-cert and --tls-key; null without both. Throws a usage error when one is missing. */
const tlsOf = ({ tlsCert, tlsKey }: UpOptions): TlsFiles | null => {
  if (tlsCert === undefined && tlsKey === undefined) return null;
  if (tlsCert === undefined || tlsKey === undefined) {
    throw usageError("--tls-cert and --tls-key need each other.", "Name both files, or neither.");
  }
  return { certFile: tlsCert, keyFile: tlsKey };
};

/** For commander: collects host names, without a port. */
const hostNames = (text: string, previous: readonly string[] | undefined): readonly string[] => {
  if (!/^[\w.-]+$/.test(text) && !/^\[[0-9a-fA-F:.]+\]$/.test(text)) {
    throw new InvalidArgumentError("A host's name or address without a port is expected, such as hearth.example.");
  }
  return repeated(text.replace(/^\[(.*)\]$/, "$1"), previous);
};

/** For commander: a region's name, which stands in ARNs, in signatures and in the lines that people paste into a shell. */
const regionName = (text: string): string => {
  if (/^[a-z0-9]([a-z0-9-]{0,62}[a-z0-9])?$/.test(text)) return text;
  throw new InvalidArgumentError("A region's name is expected, such as us-east-1.");
};

/** Resolves at the first SIGINT or SIGTERM; the second ends the process at once. */
const stopSignal = (): Promise<keyof typeof EXIT_SIGNAL> => {
  const { promise, resolve } = Promise.withResolvers<keyof typeof EXIT_SIGNAL>();
  let told = false;
  const onSignal = (signal: keyof typeof EXIT_SIGNAL): void => {
    if (told) process.exit(EXIT_SIGNAL[signal]);
    told = true;
    resolve(signal);
  };
  process.on("SIGINT", onSignal);
  process.on("SIGTERM", onSignal);
  return promise;
};

const announce = (output: Output, hosted: HostedHearth, options: UpOptions): void => {
  const { endpoint, metricsUrl, credentials, credentialsFile, hearth } = hosted;
  output.data({
    endpoint,
    metricsUrl,
    accessKeyId: credentials.accessKeyId,
    credentialsFile,
    region: options.region,
    hypervisor: hearth.hypervisor,
    network: hearth.network,
    pid: process.pid,
  });
  const { bold, dim, green } = output.colours;
  output.line(`${green("●")} ${bold("Hearth")} serves the Lambda API at ${bold(endpoint)}`);
  output.line(dim(`  microVMs by ${hearth.hypervisor.name}: ${hearth.hypervisor.reason}`));
  if (metricsUrl !== null) output.line(dim(`  metrics for Prometheus: ${metricsUrl}`));
  output.line(dim(`  network of functions: ${hearth.network.mode} (${hearth.network.reason})`));
  output.line("\nFor the AWS CLI and every SDK, paste:");
  output.line(`  export ${keyVariables(output, hosted, options)}`);
  output.line(
    `  export AWS_REGION=${options.region} AWS_DEFAULT_REGION=${options.region} AWS_ENDPOINT_URL_LAMBDA=${endpoint}`,
  );
  output.line(
    dim(`\n  An AWS CLI older than 2.13 needs --endpoint-url ${endpoint} with every call. Ctrl-C stops Hearth.`),
  );
};

/** Variables that give the AWS tools the keys. A secret is shown on a terminal only: what is no terminal may be a log. */
const keyVariables = (output: Output, { credentials, credentialsFile }: HostedHearth, options: UpOptions): string => {
  if (options.auth === "none") return "AWS_ACCESS_KEY_ID=any AWS_SECRET_ACCESS_KEY=any";
  if (!output.terminal) return `AWS_SHARED_CREDENTIALS_FILE=${credentialsFile} AWS_PROFILE=${credentials.name}`;
  return `AWS_ACCESS_KEY_ID=${credentials.accessKeyId} AWS_SECRET_ACCESS_KEY=${credentials.secretAccessKey}`;
};
