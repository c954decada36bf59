import { createHash } from "node:crypto";
import type { FunctionConfiguration, Runtime, Architecture } from "@aws-sdk/client-lambda";
import type { FunctionRecord } from "../../store/store.ts";
import { functionArn, LATEST } from "./names.ts";

/** 2026-01-01T00:00:00.000+0000 */
const lastModified = (ms: number): string => new Date(ms).toISOString().replace("Z", "+0000");

/** AWS names the very build of a runtime by a hash; here a runtime has one build, so its name decides. */
const runtimeVersionArn = (record: FunctionRecord): string =>
  `arn:aws:lambda:${record.region}::runtime:${createHash("sha256").update(record.runtime).digest("hex")}`;

const loggingOf = ({ logging }: FunctionRecord): FunctionConfiguration["LoggingConfig"] => ({
  LogFormat: logging.format,
  ApplicationLogLevel: (logging.applicationLevel ?? undefined) as never,
  SystemLogLevel: (logging.systemLevel ?? undefined) as never,
  LogGroup: logging.group,
});

const stateOf = (record: FunctionRecord): FunctionConfiguration => ({
  State: record.state,
  StateReason: record.stateReason ?? undefined,
  StateReasonCode: (record.stateReasonCode ?? undefined) as FunctionConfiguration["StateReasonCode"],
  LastUpdateStatus: record.lastUpdateStatus ?? undefined,
  LastUpdateStatusReason: record.lastUpdateStatusReason ?? undefined,
  LastUpdateStatusReasonCode: (record.lastUpdateStatusReasonCode ??
    undefined) as FunctionConfiguration["LastUpdateStatusReasonCode"],
});

/** Members that are kept as they were given, in the form the answer has them. */
const extraOf = ({ extra }: FunctionRecord): FunctionConfiguration => {
  const given = extra as Pick<FunctionConfiguration, "VpcConfig" | "DeadLetterConfig" | "KMSKeyArn" | "SnapStart">;
  return {
    VpcConfig: given.VpcConfig,
    DeadLetterConfig: given.DeadLetterConfig,
    KMSKeyArn: given.KMSKeyArn,
    SnapStart: { ApplyOn: given.SnapStart?.ApplyOn ?? "None", OptimizationStatus: "Off" },
  };
};

/**
 * A record as the API shows it. `qualified` adds the version to the ARN, as AWS does for whatever was asked for with a
 * qualifier and for every numbered version.
 */
export const configurationOf = (record: FunctionRecord, qualified: boolean): FunctionConfiguration => ({
  FunctionName: record.functionName,
  FunctionArn: functionArn(record, record.functionName, qualified || record.version !== LATEST ? record.version : null),
  Runtime: record.runtime as Runtime,
  Role: record.role,
  Handler: record.handler,
  CodeSize: record.code.bytes,
  Description: record.description,
  Timeout: record.timeoutS,
  MemorySize: record.memoryMb,
  LastModified: lastModified(record.lastModifiedMs),
  CodeSha256: record.code.sha256Base64,
  Version: record.version,
  Environment: Object.keys(record.environment).length === 0 ? undefined : { Variables: { ...record.environment } },
  TracingConfig: { Mode: record.tracingMode },
  RevisionId: record.revisionId,
  Layers:
    record.layers.length === 0 ? undefined : record.layers.map(({ arn, bytes }) => ({ Arn: arn, CodeSize: bytes })),
  PackageType: "Zip",
  Architectures: [...record.architectures] as Architecture[],
  EphemeralStorage: { Size: record.ephemeralMb },
  RuntimeVersionConfig: { RuntimeVersionArn: runtimeVersionArn(record) },
  LoggingConfig: loggingOf(record),
  ...extraOf(record),
  ...stateOf(record),
});
