import { ServiceError } from "../../wire/errors.ts";
import * as account from "./account.ts";
import type { ApiRequest, ApiServices } from "./context.ts";
import * as functions from "./functions.ts";
import * as invocations from "./invocations.ts";
import * as stream from "./response-stream.ts";
import type { StreamAnswer } from "./response-stream.ts";
import * as tags from "./tags.ts";
import * as updates from "./updates.ts";
import * as versions from "./versions.ts";

/** What an operation gives back: its output's members, or an answer that streams. */
export type OperationResult = Readonly<Record<string, unknown>> | StreamAnswer;

type Handler = (services: ApiServices, input: never, request: ApiRequest) => Promise<object>;

/** The operations that are built, by name. The model knows the others, so that a call of one can be told so. */
const HANDLERS: ReadonlyMap<string, Handler> = new Map<string, Handler>([
  ["CreateFunction", functions.CreateFunction],
  ["GetFunction", functions.GetFunction],
  ["GetFunctionConfiguration", functions.GetFunctionConfiguration],
  ["ListFunctions", functions.ListFunctions],
  ["DeleteFunction", functions.DeleteFunction],
  ["UpdateFunctionCode", updates.UpdateFunctionCode],
  ["UpdateFunctionConfiguration", updates.UpdateFunctionConfiguration],
  ["PublishVersion", versions.PublishVersion],
  ["ListVersionsByFunction", versions.ListVersionsByFunction],
  ["TagResource", tags.TagResource],
  ["UntagResource", tags.UntagResource],
  ["ListTags", tags.ListTags],
  ["GetAccountSettings", account.GetAccountSettings],
  ["PutFunctionConcurrency", account.PutFunctionConcurrency],
  ["GetFunctionConcurrency", account.GetFunctionConcurrency],
  ["DeleteFunctionConcurrency", account.DeleteFunctionConcurrency],
  ["Invoke", invocations.Invoke],
  ["InvokeAsync", invocations.InvokeAsync],
  ["InvokeWithResponseStream", stream.InvokeWithResponseStream],
]);

export const isStream = (result: OperationResult): result is StreamAnswer => "stream" in result;

export const isBuilt = (operation: string): boolean => HANDLERS.has(operation);

/** Runs an operation on input that was decoded for it. Throws the ServiceError to answer. */
export const runOperation = async (
  operation: string,
  services: ApiServices,
  input: Readonly<Record<string, unknown>>,
  request: ApiRequest,
): Promise<OperationResult> => {
  const handler = HANDLERS.get(operation);
  if (handler === undefined) {
    throw new ServiceError("NotImplementedException", 501, `Hearth does not have the operation ${operation} yet.`);
  }
  // The input was decoded by the operation's own schema, which is where the handler's type of it comes from, too.
  return (await handler(services, input as never, request)) as OperationResult;
};
