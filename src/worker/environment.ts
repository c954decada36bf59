import type { FunctionSpec } from "../wire/function.ts";

/** Where the shim serves the Runtime API inside the guest; the address Lambda itself uses. */
export const RUNTIME_API_ADDRESS = "169.254.100.1:9001";

/**
 * The environment a function's runtime starts with ("Defined runtime environment variables" in AWS's developer guide).
 * The function's own variables come first: they cannot replace the platform's.
 */
export const functionEnvironment = (
  spec: FunctionSpec,
  runtime: Readonly<Record<string, string>>,
  logStream: string,
): string[] => {
  const variables: Record<string, string> = {
    LANG: "en_US.UTF-8",
    TZ: ":UTC",
    ...runtime,
    ...spec.environment,
    _HANDLER: spec.handler,
    AWS_LAMBDA_FUNCTION_NAME: spec.functionName,
    AWS_LAMBDA_FUNCTION_VERSION: spec.version,
    AWS_LAMBDA_FUNCTION_MEMORY_SIZE: String(spec.memoryMb),
    AWS_LAMBDA_LOG_GROUP_NAME: spec.logGroup,
    AWS_LAMBDA_LOG_STREAM_NAME: logStream,
    AWS_LAMBDA_INITIALIZATION_TYPE: "on-demand",
    AWS_LAMBDA_RUNTIME_API: RUNTIME_API_ADDRESS,
    AWS_REGION: spec.region,
    AWS_DEFAULT_REGION: spec.region,
    LAMBDA_TASK_ROOT: "/var/task",
    LAMBDA_RUNTIME_DIR: "/var/runtime",
    ...(spec.logFormat === "JSON" ? { AWS_LAMBDA_LOG_FORMAT: "JSON" } : {}),
  };
  return Object.entries(variables).map(([name, value]) => `${name}=${value}`);
};
