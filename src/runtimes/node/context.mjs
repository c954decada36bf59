/** The context object of an invocation, and the store in which SDKs look up its identifiers. */
import { PlatformError } from "./errors.mjs";

const REQUIRED_HEADERS = [
  "lambda-runtime-aws-request-id",
  "lambda-runtime-invoked-function-arn",
  "lambda-runtime-deadline-ms",
];

function parseHeader(headers, name) {
  const value = headers[name];
  if (!value) return undefined;
  try {
    return JSON.parse(value);
  } catch (error) {
    throw new PlatformError(`Failed to parse ${name} as JSON: ${error.message}`);
  }
}

/** Makes the context from the headers of the Runtime API's answer. */
export function buildContext(headers) {
  for (const name of REQUIRED_HEADERS) {
    if (headers[name] === undefined) throw new PlatformError(`Missing required headers: ${name}`);
  }
  const deadlineMs = Number.parseInt(headers["lambda-runtime-deadline-ms"], 10);
  const environment = process.env;
  return {
    functionName: environment.AWS_LAMBDA_FUNCTION_NAME,
    functionVersion: environment.AWS_LAMBDA_FUNCTION_VERSION,
    memoryLimitInMB: environment.AWS_LAMBDA_FUNCTION_MEMORY_SIZE,
    logGroupName: environment.AWS_LAMBDA_LOG_GROUP_NAME,
    logStreamName: environment.AWS_LAMBDA_LOG_STREAM_NAME,
    clientContext: parseHeader(headers, "lambda-runtime-client-context"),
    identity: parseHeader(headers, "lambda-runtime-cognito-identity"),
    invokedFunctionArn: headers["lambda-runtime-invoked-function-arn"],
    awsRequestId: headers["lambda-runtime-aws-request-id"],
    tenantId: headers["lambda-runtime-aws-tenant-id"],
    xRayTraceId: headers["lambda-runtime-trace-id"],
    getRemainingTimeInMillis: () => deadlineMs - Date.now(),
  };
}

const PROTECTED_KEYS = {
  REQUEST_ID: Symbol.for("_AWS_LAMBDA_REQUEST_ID"),
  X_RAY_TRACE_ID: Symbol.for("_AWS_LAMBDA_X_RAY_TRACE_ID"),
  TENANT_ID: Symbol.for("_AWS_LAMBDA_TENANT_ID"),
};

/** `awslambda.InvokeStore`: what @aws/lambda-invoke-store would make, for one invocation at a time. */
class InvokeStore {
  #values;

  static PROTECTED_KEYS = PROTECTED_KEYS;

  run(context, work) {
    this.#values = {
      [PROTECTED_KEYS.REQUEST_ID]: context.awsRequestId,
      [PROTECTED_KEYS.X_RAY_TRACE_ID]: context.xRayTraceId,
      [PROTECTED_KEYS.TENANT_ID]: context.tenantId,
    };
    return work();
  }
  getContext() {
    return this.#values;
  }
  hasContext() {
    return this.#values !== undefined;
  }
  get(key) {
    return this.#values?.[key];
  }
  set(key, value) {
    if (this.isProtectedKey(key)) throw new Error(`Cannot modify protected Lambda context field: ${String(key)}`);
    this.#values = { ...this.#values, [key]: value };
  }
  isProtectedKey(key) {
    return Object.values(PROTECTED_KEYS).includes(key);
  }
  getRequestId() {
    return this.get(PROTECTED_KEYS.REQUEST_ID) ?? "-";
  }
  getXRayTraceId() {
    return this.get(PROTECTED_KEYS.X_RAY_TRACE_ID);
  }
  getTenantId() {
    return this.get(PROTECTED_KEYS.TENANT_ID);
  }
}

export const invokeStore = new InvokeStore();
