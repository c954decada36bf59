import type { Command } from "commander";
import { existsSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { logFilesOf, LogReader } from "../../telemetry/index.ts";
import type { StoredRecord } from "../../telemetry/index.ts";
import { CliError, usageError } from "../../daemon/errors.ts";
import { visible } from "../../lib/visible.ts";
import type { Output } from "../output.ts";
import { command, dataDirOption, outputOf, wholeNumber } from "../program.ts";
import type { CommonOptions } from "../program.ts";
import { dataDirectory, dataFiles } from "../../daemon/settings.ts";

interface LogsOptions extends CommonOptions {
  readonly dataDir?: string;
  readonly follow?: boolean;
  readonly since?: string;
  readonly lines?: number;
  readonly raw?: boolean;
}

const LINES_MAX = 1_000_000;
const POLL_MS = 200;

/** `hearth logs`: reads the files of a function's log in the data directory, so it must run on the same machine. */
export const logsCommand = (): Command =>
  command("logs", "Print the log of a function", [
    "hearth logs hello",
    "hearth logs hello -f",
    "hearth logs hello --since 15m -n 1000",
    "hearth logs hello --json | jq -r .text",
  ])
    .argument("<name>", "name of the function")
    .option("-f, --follow", "go on printing what is added")
    .option("--since <when>", "only records younger than this: 30s, 15m, 2h, 7d, or a date")
    .option("-n, --lines <count>", "so many of the last records", wholeNumber(0, LINES_MAX))
    .option("--raw", "the text alone and as it was written; else what would command a terminal is written out (\\x1b)")
    .addOption(dataDirOption())
    .action(run);

const run = async (name: string, options: LogsOptions): Promise<void> => {
  const output = outputOf(options);
  const dataDir = dataDirectory(options.dataDir, process.env);
  const directory = dataFiles(dataDir).logs;
  if (!/^[\w-]+$/.test(name)) throw usageError(`"${name}" is no name of a function.`, "Leave version and ARN away.");
  if (!existsSync(dataDir)) {
    throw new CliError(`There is no data directory ${dataDir}.`, "Name Hearth's with --data-dir or HEARTH_DATA_DIR.");
  }
  const sinceMs = options.since === undefined ? 0 : parseSince(options.since, Date.now());
  const files = await logFilesOf(directory, name);
  if (files.length === 0 && options.follow !== true) {
    throw new CliError(
      `Function ${name} has no log in ${directory}.`,
      "It may never have been invoked: hearth invoke it.",
    );
  }
  await using reader = new LogReader(directory, name);
  let kept: StoredRecord[] = [];
  for (;;) {
    const records = await reader.next();
    if (records.length === 0) break;
    kept.push(...records.filter((record) => record.timeMs >= sinceMs));
    if (options.lines !== undefined) kept = options.lines === 0 ? [] : kept.slice(-options.lines);
  }
  for (const record of kept) print(output, record, options.raw === true);
  if (options.follow === true) await follow(output, reader, sinceMs, options.raw === true);
};

const print = (output: Output, record: StoredRecord, raw: boolean): void => {
  if (raw) {
    process.stdout.write(record.text.endsWith("\n") ? record.text : `${record.text}\n`);
    return;
  }
  output.data(record);
  const { dim, red, cyan } = output.colours;
  const platform = /^(?:START|END|REPORT|INIT_START|INIT_REPORT|LOGS_DROPPED|XRAY) /.test(record.text);
  const bad = /Status: (?:error|timeout)|Task timed out/.test(record.text);
  const text = visible(record.text).replace(/\n+$/, "");
  output.line(`${dim(new Date(record.timeMs).toISOString())}  ${bad ? red(text) : platform ? cyan(text) : text}`);
};

/** Prints what is added, until the process is told to stop. */
const follow = async (output: Output, reader: LogReader, sinceMs: number, raw: boolean): Promise<never> => {
  for (;;) {
    const { gaps } = reader;
    const records = await reader.next();
    if (reader.gaps > gaps) output.note("Some of the log was rotated away before it could be read.");
    for (const record of records) if (record.timeMs >= sinceMs) print(output, record, raw);
    if (records.length === 0) await sleep(POLL_MS);
  }
};

const UNITS_MS: Readonly<Record<string, number>> = { s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 };

/** Unix ms of `15m` (ago) or of a date. Throws a usage error. */
export const parseSince = (text: string, nowMs: number): number => {
  const match = /^(\d+)([smhd])$/.exec(text);
  const unit = UNITS_MS[match?.[2] ?? ""];
  if (match !== null && unit !== undefined) return nowMs - Number(match[1]) * unit;
  const date = Date.parse(text);
  if (Number.isNaN(date))
    throw usageError(`"${text}" is no time.`, "Write 30s, 15m, 2h, 7d, or a date like 2026-01-31.");
  return date;
};
