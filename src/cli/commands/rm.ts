import { DeleteFunctionCommand, ResourceNotFoundException } from "@aws-sdk/client-lambda";
import type { Command } from "commander";
import { createInterface } from "node:readline/promises";
import { lambdaClient } from "../client.ts";
import { CliError, EXIT_FAILURE, usageError } from "../../daemon/errors.ts";
import { clientCommand, outputOf, settingsOf } from "../program.ts";
import type { ClientOptions } from "../program.ts";

interface RmOptions extends ClientOptions {
  readonly yes?: boolean;
}

/** `hearth rm`: removes functions, with all their versions. */
export const rmCommand = (): Command =>
  clientCommand("rm", "Remove functions with all their versions", ["hearth rm hello", "hearth rm one two three --yes"])
    .argument("<name...>", "names or ARNs")
    .option("-y, --yes", "do not ask")
    .action(run);

const run = async (names: readonly string[], options: RmOptions): Promise<void> => {
  const output = outputOf(options);
  const settings = settingsOf(options);
  if (options.yes !== true) await confirm(names);
  const client = lambdaClient(settings);
  const missing: string[] = [];
  const removed: string[] = [];
  for (const name of names) {
    try {
      await client.send(new DeleteFunctionCommand({ FunctionName: name }));
      removed.push(name);
      output.line(`Removed ${name}`);
    } catch (error) {
      if (!(error instanceof ResourceNotFoundException)) throw error;
      missing.push(name);
      output.note(`hearth: There is no function ${name}.`);
    }
  }
  client.destroy();
  output.data({ removed, missing });
  if (missing.length > 0) process.exitCode = EXIT_FAILURE;
};

const confirm = async (names: readonly string[]): Promise<void> => {
  if (!process.stdin.isTTY) throw usageError("There is no terminal to ask on.", "Say --yes to remove without asking.");
  const questions = createInterface({ input: process.stdin, output: process.stderr });
  const answer = await questions.question(`Remove ${names.join(", ")} with all versions? [y/N] `);
  questions.close();
  if (!/^y(es)?$/i.test(answer.trim())) throw new CliError("Nothing was removed.");
};
