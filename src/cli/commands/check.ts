import type { Command } from "commander";
import { systemClock } from "../../lib/clock.ts";
import { CliError, EXIT_FAILURE } from "../../daemon/errors.ts";
import { lockDataDirectory } from "../../daemon/lock.ts";
import { dataDirectory } from "../../daemon/settings.ts";
import { checkDataDirectory } from "../../store/check.ts";
import type { CheckFinding, CheckResult } from "../../store/check.ts";
import { existsSync } from "node:fs";
import { command, dataDirOption, outputOf } from "../program.ts";
import type { Output } from "../output.ts";
import type { CommonOptions } from "../program.ts";

interface CheckCommandOptions extends CommonOptions {
  readonly dataDir?: string;
  readonly repair?: boolean;
}

/** `hearth check`: reads all of a data directory; exit code 1 when something is wrong and was not repaired. */
export const checkCommand = (): Command =>
  command("check", "Read all data, and say what is damaged or missing", [
    "hearth check",
    "hearth check --json",
    "hearth check --repair          # while no Hearth runs",
  ])
    .option("--repair", "put right what can be put right; not while Hearth runs")
    .addOption(dataDirOption())
    .action(run);

const run = async (options: CheckCommandOptions): Promise<void> => {
  const output = outputOf(options);
  const dataDir = dataDirectory(options.dataDir, process.env);
  if (!existsSync(dataDir)) throw new CliError(`There is no data directory ${dataDir}.`, "Name it with --data-dir.");
  const repair = options.repair === true;
  using _lock = repair ? lockDataDirectory(dataDir) : null;
  const credentialsDirectory = process.env["CREDENTIALS_DIRECTORY"];
  const result = await checkDataDirectory({ dataDir, repair, clock: systemClock, credentialsDirectory });
  const wrong = result.findings.filter((finding) => !finding.repaired);
  output.data({ dataDir, whole: wrong.length === 0, ...result });
  print(output, result, repair);
  if (wrong.length > 0) process.exitCode = EXIT_FAILURE;
};

const print = (output: Output, result: CheckResult, repair: boolean): void => {
  const { green, red, yellow } = output.colours;
  const { findings, functions, versions, events, code } = result;
  for (const finding of findings) {
    const mark = finding.repaired ? green("mended") : finding.repair === null ? red("BAD   ") : yellow("bad   ");
    output.line(`${mark}  ${sentence(finding, repair)}`);
  }
  output.line(
    `${functions} functions, ${versions} versions, ${events} events, ${code} archives and their images were read.`,
  );
  if (findings.length === 0) output.line(green("All is as it was written."));
  else if (!repair && findings.some((finding) => finding.repair !== null)) {
    output.line("`hearth check --repair` mends what says so, while no Hearth runs.");
  }
};

const sentence = ({ area, subject, problem, repair, repaired }: CheckFinding, asked: boolean): string => {
  const what = `${area} ${subject}: ${problem}`;
  if (repair === null || (asked && !repaired)) return what;
  return `${what} (repair: ${repair})`;
};
