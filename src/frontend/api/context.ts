import type { IncomingHttpHeaders } from "node:http";
import { functionNotFound, ServiceError } from "../../wire/errors.ts";
import type { FunctionRecord } from "../../store/store.ts";
import type { Span } from "../../telemetry/tracing.ts";
import type { AsyncQueue } from "../queue/async-queue.ts";
import type { FunctionCache } from "../function-cache.ts";
import type { Lifecycle } from "../lifecycle.ts";
import type { Dependencies } from "../services.ts";
import type { CodeLinks } from "./code-links.ts";
import type { JsonReader } from "./json.ts";
import { functionArn, LATEST } from "./names.ts";

/** What the operations work with. */
export interface ApiServices extends Dependencies {
  readonly functions: FunctionCache;
  readonly lifecycle: Lifecycle;
  readonly queue: AsyncQueue;
  readonly links: CodeLinks;
  readonly json: JsonReader;
}

/** What an operation may know of its request beyond its input. */
export interface ApiRequest {
  readonly requestId: string;
  readonly headers: IncomingHttpHeaders;
  /** The span of the request. */
  readonly span: Span;
  /** Headers of the answer beyond those of the operation's output. */
  readonly answerHeaders: Record<string, string>;
}

/** A version as the store has it now, past the cache. Throws ResourceNotFoundException. */
export const findRecord = async (
  { store, config }: Pick<ApiServices, "store" | "config">,
  functionName: string,
  qualifier: string | null,
): Promise<FunctionRecord> => {
  const record = await store.getFunction(config.accountId, functionName, qualifier ?? LATEST);
  if (record === null) throw functionNotFound(functionArn(config, functionName, qualifier));
  return record;
};

/** Throws PreconditionFailedException when the caller saw another revision than there is. */
export const checkRevision = (record: FunctionRecord, expected: string | undefined): void => {
  if (expected === undefined || expected === "" || expected === record.revisionId) return;
  throw new ServiceError(
    "PreconditionFailedException",
    412,
    "The Revision Id provided does not match the latest Revision Id. Call the GetFunction/GetAlias API to retrieve the latest Revision Id",
    { Type: "User" },
  );
};
