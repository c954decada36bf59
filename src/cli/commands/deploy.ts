import { Argument, Option } from "commander";
import type { Command } from "commander";
import { basename, extname, resolve } from "node:path";
import {
  EPHEMERAL_MB_MAX,
  EPHEMERAL_MB_MIN,
  FUNCTION_BARE_NAME_CHARS_MAX,
  MEMORY_MB_MAX,
  MEMORY_MB_MIN,
  TIMEOUT_S_MAX,
  TIMEOUT_S_MIN,
} from "../../wire/limits.ts";
import { lambdaClient } from "../client.ts";
import { readCode } from "../code.ts";
import { deploy } from "../deploy.ts";
import type { Deployment } from "../deploy.ts";
import { usageError } from "../../daemon/errors.ts";
import { bytes } from "../output.ts";
import { clientCommand, outputOf, repeated, settingsOf, wholeNumber } from "../program.ts";
import type { ClientOptions } from "../program.ts";

interface DeployOptions extends ClientOptions {
  readonly name?: string;
  readonly runtime?: string;
  readonly handler?: string;
  readonly memory?: number;
  readonly timeout?: number;
  readonly tmp?: number;
  readonly description?: string;
  readonly role?: string;
  readonly env?: readonly string[];
  readonly reuse?: "always" | "never";
}

/** `hearth deploy`: makes or updates a function from a directory, a zip or a file. */
export const deployCommand = (): Command =>
  clientCommand("deploy", "Create or update a function from a directory, a zip or a single file", [
    "hearth deploy ./my-function",
    "hearth deploy hello.mjs --name hello --memory 256 --timeout 10",
    "hearth deploy build/bootstrap --name native --env STAGE=test --env DEBUG=1",
    "hearth deploy code.zip --name strict --runtime nodejs24.x --handler index.handler --reuse never",
  ])
    .addArgument(new Argument("<code>", "directory, .zip, .js/.mjs/.py file, or program to be the bootstrap"))
    .option("--name <name>", "name of the function (else that of the code)")
    .option("--runtime <runtime>", "such as nodejs24.x, python3.11, provided.al2023 (else guessed from the code)")
    .option("--handler <handler>", "such as index.handler (else guessed from the code)")
    .option("--memory <MB>", "memory of the function", wholeNumber(MEMORY_MB_MIN, MEMORY_MB_MAX))
    .option("--timeout <s>", "seconds an invocation may take", wholeNumber(TIMEOUT_S_MIN, TIMEOUT_S_MAX))
    .option("--tmp <MB>", "size of /tmp", wholeNumber(EPHEMERAL_MB_MIN, EPHEMERAL_MB_MAX))
    .option("--description <text>", "what it does")
    .option("--role <arn>", "execution role, as the function sees it")
    .option("--env <NAME=VALUE>", "environment variable (may be repeated; replaces the function's set)", repeated)
    .addOption(
      new Option("--reuse <policy>", "never: every invocation gets a fresh microVM").choices(["always", "never"]),
    )
    .action(run);

const run = async (path: string, options: DeployOptions): Promise<void> => {
  const output = outputOf(options);
  const settings = settingsOf(options);
  const { zip, guess } = await readCode(path);
  const runtime = options.runtime ?? guess?.runtime;
  const handler =
    options.handler ?? (guess?.runtime === runtime || options.runtime === undefined ? guess?.handler : undefined);
  if (runtime === undefined) {
    throw usageError(
      `The runtime of ${path} cannot be guessed: it has no index.js, index.mjs, lambda_function.py, app.py or bootstrap.`,
      "Name it with --runtime and --handler.",
    );
  }
  if (handler === undefined) throw usageError(`The handler of ${path} cannot be guessed.`, "Name it with --handler.");
  const wanted: Deployment = {
    name: options.name ?? nameFrom(path),
    zip,
    runtime,
    handler,
    ...(options.memory === undefined ? {} : { memoryMb: options.memory }),
    ...(options.timeout === undefined ? {} : { timeoutS: options.timeout }),
    ...(options.tmp === undefined ? {} : { ephemeralMb: options.tmp }),
    ...(options.description === undefined ? {} : { description: options.description }),
    ...(options.role === undefined ? {} : { role: options.role }),
    ...(options.env === undefined ? {} : { environment: environmentFrom(options.env) }),
    ...(options.reuse === undefined ? {} : { reuse: options.reuse }),
  };
  const client = lambdaClient(settings);
  const deployed = await deploy(client, wanted);
  client.destroy();
  output.data(deployed.configuration);
  const { bold, dim } = output.colours;
  output.line(
    `${deployed.created ? "Created" : "Updated"} ${bold(wanted.name)} ${dim(`(${runtime}, ${bytes(zip.length)})`)}`,
  );
  output.line(deployed.functionArn);
  output.line(`Invoke it:  hearth invoke ${wanted.name} --payload '{"name":"you"}'`);
};

/** `./my function/` → my-function */
const nameFrom = (path: string): string => {
  const base = basename(resolve(path));
  const name = base
    .slice(0, base.length - extname(base).length)
    .replaceAll(/[^\w-]+/g, "-")
    .slice(0, FUNCTION_BARE_NAME_CHARS_MAX);
  if (name === "" || /^-+$/.test(name))
    throw usageError(`No name can be made of ${path}.`, "Name the function with --name.");
  return name;
};

const environmentFrom = (pairs: readonly string[]): Record<string, string> => {
  const environment: Record<string, string> = {};
  for (const pair of pairs) {
    // Names as the service takes them: a letter, then at least one more character.
    const match = /^([A-Za-z]\w+)=([\s\S]*)$/.exec(pair);
    if (match?.[1] === undefined) {
      throw usageError(`"${pair}" is no NAME=VALUE.`, "A name is a letter and at least one more letter, digit or _.");
    }
    environment[match[1]] = match[2] ?? "";
  }
  return environment;
};
