import { InvokeCommand } from "@aws-sdk/client-lambda";
import type { InvokeCommandOutput } from "@aws-sdk/client-lambda";
import { Option } from "commander";
import type { Command } from "commander";
import { readFile } from "node:fs/promises";
import { buffer } from "node:stream/consumers";
import { visible } from "../../lib/visible.ts";
import { lambdaClient } from "../client.ts";
import { EXIT_FAILURE, usageError } from "../../daemon/errors.ts";
import { clientCommand, outputOf, settingsOf } from "../program.ts";
import type { ClientOptions } from "../program.ts";

interface InvokeOptions extends ClientOptions {
  readonly payload: string;
  readonly qualifier?: string;
  readonly async?: boolean;
  readonly tail?: boolean;
  readonly log?: boolean;
  readonly clientContext?: string;
  readonly raw?: boolean;
}

/** `hearth invoke`: one invocation. The answer goes to stdout; a function's error to stderr, with exit code 1. */
export const invokeCommand = (): Command =>
  clientCommand("invoke", "Invoke a function and print its answer", [
    `hearth invoke hello --payload '{"name":"you"}'`,
    "hearth invoke hello --payload @event.json --tail",
    "generate-events | hearth invoke hello --payload -",
    "hearth invoke hello:3 --async",
  ])
    .argument("<name>", "name or ARN, with or without a qualifier")
    .option("-p, --payload <json>", "the event: JSON, @FILE, or - for stdin", "{}")
    .option("-q, --qualifier <version>", "version or alias")
    .option("--async", "queue the event and do not wait for the answer")
    .option("--tail", "print the last 4 KB of the invocation's log to stderr")
    .addOption(new Option("--log", "the same as --tail").hideHelp())
    .option("--raw", "answer and log as they are on a terminal, too; else what would command it is written out (\\x1b)")
    .option("--client-context <json>", "ClientContext that the function gets")
    .action(run);

const run = async (name: string, options: InvokeOptions): Promise<void> => {
  const output = outputOf(options);
  const payload = await payloadFrom(options.payload);
  const client = lambdaClient(settingsOf(options));
  const context = options.clientContext;
  if (context !== undefined && !isObject(jsonOr(context))) {
    throw usageError(`--client-context must be a JSON object, got ${context}.`, `Such as '{"custom":{"a":"b"}}'.`);
  }
  const answer = await client.send(
    new InvokeCommand({
      FunctionName: name,
      Payload: payload,
      InvocationType: options.async === true ? "Event" : "RequestResponse",
      LogType: options.tail === true || options.log === true ? "Tail" : "None",
      ...(options.qualifier === undefined ? {} : { Qualifier: options.qualifier }),
      ...(context === undefined ? {} : { ClientContext: Buffer.from(context).toString("base64") }),
    }),
  );
  client.destroy();
  const text = Buffer.from(answer.Payload ?? []).toString();
  if (output.json) output.data(describe(answer, text));
  else print(answer, text, options);
  if (answer.FunctionError !== undefined) process.exitCode = EXIT_FAILURE;
};

const print = (answer: InvokeCommandOutput, text: string, { async: queued, raw }: InvokeOptions): void => {
  // A pipe or a file gets the bytes; a terminal would obey some of them.
  const write = (stream: NodeJS.WriteStream, bytes: Uint8Array | string): void => {
    stream.write(stream.isTTY && raw !== true ? visible(Buffer.from(bytes).toString()) : bytes);
  };
  if (answer.LogResult !== undefined) write(process.stderr, Buffer.from(answer.LogResult, "base64"));
  if (queued === true) {
    process.stdout.write(`Queued as ${answer.$metadata.requestId ?? "an event"}.\n`);
    return;
  }
  write(answer.FunctionError === undefined ? process.stdout : process.stderr, `${text}\n`);
};

const describe = (answer: InvokeCommandOutput, text: string): Readonly<Record<string, unknown>> => ({
  statusCode: answer.StatusCode,
  requestId: answer.$metadata.requestId,
  executedVersion: answer.ExecutedVersion ?? null,
  functionError: answer.FunctionError ?? null,
  payload: jsonOr(text),
  log: answer.LogResult === undefined ? null : Buffer.from(answer.LogResult, "base64").toString(),
});

const isObject = (value: unknown): boolean => typeof value === "object" && value !== null && !Array.isArray(value);

/** The value when it is JSON (as nearly every answer), else the text. */
const jsonOr = (text: string): unknown => {
  if (text === "") return null;
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return text;
  }
};

const payloadFrom = async (given: string): Promise<Uint8Array> => {
  if (given === "-") return buffer(process.stdin);
  if (!given.startsWith("@")) return Buffer.from(given);
  const file = given.slice(1);
  return readFile(file).catch(() => {
    throw usageError(`The payload file ${file} cannot be read.`);
  });
};
