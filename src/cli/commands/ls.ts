import { paginateListFunctions } from "@aws-sdk/client-lambda";
import type { FunctionConfiguration } from "@aws-sdk/client-lambda";
import type { Command } from "commander";
import { lambdaClient } from "../client.ts";
import { age, bytes, table } from "../output.ts";
import { clientCommand, outputOf, settingsOf } from "../program.ts";
import type { ClientOptions } from "../program.ts";

/** `hearth ls`: the functions, one a line. */
export const lsCommand = (): Command =>
  clientCommand("ls", "List the functions", ["hearth ls", "hearth ls --json | jq -r '.[].FunctionName'"])
    .alias("list")
    .action(run);

const run = async (options: ClientOptions): Promise<void> => {
  const output = outputOf(options);
  const client = lambdaClient(settingsOf(options));
  const functions: FunctionConfiguration[] = [];
  for await (const page of paginateListFunctions({ client }, {})) functions.push(...(page.Functions ?? []));
  client.destroy();
  output.data(functions);
  if (functions.length === 0) {
    output.line("There are no functions. Deploy one: hearth deploy DIRECTORY");
    return;
  }
  const { dim } = output.colours;
  const heads = ["NAME", "RUNTIME", "HANDLER", "MEMORY", "TIMEOUT", "CODE", "CHANGED"].map((head) => dim(head));
  output.line(table([heads, ...functions.map(row)], [3, 4, 5, 6]));
};

const row = (each: FunctionConfiguration): string[] => {
  const changed = Date.parse(each.LastModified ?? "");
  return [
    each.FunctionName ?? "",
    each.Runtime ?? "",
    each.Handler ?? "",
    `${each.MemorySize ?? 0} MB`,
    `${each.Timeout ?? 0} s`,
    bytes(each.CodeSize ?? 0),
    Number.isNaN(changed) ? "" : `${age(Date.now() - changed)} ago`,
  ];
};
