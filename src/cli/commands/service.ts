import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { readFile, rm, writeFile } from "node:fs/promises";
import { isAbsolute, join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import type { Command } from "commander";
import { CliError, EXIT_FAILURE, usageError } from "../../daemon/errors.ts";
import { unitOf } from "../../daemon/unit.ts";
import { makeDirectory } from "../../lib/files.ts";
import type { Output } from "../output.ts";
import { command, commandGroup, outputOf } from "../program.ts";
import type { CommonOptions } from "../program.ts";
import { upCommand } from "./up.ts";

interface ServiceOptions extends CommonOptions {
  readonly unitDir: string;
}

interface InstallOptions extends ServiceOptions {
  readonly dataDir: string;
  readonly print?: boolean;
  readonly start: boolean;
}

const UNIT = "hearth.service";
const UNIT_DIRECTORY = "/etc/systemd/system";
const DATA_DIRECTORY = "/var/lib/hearth";
const CACHE_DIRECTORY = "/var/cache/hearth";
/** Is there when systemd is the machine's service manager (sd_booted(3)). */
const BOOTED = "/run/systemd/system";
const SYSTEMCTL_MS_MAX = 300_000;

/** `hearth service`: Hearth under systemd. */
export const serviceCommand = (): Command =>
  commandGroup("service", "Run Hearth as a service of this machine, under systemd")
    .addCommand(
      withUnitDirectory("install", "Write the unit, and start Hearth now and with the machine", [
        "hearth service install",
        "hearth service install -- --listen 0.0.0.0:9070 --tls-cert /etc/hearth/cert.pem --tls-key /etc/hearth/key.pem",
        "hearth service install --print -- --drain 120",
      ])
        .argument("[options...]", "options of `hearth up`, after --")
        .option("--data-dir <dir>", "Hearth's data directory", DATA_DIRECTORY)
        .option("--print", "write the unit to stdout and do nothing")
        .option("--no-start", "write the unit, and start nothing")
        .action(install),
    )
    .addCommand(
      withUnitDirectory("remove", "Stop Hearth and remove the unit; its data stays", ["hearth service remove"]).action(
        remove,
      ),
    )
    .addCommand(
      withUnitDirectory("status", "Say whether Hearth is installed, runs and starts with the machine", [
        "hearth service status",
      ]).action(status),
    );

const withUnitDirectory = (name: string, summary: string, examples: readonly string[]): Command =>
  command(name, summary, examples).option("--unit-dir <dir>", "where systemd looks for units", UNIT_DIRECTORY);

const systemctl = (...args: readonly string[]): Promise<string> =>
  promisify(execFile)("systemctl", args, { timeout: SYSTEMCTL_MS_MAX }).then(({ stdout }) => stdout.trim());

/** Checks options of `hearth up` as it would itself. Returns its drain. Throws what it would. */
const checkUp = (args: readonly string[]): number => {
  const up = upCommand().exitOverride();
  up.action(() => undefined).parse([...args], { from: "user" });
  const { drain, tlsCert, tlsKey, json, dataDir } = up.opts<Record<string, unknown>>();
  if (json === true) throw usageError("--json is for programs that start Hearth themselves.", "Leave it away.");
  if (dataDir !== undefined) throw usageError("Name the data directory to the service: --data-dir before the --.");
  for (const file of [tlsCert, tlsKey]) {
    if (typeof file === "string" && !isAbsolute(file)) {
      throw usageError(`A service has no directory of yours to find ${file} in.`, "Write its whole path.");
    }
  }
  return Number(drain);
};

const install = async (args: readonly string[], options: InstallOptions): Promise<void> => {
  const output = outputOf(options);
  if (!isAbsolute(options.dataDir)) throw usageError(`--data-dir must be a whole path, got ${options.dataDir}.`);
  const main = fileURLToPath(new URL("../main.ts", import.meta.url));
  const dataDir = options.dataDir;
  const drainS = checkUp(args);
  const text = unitOf({ node: process.execPath, main, dataDir, cacheDir: CACHE_DIRECTORY, args, drainS });
  if (options.print === true) {
    process.stdout.write(text);
    return;
  }
  const file = join(options.unitDir, UNIT);
  const previous = await readFile(file, "utf8").catch(() => null);
  // The unit may write below it, so it must be there.
  makeDirectory(dataDir, 0o711);
  await writeFile(file, text, { mode: 0o644 }).catch((error: unknown) => {
    throw new CliError(
      `${file} cannot be written: ${error instanceof Error ? error.message : String(error)}.`,
      "Run this as root, or name another place with --unit-dir.",
    );
  });
  const started = options.start && existsSync(BOOTED);
  if (started) {
    await systemctl("daemon-reload");
    await systemctl("enable", UNIT);
    // Waits until Hearth has said that it serves.
    await systemctl("restart", UNIT).catch(() => {
      throw new CliError(`${file} is written, but Hearth did not start.`, `See why: journalctl -u ${UNIT} -n 50`);
    });
  }
  output.data({ unit: file, changed: previous !== text, started });
  output.line(`${previous === null ? "Wrote" : previous === text ? "Kept" : "Changed"} ${file}`);
  if (started) output.line("Hearth runs, and starts with this machine. Its log: journalctl -u hearth");
  else if (options.start) output.note("systemd does not run here, so nothing was started.");
};

const remove = async (options: ServiceOptions): Promise<void> => {
  const output = outputOf(options);
  const file = join(options.unitDir, UNIT);
  if (!existsSync(file)) throw new CliError(`There is no ${file}.`, "It was not installed, or elsewhere: --unit-dir");
  const booted = existsSync(BOOTED);
  if (booted) await systemctl("disable", "--now", UNIT);
  await rm(file);
  if (booted) await systemctl("daemon-reload");
  output.data({ removed: file });
  output.line(`Removed ${file}. The data stay where they are.`);
};

const status = async (options: ServiceOptions): Promise<void> => {
  const output = outputOf(options);
  const file = join(options.unitDir, UNIT);
  const about = await stateOf(file);
  output.data(about);
  say(output, file, about);
  if (about.active !== "active") process.exitCode = EXIT_FAILURE;
};

interface ServiceState {
  readonly installed: boolean;
  /** As systemd calls it; null when systemd does not run here. */
  readonly active: string | null;
  readonly enabled: string | null;
}

/** What systemd prints; both verbs answer by exit code too. */
const word = (verb: string): Promise<string> =>
  systemctl(verb, UNIT).catch((error: unknown) =>
    typeof error === "object" && error !== null && "stdout" in error ? String(error.stdout).trim() : "unknown",
  );

const stateOf = async (file: string): Promise<ServiceState> => {
  const installed = existsSync(file);
  if (!existsSync(BOOTED)) return { installed, active: null, enabled: null };
  return { installed, active: await word("is-active"), enabled: await word("is-enabled") };
};

const say = (output: Output, file: string, { installed, active, enabled }: ServiceState): void => {
  output.line(installed ? `The unit is ${file}` : `There is no ${file}: hearth service install`);
  if (active === null) output.line("systemd does not run here.");
  else
    output.line(`Hearth is ${active}, and ${enabled === "enabled" ? "starts" : "does not start"} with this machine.`);
};
