import type { Command } from "commander";
import { existsSync } from "node:fs";
import { resolve } from "node:path";
import { usageError } from "../../daemon/errors.ts";
import { dataDirectory } from "../../daemon/settings.ts";
import { restoreBackup } from "../../store/backup/restore.ts";
import { command, dataDirOption, outputOf } from "../program.ts";
import type { CommonOptions } from "../program.ts";

interface RestoreOptions extends CommonOptions {
  readonly dataDir?: string;
}

/** `hearth restore`: a backup becomes a data directory, whole or not at all. */
export const restoreCommand = (): Command =>
  command("restore", "Restore a backup into an empty data directory", [
    "hearth restore /backups/hearth.tar",
    "hearth restore /backups/hearth.tar.zst --data-dir /srv/hearth",
  ])
    .argument("<file>", "what `hearth backup` wrote")
    .addOption(dataDirOption())
    .action(run);

const run = async (name: string, options: RestoreOptions): Promise<void> => {
  const output = outputOf(options);
  const file = resolve(name);
  if (!existsSync(file)) throw usageError(`There is no file ${file}.`);
  const dataDir = dataDirectory(options.dataDir, process.env);
  const manifest = await restoreBackup(file, dataDir);
  output.data({ file, dataDir, ...manifest });
  const { functions, versions, events, madeAt, keys } = manifest;
  output.line(`${dataDir}: ${functions} functions, ${versions} versions, ${events} events, as of ${madeAt}`);
  if (!keys) {
    output.line(
      "The keys were not in the backup: put the folder keys and the file credentials there before Hearth starts, or new ones are made, and functions with variables are Failed.",
    );
  }
};
