import * as lambda from "@aws-sdk/client-lambda";
import * as limits from "../../wire/limits.ts";
import { FUNCTION_NAME, VERSIONED_FUNCTION_NAME } from "./names.ts";

/** What a member must satisfy beyond its type. Lengths are characters of texts, bytes of blobs, items of lists. */
export interface Constraint {
  readonly lengthMin?: number;
  readonly lengthMax?: number;
  readonly min?: number;
  readonly max?: number;
  readonly pattern?: RegExp;
  readonly values?: readonly string[];
}

type MembersOf<Request> = { readonly [Name in keyof Request]?: Constraint };

const TAGGABLE_ARN =
  /^arn:(aws[a-zA-Z-]*):lambda:[a-z]{2}(-[a-z]+)+-\d{1}:\d{12}:(function:[a-zA-Z0-9-_]+(:(\$LATEST|[a-zA-Z0-9-_]+))?|code-signing-config:csc-[a-z0-9]{17}|event-source-mapping:[a-f0-9]{8}-[a-f0-9]{4}-[a-f0-9]{4}-[a-f0-9]{4}-[a-f0-9]{12}|capacity-provider:[a-zA-Z0-9-_]+)$/;

const functionName: Constraint = { lengthMin: 1, lengthMax: limits.FUNCTION_NAME_CHARS_MAX, pattern: FUNCTION_NAME };
const versionedName: Constraint = {
  lengthMin: 1,
  lengthMax: limits.VERSIONED_NAME_CHARS_MAX,
  pattern: VERSIONED_FUNCTION_NAME,
};
const qualifier: Constraint = { lengthMin: 1, lengthMax: limits.QUALIFIER_CHARS_MAX, pattern: /^(|[a-zA-Z0-9$_-]+)$/ };
const description: Constraint = { lengthMin: 0, lengthMax: limits.DESCRIPTION_CHARS_MAX };
const maxItems: Constraint = { min: 1, max: limits.LIST_ITEMS_MAX };
const architectures: Constraint = { lengthMin: 1, lengthMax: 1 };
const byName = { FunctionName: functionName };

/** Members that CreateFunction and UpdateFunctionConfiguration share. */
const configuration = {
  ...byName,
  Role: { pattern: /^arn:(aws[a-zA-Z-]*)?:iam::\d{12}:role\/?[a-zA-Z_0-9+=,.@\-_/]+$/ },
  Handler: { lengthMin: 0, lengthMax: limits.HANDLER_CHARS_MAX, pattern: /^[^\s]+$/ },
  Description: description,
  Timeout: { min: limits.TIMEOUT_S_MIN, max: limits.TIMEOUT_S_MAX },
  MemorySize: { min: limits.MEMORY_MB_MIN, max: limits.MEMORY_MB_MAX },
  KMSKeyArn: { pattern: /^(arn:(aws[a-zA-Z-]*)?:[a-z0-9-.]+:.*)$|^$/ },
} as const satisfies MembersOf<lambda.UpdateFunctionConfigurationRequest>;

