import type { FunctionSpec } from "../wire/function.ts";

/** Where the shim serves the Runtime API inside the guest; the address Lambda itself uses. */
export const RUNTIME_API_ADDRESS = "169.254.100.1:9001";

type Variables = Readonly<Record<string, string>>;

/** What a runtime's process reads as it starts and keeps to: the same for all functions that do not set it themselves. */
const START: Variables = { LANG: "en_US.UTF-8", TZ: ":UTC" };
const PLACES: Variables = {
  AWS_LAMBDA_RUNTIME_API: RUNTIME_API_ADDRESS,
  LAMBDA_TASK_ROOT: "/var/task",
  LAMBDA_RUNTIME_DIR: "/var/runtime",
};

const variablesOf = (spec: FunctionSpec, runtime: Variables, logStream: string): Variables => ({
  ...START,
  ...runtime,
  ...spec.environment,
  _HANDLER: spec.handler,
  AWS_LAMBDA_FUNCTION_NAME: spec.functionName,
  AWS_LAMBDA_FUNCTION_VERSION: spec.version,
  AWS_LAMBDA_FUNCTION_MEMORY_SIZE: String(spec.memoryMb),
  AWS_LAMBDA_LOG_GROUP_NAME: spec.logGroup,
  AWS_LAMBDA_LOG_STREAM_NAME: logStream,
  AWS_LAMBDA_INITIALIZATION_TYPE: "on-demand",
  AWS_REGION: spec.region,
  AWS_DEFAULT_REGION: spec.region,
  ...PLACES,
  ...(spec.logFormat === "JSON" ? { AWS_LAMBDA_LOG_FORMAT: "JSON" } : {}),
});

const asList = (variables: Variables): string[] => Object.entries(variables).map(([name, value]) => `${name}=${value}`);

/**
 * The environment a function's runtime starts with ("Defined runtime environment variables" in AWS's developer guide).
 * The function's own variables come first: they cannot replace the platform's.
 */
export const functionEnvironment = (spec: FunctionSpec, runtime: Variables, logStream: string): string[] =>
  asList(variablesOf(spec, runtime, logStream));

/** The environment of a runtime that starts before its function is known; the variable tells the runtime so. */
export const preparedEnvironment = (runtime: Variables): string[] =>
  asList({ ...START, ...runtime, ...PLACES, HEARTH_PREPARED: "1" });

/**
 * Whether a runtime that was started ahead can become this function's: of the variables that it has read as it started
 * (`readAtStart`) the function has none that differs.
 */
export const fitsPrepared = (spec: FunctionSpec, runtime: Variables, readAtStart: RegExp): boolean => {
  const prepared: Variables = { ...START, ...runtime, ...PLACES };
  return Object.entries(variablesOf(spec, runtime, "")).every(
    ([name, value]) => !readAtStart.test(name) || prepared[name] === value,
  );
};
