import { Command, InvalidArgumentError, Option } from "commander";
import { createOutput } from "./output.ts";
import type { Output } from "./output.ts";
import { clientSettings, LISTEN_DEFAULT } from "./settings.ts";
import type { ClientSettings } from "./settings.ts";

/** Options that every command has. */
export interface CommonOptions {
  readonly json?: boolean;
}

/** Options of the commands that talk to a running Hearth. */
export interface ClientOptions extends CommonOptions {
  readonly endpoint?: string;
  readonly dataDir?: string;
}

/** A command with --json, and its examples under its help. */
export const command = (name: string, summary: string, examples: readonly string[]): Command =>
  new Command(name)
    .summary(summary)
    .description(`${summary}.`)
    .option("--json", "machine-readable output on stdout")
    .showHelpAfterError(`(see \`hearth help ${name}\`)`)
    .addHelpText("after", `\nExamples:\n${examples.map((example) => `  $ ${example}`).join("\n")}`);

/** A command that talks to a running Hearth. */
export const clientCommand = (name: string, summary: string, examples: readonly string[]): Command =>
  command(name, summary, examples)
    .addOption(
      new Option("--endpoint <url>", `where Hearth listens (else HEARTH_ENDPOINT, else http://${LISTEN_DEFAULT})`),
    )
    .addOption(dataDirOption());

export const dataDirOption = (): Option =>
  new Option("--data-dir <dir>", "Hearth's data directory (else HEARTH_DATA_DIR)");

/** For commander: a whole number within bounds. */
export const wholeNumber =
  (from: number, to: number) =>
  (text: string): number => {
    const value = Number(text);
    if (!/^\d+$/.test(text) || value < from || value > to) {
      throw new InvalidArgumentError(`A whole number from ${from} to ${to} is expected.`);
    }
    return value;
  };

/** For commander: collects a repeated option. */
export const repeated = (value: string, previous: readonly string[] | undefined): readonly string[] => [
  ...(previous ?? []),
  value,
];

export const outputOf = (options: CommonOptions): Output => createOutput(options.json === true);

export const settingsOf = (options: ClientOptions): ClientSettings => clientSettings(options, process.env);
