import { Runtime } from "@aws-sdk/client-lambda";
import type { CreateFunctionRequest, LoggingConfig, UpdateFunctionConfigurationRequest } from "@aws-sdk/client-lambda";
import type { FunctionRecord } from "../../store/store.ts";
import { invalidParameter, ServiceError } from "../../wire/errors.ts";
import { ENVIRONMENT_BYTES_MAX, LAYERS_MAX } from "../../wire/limits.ts";

/** Variables that belong to the runtime environment ("Defined runtime environment variables" in AWS's guide). */
const RESERVED_VARIABLES: ReadonlySet<string> = new Set([
  "_HANDLER",
  "_X_AMZN_TRACE_ID",
  "AWS_ACCESS_KEY",
  "AWS_ACCESS_KEY_ID",
  "AWS_DEFAULT_REGION",
  "AWS_EXECUTION_ENV",
  "AWS_LAMBDA_FUNCTION_MEMORY_SIZE",
  "AWS_LAMBDA_FUNCTION_NAME",
  "AWS_LAMBDA_FUNCTION_VERSION",
  "AWS_LAMBDA_INITIALIZATION_TYPE",
  "AWS_LAMBDA_LOG_GROUP_NAME",
  "AWS_LAMBDA_LOG_STREAM_NAME",
  "AWS_LAMBDA_MAX_CONCURRENCY",
  "AWS_LAMBDA_RUNTIME_API",
  "AWS_REGION",
  "AWS_SECRET_ACCESS_KEY",
  "AWS_SESSION_TOKEN",
  "LAMBDA_RUNTIME_DIR",
  "LAMBDA_TASK_ROOT",
]);

const VARIABLE_NAME = /^[a-zA-Z]([a-zA-Z0-9_])+$/;
/** The instruction set of the microVMs here. */
const ARCHITECTURE = "x86_64";
const UNABLE =
  "Lambda was unable to configure your environment variables because the environment variables you have provided";

/** Checks what AWS checks of a function's environment, in its order and words. */
export const checkEnvironment = (variables: Readonly<Record<string, string>>): void => {
  const names = Object.keys(variables);
  const reserved = names.filter((name) => RESERVED_VARIABLES.has(name));
  if (reserved.length > 0) {
    throw invalidParameter(
      `${UNABLE} contains reserved keys that are currently not supported for modification. Reserved keys used in this request: ${reserved.join(", ")}`,
    );
  }
  if (names.some((name) => !VARIABLE_NAME.test(name))) {
    throw new ServiceError(
      "ValidationException",
      400,
      "1 validation error detected: Value at 'environment.variables' failed to satisfy constraint: Map keys must satisfy constraint: [Member must satisfy regular expression pattern: [a-zA-Z]([a-zA-Z0-9_])+]",
    );
  }
  const nul = names.find((name) => variables[name]?.includes("\0"));
  if (nul !== undefined) throw invalidParameter(`The environment variable ${nul} contains a NUL character.`);
  const measured = JSON.stringify(variables);
  if (Buffer.byteLength(measured) > ENVIRONMENT_BYTES_MAX) {
    throw invalidParameter(`${UNABLE} exceeded the 4KB limit. String measured: ${measured}`);
  }
};

/** Throws for a runtime that AWS does not know, and for one that is not installed here. */
export const checkRuntime = (runtime: string, installed: readonly string[]): void => {
  if (installed.includes(runtime)) return;
  const known: readonly string[] = Object.values(Runtime);
  if (!known.includes(runtime)) {
    throw invalidParameter(
      `Value ${runtime} at 'runtime' failed to satisfy constraint: Member must satisfy enum value set: [${installed.join(", ")}] or be a valid ARN`,
    );
  }
  throw invalidParameter(`The runtime ${runtime} is not installed here. Available: ${installed.join(", ")}.`);
};

const notBuilt = (member: string): ServiceError =>
  invalidParameter(`${member} is not supported by Hearth yet. Leave it out.`);

type Settings = UpdateFunctionConfigurationRequest &
  Pick<CreateFunctionRequest, "Architectures" | "PackageType" | "CodeSigningConfigArn" | "TenancyConfig" | "PublishTo">;