/** Checked by name of the structure and of the member. The SDK's schemas have types only; these are AWS's documented ones. */
export const CONSTRAINTS: ReadonlyMap<string, Readonly<Record<string, Constraint>>> = new Map(
  Object.entries({
    CreateFunctionRequest: {
      ...configuration,
      PackageType: { values: Object.values(lambda.PackageType) },
      Architectures: architectures,
    } satisfies MembersOf<lambda.CreateFunctionRequest>,
    UpdateFunctionConfigurationRequest: configuration,
    UpdateFunctionCodeRequest: {
      ...byName,
      Architectures: architectures,
    } satisfies MembersOf<lambda.UpdateFunctionCodeRequest>,
    EphemeralStorage: {
      Size: { min: limits.EPHEMERAL_MB_MIN, max: limits.EPHEMERAL_MB_MAX },
    } satisfies MembersOf<lambda.EphemeralStorage>,
    TracingConfig: {
      Mode: { values: Object.values(lambda.TracingMode) },
    } satisfies MembersOf<lambda.TracingConfig>,
    SnapStart: {
      ApplyOn: { values: Object.values(lambda.SnapStartApplyOn) },
    } satisfies MembersOf<lambda.SnapStart>,
    LoggingConfig: {
      LogFormat: { values: Object.values(lambda.LogFormat) },
      ApplicationLogLevel: { values: Object.values(lambda.ApplicationLogLevel) },
      SystemLogLevel: { values: Object.values(lambda.SystemLogLevel) },
      LogGroup: { lengthMin: 1, lengthMax: limits.LOG_GROUP_CHARS_MAX, pattern: /^[.\-_/#A-Za-z0-9]+$/ },
    } satisfies MembersOf<lambda.LoggingConfig>,
    GetFunctionRequest: {
      FunctionName: versionedName,
      Qualifier: qualifier,
    } satisfies MembersOf<lambda.GetFunctionRequest>,
    GetFunctionConfigurationRequest: {
      FunctionName: versionedName,
      Qualifier: qualifier,
    } satisfies MembersOf<lambda.GetFunctionConfigurationRequest>,
    DeleteFunctionRequest: { ...byName, Qualifier: qualifier } satisfies MembersOf<lambda.DeleteFunctionRequest>,
    ListFunctionsRequest: {
      FunctionVersion: { values: Object.values(lambda.FunctionVersion) },
      MaxItems: maxItems,
    } satisfies MembersOf<lambda.ListFunctionsRequest>,
    ListVersionsByFunctionRequest: {
      FunctionName: versionedName,
      MaxItems: maxItems,
    } satisfies MembersOf<lambda.ListVersionsByFunctionRequest>,
    PublishVersionRequest: {
      ...byName,
      Description: description,
    } satisfies MembersOf<lambda.PublishVersionRequest>,
    InvocationRequest: {
      FunctionName: versionedName,
      InvocationType: { values: Object.values(lambda.InvocationType) },
      LogType: { values: Object.values(lambda.LogType) },
      Qualifier: qualifier,
    } satisfies MembersOf<lambda.InvocationRequest>,
    InvokeAsyncRequest: { FunctionName: versionedName } satisfies MembersOf<lambda.InvokeAsyncRequest>,
    InvokeWithResponseStreamRequest: {
      FunctionName: versionedName,
      InvocationType: { values: Object.values(lambda.ResponseStreamingInvocationType) },
      LogType: { values: Object.values(lambda.LogType) },
      Qualifier: qualifier,
    } satisfies MembersOf<lambda.InvokeWithResponseStreamRequest>,
    TagResourceRequest: {
      Resource: { lengthMin: 1, lengthMax: limits.RESOURCE_ARN_CHARS_MAX, pattern: TAGGABLE_ARN },
    } satisfies MembersOf<lambda.TagResourceRequest>,
    UntagResourceRequest: {
      Resource: { lengthMin: 1, lengthMax: limits.RESOURCE_ARN_CHARS_MAX, pattern: TAGGABLE_ARN },
    } satisfies MembersOf<lambda.UntagResourceRequest>,
    ListTagsRequest: {
      Resource: { lengthMin: 1, lengthMax: limits.RESOURCE_ARN_CHARS_MAX, pattern: TAGGABLE_ARN },
    } satisfies MembersOf<lambda.ListTagsRequest>,
    PutFunctionConcurrencyRequest: {
      ...byName,
      ReservedConcurrentExecutions: { min: 0 },
    } satisfies MembersOf<lambda.PutFunctionConcurrencyRequest>,
    GetFunctionConcurrencyRequest: byName satisfies MembersOf<lambda.GetFunctionConcurrencyRequest>,
    DeleteFunctionConcurrencyRequest: byName satisfies MembersOf<lambda.DeleteFunctionConcurrencyRequest>,
  }),
);

const lengthOf = (value: unknown): number | null => {
  if (typeof value === "string" || Array.isArray(value)) return value.length;
  return value instanceof Uint8Array ? value.byteLength : null;
};

/** What `value` breaks of a constraint, in AWS's words. */
export const violations = (value: unknown, constraint: Constraint): readonly string[] => {
  const { lengthMin, lengthMax, min, max, pattern, values } = constraint;
  const length = lengthOf(value);
  const broken: string[] = [];
  if (length !== null && lengthMin !== undefined && length < lengthMin) {
    broken.push(`Member must have length greater than or equal to ${lengthMin}`);
  }
  if (length !== null && lengthMax !== undefined && length > lengthMax) {
    broken.push(`Member must have length less than or equal to ${lengthMax}`);
  }
  if (typeof value === "number" && min !== undefined && value < min) {
    broken.push(`Member must have value greater than or equal to ${min}`);
  }
  if (typeof value === "number" && max !== undefined && value > max) {
    broken.push(`Member must have value less than or equal to ${max}`);
  }
  if (typeof value === "string" && pattern !== undefined && !pattern.test(value)) {
    broken.push(`Member must satisfy regular expression pattern: ${pattern.source.replace(/^\^|\$$/g, "")}`);
  }
  if (typeof value === "string" && values !== undefined && !values.includes(value)) {
    broken.push(`Member must satisfy enum value set: [${values.join(", ")}]`);
  }
  return broken;
};
