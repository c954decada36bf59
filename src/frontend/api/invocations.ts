import { isUtf8 } from "node:buffer";
import type {
  InvocationRequest,
  InvocationResponse,
  InvokeAsyncRequest,
  InvokeAsyncResponse,
} from "@aws-sdk/client-lambda";
import { ServiceError } from "../../wire/errors.ts";
import * as limits from "../../wire/limits.ts";
import { traced } from "../../telemetry/tracing.ts";
import { formatAmznTrace } from "../../wire/trace.ts";
import { findTarget, invoke } from "../invoke.ts";
import type { InvokeCall } from "../invoke.ts";
import { queueAttributes, traceHeader } from "../request-trace.ts";
import type { ApiRequest, ApiServices } from "./context.ts";
import { LATEST, parseReference } from "./names.ts";

const EMPTY_EVENT: Uint8Array = Buffer.from("{}");

const badContent = (message: string): ServiceError =>
  new ServiceError("InvalidRequestContentException", 400, message, { Type: "User" });

/** The client context as JSON text. */
const contextOf = (encoded: string | undefined): string | null => {
  if (encoded === undefined || encoded === "") return null;
  if (encoded.length > limits.CLIENT_CONTEXT_BYTES_MAX) {
    throw badContent(
      `Client context must be no more than ${limits.CLIENT_CONTEXT_BYTES_MAX} bytes when base64 encoded, not ${encoded.length}.`,
    );
  }
  const decoded = Buffer.from(encoded, "base64");
  const text = decoded.toString("utf8");
  try {
    if (!isUtf8(decoded)) throw new TypeError("no UTF-8");
    const value: unknown = JSON.parse(text);
    if (typeof value === "object" && value !== null) return text;
  } catch {
    // Not JSON: answered below, like JSON that is no object.
  }
  throw badContent("Client context must be a valid Base64-encoded JSON object.");
};

type EventType = "RequestResponse" | "Event";

const EVENT_BYTES_MAX: Readonly<Record<EventType, number>> = {
  RequestResponse: limits.PAYLOAD_BYTES_MAX,
  Event: limits.PAYLOAD_ASYNC_BYTES_MAX,
};

/** The event as the function gets it: the client's bytes, which must be JSON. */
const eventOf = async (
  { json }: Pick<ApiServices, "json">,
  payload: Uint8Array | undefined,
  type: EventType,
): Promise<Uint8Array> => {
  if (payload === undefined || payload.byteLength === 0) return EMPTY_EVENT;
  if (payload.byteLength > EVENT_BYTES_MAX[type]) {
    throw new ServiceError(
      "RequestTooLargeException",
      413,
      `${payload.byteLength} byte payload is too large for the ${type} invocation type (limit ${EVENT_BYTES_MAX[type]} bytes)`,
      { Type: "User" },
    );
  }
  await json.check(payload);
  return payload;
};

/** The call that a request makes, for an answer or (`Event`) for the queue. */
export const callOf = async (
  services: ApiServices,
  input: Pick<InvocationRequest, "FunctionName" | "Qualifier" | "ClientContext" | "Payload">,
  request: ApiRequest,
  type: EventType = "RequestResponse",
): Promise<InvokeCall> => {
  const { functionName, qualifier } = parseReference(services.config, input.FunctionName ?? "", input.Qualifier);
  const traceId = traceHeader(services, request.span, request.headers);
  request.answerHeaders["x-amzn-trace-id"] = traceId;
  return {
    functionName,
    qualifier,
    requestId: request.requestId,
    asynchronous: false,
    payload: await eventOf(services, input.Payload, type),
    clientContext: contextOf(input.ClientContext),
    traceId,
    trace: request.span.context,
  };
};

const accept = async (services: ApiServices, call: InvokeCall): Promise<void> => {
  const { functionName, qualifier, requestId, payload, traceId } = call;
  await findTarget(services, functionName, qualifier);
  const attributes = queueAttributes("send", functionName, requestId);
  const sending = services.tracer.start(`send ${functionName}`, call.trace, { kind: "producer", attributes });
  await traced(sending, (span) =>
    services.queue.enqueue({
      eventId: requestId,
      accountId: services.config.accountId,
      functionName,
      qualifier: qualifier ?? LATEST,
      payload,
      traceId: span.context === null ? traceId : formatAmznTrace(span.context),
    }),
  );
};

export const Invoke = async (
  services: ApiServices,
  input: InvocationRequest,
  request: ApiRequest,
): Promise<InvocationResponse> => {
  const call = await callOf(services, input, request, input.InvocationType === "Event" ? "Event" : "RequestResponse");
  switch (input.InvocationType) {
    case "DryRun":
      await findTarget(services, call.functionName, call.qualifier);
      return { StatusCode: 204 };
    case "Event":
      await accept(services, call);
      return { StatusCode: 202 };
    case "RequestResponse":
    case undefined:
      break;
  }
  const { payload, error, report } = await invoke(services, call);
  request.answerHeaders["content-type"] = "application/json";
  return {
    StatusCode: 200,
    Payload: error?.body ?? payload,
    FunctionError: error?.kind,
    LogResult: input.LogType === "Tail" ? Buffer.from(report.logTail).toString("base64") : undefined,
    ExecutedVersion: report.executedVersion,
  };
};

export const InvokeAsync = async (
  services: ApiServices,
  input: Pick<InvokeAsyncRequest, "FunctionName"> & { readonly InvokeArgs?: Uint8Array },
  request: ApiRequest,
): Promise<InvokeAsyncResponse> => {
  const event = { FunctionName: input.FunctionName, Payload: input.InvokeArgs };
  const call = await callOf(services, event, request, "Event");
  await accept(services, call);
  return { Status: 202 };
};