/** Refuses what would change a function's behaviour but is not built: silence would be worse. */
const refuseUnbuilt = (input: Settings): void => {
  if ((input.Layers?.length ?? 0) > LAYERS_MAX)
    throw invalidParameter(`Cannot reference more than ${LAYERS_MAX} layers.`);
  if ((input.Layers?.length ?? 0) > 0) throw notBuilt("Layers");
  if ((input.FileSystemConfigs?.length ?? 0) > 0) throw notBuilt("FileSystemConfigs");
  if (input.PackageType === "Image") throw notBuilt("PackageType Image");
  if (input.CodeSigningConfigArn) throw notBuilt("CodeSigningConfigArn");
  // An empty one takes the setting away, as with AWS; what an earlier Hearth stored was never used.
  if (input.DeadLetterConfig?.TargetArn) throw notBuilt("DeadLetterConfig");
  for (const member of [
    "ImageConfig",
    "CapacityProviderConfig",
    "DurableConfig",
    "TenancyConfig",
    "PublishTo",
  ] as const) {
    if (input[member] !== undefined) throw notBuilt(member);
  }
};

export const checkArchitectures = (architectures: readonly string[] | undefined): void => {
  const other = architectures?.find((architecture) => architecture !== ARCHITECTURE);
  if (other !== undefined) {
    throw invalidParameter(`The architecture ${other} is not available here. Available: ${ARCHITECTURE}.`);
  }
};

const loggingOf = (given: LoggingConfig | undefined, before: FunctionRecord["logging"]): FunctionRecord["logging"] => {
  if (given === undefined) return before;
  const format = given.LogFormat ?? before.format;
  if (format === "Text" && (given.ApplicationLogLevel !== undefined || given.SystemLogLevel !== undefined)) {
    throw invalidParameter(
      "To specify LogLevel options, you need to set the LogFormat to JSON. Set the LogFormat to JSON or remove the LogLevel options.",
    );
  }
  return {
    format,
    group: given.LogGroup ?? before.group,
    applicationLevel: format === "Text" ? null : (given.ApplicationLogLevel ?? before.applicationLevel ?? "INFO"),
    systemLevel: format === "Text" ? null : (given.SystemLogLevel ?? before.systemLevel ?? "INFO"),
  };
};

const extraOf = (input: Settings, before: FunctionRecord["extra"]): FunctionRecord["extra"] => {
  const given = Object.entries({
    VpcConfig: input.VpcConfig,
    KMSKeyArn: input.KMSKeyArn,
    SnapStart: input.SnapStart,
  }).filter(([, value]) => value !== undefined);
  const { DeadLetterConfig: stored, ...kept } = before;
  const keepsStored = stored !== undefined && input.DeadLetterConfig === undefined;
  return { ...kept, ...(keepsStored ? { DeadLetterConfig: stored } : {}), ...Object.fromEntries(given) };
};

/** A record with what an input sets, checked; what it leaves out stays as it was. */
export const withSettings = (before: FunctionRecord, input: Settings, installed: readonly string[]): FunctionRecord => {
  refuseUnbuilt(input);
  checkArchitectures(input.Architectures);
  if (input.Runtime !== undefined) checkRuntime(input.Runtime, installed);
  const environment = input.Environment === undefined ? before.environment : { ...input.Environment.Variables };
  checkEnvironment(environment);
  return {
    ...before,
    runtime: input.Runtime ?? before.runtime,
    handler: input.Handler ?? before.handler,
    role: input.Role ?? before.role,
    description: input.Description ?? before.description,
    memoryMb: input.MemorySize ?? before.memoryMb,
    timeoutS: input.Timeout ?? before.timeoutS,
    ephemeralMb: input.EphemeralStorage?.Size ?? before.ephemeralMb,
    environment,
    logging: loggingOf(input.LoggingConfig, before.logging),
    tracingMode: input.TracingConfig?.Mode ?? before.tracingMode,
    extra: extraOf(input, before.extra),
  };
};
