import type { Command } from "commander";
import { systemClock } from "../../lib/clock.ts";
import { addKey, listKeys, removeKey } from "../../daemon/credentials.ts";
import { usageError } from "../../daemon/errors.ts";
import { readKeyUses } from "../../daemon/key-ring.ts";
import { dataDirectory } from "../../daemon/settings.ts";
import { age, table } from "../output.ts";
import { command, commandGroup, dataDirOption, outputOf } from "../program.ts";
import type { CommonOptions } from "../program.ts";

interface KeysOptions extends CommonOptions {
  readonly dataDir?: string;
}

const subcommand = (name: string, summary: string, examples: readonly string[]): Command =>
  command(name, summary, examples).addOption(dataDirOption());

/** `hearth keys`: the keys that may sign. They are files of the data directory, so it must run on the same machine. */
export const keysCommand = (): Command =>
  commandGroup("keys", "Make, list and remove the keys that may call Hearth")
    .addCommand(
      subcommand("add", "Make a key; its secret is shown this once", [
        "hearth keys add ci",
        "hearth keys add ci --json",
      ])
        .argument("<name>", "what the key is called")
        .action(add),
    )
    .addCommand(subcommand("ls", "List the keys, without their secrets", ["hearth keys ls"]).action(list))
    .addCommand(
      subcommand("rm", "Remove a key: a running Hearth refuses it within a second", ["hearth keys rm ci"])
        .argument("<name>", "what the key is called")
        .action(remove),
    );

const directoryOf = (options: KeysOptions): string => dataDirectory(options.dataDir, process.env);

const add = async (name: string, options: KeysOptions): Promise<void> => {
  const output = outputOf(options);
  if (!output.json && !output.terminal) {
    throw usageError(
      "The secret of a key is shown on a terminal only.",
      "Say --json to have it written where this output goes.",
    );
  }
  const made = await addKey(directoryOf(options), name, systemClock.wallMs());
  output.data(made);
  output.line(`Key ${name}; its secret is shown this once:`);
  output.line(`  export AWS_ACCESS_KEY_ID=${made.accessKeyId} AWS_SECRET_ACCESS_KEY=${made.secretAccessKey}`);
};

const ago = (at: string | null, without: string): string =>
  at === null ? without : `${age(systemClock.wallMs() - Date.parse(at))} ago`;

const list = (options: KeysOptions): void => {
  const output = outputOf(options);
  const dataDir = directoryOf(options);
  const uses = readKeyUses(dataDir);
  const keys = listKeys(dataDir).map(({ name, accessKeyId, createdAt }) => {
    const usedMs = uses[accessKeyId];
    return { name, accessKeyId, createdAt, lastUsedAt: usedMs === undefined ? null : new Date(usedMs).toISOString() };
  });
  output.data(keys);
  const rows = keys.map(({ name, accessKeyId, createdAt, lastUsedAt }) => [
    name,
    accessKeyId,
    ago(createdAt, "-"),
    ago(lastUsedAt, "never"),
  ]);
  output.line(table([["NAME", "KEY ID", "MADE", "LAST USED"].map((head) => output.colours.dim(head)), ...rows]));
};

const remove = async (name: string, options: KeysOptions): Promise<void> => {
  const output = outputOf(options);
  await removeKey(directoryOf(options), name);
  output.data({ removed: name });
  output.line(`Removed the key ${name}`);
};
