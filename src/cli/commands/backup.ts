import type { Command } from "commander";
import { dirname, resolve } from "node:path";
import { existsSync } from "node:fs";
import { systemClock } from "../../lib/clock.ts";
import { CliError } from "../../daemon/errors.ts";
import { dataDirectory, version } from "../../daemon/settings.ts";
import { writeBackup } from "../../store/backup/backup.ts";
import { bytes } from "../output.ts";
import { command, dataDirOption, outputOf } from "../program.ts";
import type { CommonOptions } from "../program.ts";

interface BackupCommandOptions extends CommonOptions {
  readonly dataDir?: string;
  readonly keys: boolean;
  readonly force?: boolean;
}

/** `hearth backup`: everything that cannot be remade, in one file, while Hearth runs or not. */
export const backupCommand = (): Command =>
  command("backup", "Write functions, events, code and keys into one file, while Hearth runs", [
    "hearth backup /backups/hearth.tar",
    "hearth backup /backups/hearth.tar.zst --no-keys   # as secret as the code only",
  ])
    .argument("<file>", "tar to write; compressed when its name ends in .zst")
    .option("--no-keys", "leave out the keys of environment variables and of the API")
    .option("--force", "replace a file that is there")
    .addOption(dataDirOption())
    .action(run);

const run = async (name: string, options: BackupCommandOptions): Promise<void> => {
  const output = outputOf(options);
  const file = resolve(name);
  if (existsSync(file) && options.force !== true) {
    throw new CliError(`${file} is there already.`, "Name another file, or say --force.");
  }
  if (!existsSync(dirname(file))) {
    throw new CliError(`There is no directory ${dirname(file)} to write the backup to.`, "Make it first.");
  }
  const manifest = await writeBackup({
    dataDir: dataDirectory(options.dataDir, process.env),
    file,
    keys: options.keys,
    hearth: version(),
    nowMs: systemClock.wallMs(),
  });
  output.data({ file, ...manifest });
  const { functions, versions, events, files, missing } = manifest;
  const total = files.reduce((sum, each) => sum + each.bytes, 0);
  output.line(
    `${file}: ${functions} functions, ${versions} versions, ${events} events, ${bytes(total)} in ${files.length} files`,
  );
  output.line(
    options.keys
      ? "The keys of environment variables and of the API are inside: keep the file as safe as them."
      : "The keys are not inside: keep the folder keys and the file credentials elsewhere, or variables are lost with them.",
  );
  for (const digest of missing) output.note(`hearth: The archive ${digest}.zip was not there; see \`hearth check\`.`);
};
