import { ServiceError, serviceFailure } from "../../wire/errors.ts";
import { exhaustion } from "../../wire/exhaustion.ts";
import { ERRORS } from "./model.ts";
import type { Operation, Shape, Structure } from "./model.ts";

/** An answer, ready to be sent. */
export interface HttpAnswer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: Uint8Array | string;
}

const MS_PER_S = 1000;
/** Of an answer that says "later" without saying when. */
const RETRY_AFTER_S_DEFAULT = "1";
const UNAVAILABLE = 503;

const encodeValue = (value: unknown, shape: Shape): unknown => {
  if (value === undefined || value === null) return undefined;
  switch (shape.kind) {
    case "structure":
      return encodeStructure(value as Readonly<Record<string, unknown>>, shape);
    case "list":
      return (value as readonly unknown[]).map((item) => encodeValue(item, shape.item));
    case "map":
      return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, encodeValue(item, shape.value)]));
    case "blob":
      return Buffer.from(value as Uint8Array).toString("base64");
    case "timestamp":
      return value instanceof Date ? value.getTime() / MS_PER_S : value;
    case "string":
    case "number":
    case "boolean":
    case "document":
      return value;
  }
};

const encodeStructure = (value: Readonly<Record<string, unknown>>, shape: Structure): Record<string, unknown> => {
  const result: Record<string, unknown> = {};
  for (const { name, shape: memberShape, binding } of shape.members) {
    if (binding.at === "body") result[binding.name] = encodeValue(value[name], memberShape);
  }
  return result;
};

/** An operation's output as an answer: status, headers, and a body that is raw (payload) or JSON. */
export const encodeOutput = (operation: Operation, output: Readonly<Record<string, unknown>>): HttpAnswer => {
  const headers: Record<string, string> = {};
  let { status } = operation;
  let payload: Uint8Array | null = null;
  let inBody = false;
  for (const { name, binding } of operation.output.members) {
    const value = output[name];
    if (binding.at === "body") inBody = true;
    if (value === undefined || value === null) continue;
    if (binding.at === "status") status = Number(value);
    if (binding.at === "header") headers[binding.name] = typeof value === "string" ? value : JSON.stringify(value);
    if (binding.at === "payload") payload = value as Uint8Array;
  }
  if (payload !== null) return { status, headers, body: payload };
  if (!inBody || status === 204) return { status, headers, body: "" };
  headers["content-type"] = "application/json";
  return { status, headers, body: JSON.stringify(encodeStructure(output, operation.output)) };
};

/** Whatever was thrown as the ServiceError a client is told: what is not one is a bug of ours and says nothing of itself. */
export const asServiceError = (thrown: unknown): ServiceError =>
  thrown instanceof ServiceError
    ? thrown
    : (exhaustion(thrown) ?? serviceFailure("An error occurred and the request cannot be processed.", thrown));

/**
 * An error as Lambda sends it: its name in a header, its members in JSON, the message spelt as the model says. Every 503
 * has a Retry-After: the member `retryAfterSeconds`, or a second.
 */
export const encodeError = (error: ServiceError): HttpAnswer => {
  const shape = ERRORS.get(error.name);
  const headers: Record<string, string> = { "content-type": "application/json", "x-amzn-errortype": error.name };
  const body: Record<string, string | number> = {};
  for (const [name, value] of Object.entries(error.members)) {
    const binding = shape?.members.find((member) => member.name === name)?.binding;
    if (binding?.at === "header") headers[binding.name] = String(value);
    else if (name === "retryAfterSeconds") headers["retry-after"] = String(value);
    else body[name] = value;
  }
  if (error.status === UNAVAILABLE) headers["retry-after"] ??= RETRY_AFTER_S_DEFAULT;
  body[shape?.messageMember ?? "message"] = error.message;
  return { status: error.status, headers, body: JSON.stringify(body) };
};
