import { Readable } from "node:stream";
import type { InvokeWithResponseStreamRequest } from "@aws-sdk/client-lambda";
import { EventStreamCodec } from "@smithy/eventstream-codec";
import { fromUtf8, toUtf8 } from "@smithy/util-utf8";
import type { InvocationStream } from "../../wire/invocation.ts";
import { findTarget, invokeStreaming } from "../invoke.ts";
import type { ApiRequest, ApiServices } from "./context.ts";
import { asServiceError } from "./encode.ts";
import { callOf } from "./invocations.ts";

/** An answer that is sent piece by piece. */
export interface StreamAnswer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly stream: Readable | null;
}

const CONTENT_TYPE = /^[\x20-\x7e]{1,256}$/;

const codec = new EventStreamCodec(toUtf8, fromUtf8);

/** One message of the AWS event stream encoding. */
const message = (type: string, contentType: string, body: Uint8Array): Uint8Array =>
  codec.encode({
    headers: {
      ":message-type": { type: "string", value: "event" },
      ":event-type": { type: "string", value: type },
      ":content-type": { type: "string", value: contentType },
    },
    body,
  });

/** Last message: what went wrong, if anything, and the log's end when it was asked for. */
const complete = (members: Readonly<Record<string, string>>): Uint8Array =>
  message("InvokeComplete", "application/json", Buffer.from(JSON.stringify(members)));

async function* frames(invocation: InvocationStream, withLog: boolean): AsyncGenerator<Uint8Array> {
  try {
    for await (const chunk of invocation.body) {
      yield message("PayloadChunk", "application/octet-stream", chunk as Uint8Array);
    }
    const { error, report } = await invocation.done;
    const log: Record<string, string> = withLog ? { LogResult: Buffer.from(report.logTail).toString("base64") } : {};
    if (error === null) yield complete(log);
    else yield complete({ ErrorCode: error.errorType, ErrorDetails: Buffer.from(error.body).toString("utf8"), ...log });
  } catch (thrown) {
    // The status is long sent: the stream's own last message is where a failure can still be told.
    const error = asServiceError(thrown);
    yield complete({ ErrorCode: error.name, ErrorDetails: error.message });
  }
}

export const InvokeWithResponseStream = async (
  services: ApiServices,
  input: InvokeWithResponseStreamRequest,
  request: ApiRequest,
): Promise<StreamAnswer> => {
  const { InvocationType, LogType, ...rest } = input;
  const call = await callOf(services, rest, request);
  if (InvocationType === "DryRun") {
    await findTarget(services, call.functionName, call.qualifier);
    return { status: 204, headers: {}, stream: null };
  }
  const { record } = await findTarget(services, call.functionName, call.qualifier);
  const invocation = await invokeStreaming(services, call);
  const headers: Record<string, string> = {
    "content-type": "application/vnd.amazon.eventstream",
    "x-amz-executed-version": record.version,
  };
  // The function's own words: only what a header may hold.
  if (invocation.contentType !== null && CONTENT_TYPE.test(invocation.contentType)) {
    headers["x-amzn-remapped-content-type"] = invocation.contentType;
  }
  const stream = Readable.from(frames(invocation, LogType === "Tail"), { objectMode: false });
  return { status: 200, headers, stream };
};
