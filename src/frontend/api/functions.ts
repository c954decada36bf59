import type {
  CreateFunctionRequest,
  DeleteFunctionRequest,
  DeleteFunctionResponse,
  FunctionConfiguration,
  GetFunctionConfigurationRequest,
  GetFunctionRequest,
  GetFunctionResponse,
  ListFunctionsRequest,
  ListFunctionsResponse,
} from "@aws-sdk/client-lambda";
import type { FunctionRecord } from "../../store/store.ts";
import { functionNotFound, invalidParameter, ServiceError } from "../../wire/errors.ts";
import * as limits from "../../wire/limits.ts";
import { CREATING } from "../lifecycle.ts";
import { withHealth } from "../record-health.ts";
import { storeCode } from "./code-upload.ts";
import { configurationOf } from "./configuration.ts";
import { findRecord } from "./context.ts";
import type { ApiRequest, ApiServices } from "./context.ts";
import { withSettings } from "./function-settings.ts";
import { functionArn, LATEST, parseReference, parseUnqualified } from "./names.ts";
import { checkTags } from "./tags.ts";
import { publishRecord } from "./versions.ts";

/** A function of which only its name is known yet: every default of the API. */
const blankRecord = (services: ApiServices, functionName: string): Omit<FunctionRecord, "code"> => ({
  accountId: services.config.accountId,
  region: services.config.region,
  functionName,
  version: LATEST,
  revisionId: services.ids.uuid(),
  runtime: "",
  handler: "",
  role: "",
  description: "",
  memoryMb: limits.MEMORY_MB_DEFAULT,
  timeoutS: limits.TIMEOUT_S_DEFAULT,
  ephemeralMb: limits.EPHEMERAL_MB_DEFAULT,
  environment: {},
  architectures: ["x86_64"],
  layers: [],
  logging: { format: "Text", group: `/aws/lambda/${functionName}`, applicationLevel: null, systemLevel: null },
  tracingMode: "PassThrough",
  ...CREATING,
  lastModifiedMs: services.clock.wallMs(),
  extra: {},
});

const NO_CODE: FunctionRecord["code"] = { digest: "", sha256Base64: "", bytes: 0 };

export const CreateFunction = async (
  services: ApiServices,
  input: CreateFunctionRequest,
): Promise<FunctionConfiguration> => {
  const { store, config, lifecycle } = services;
  const functionName = parseUnqualified(config, input.FunctionName ?? "");
  const image = input.PackageType === "Image";
  if (!image && (input.Runtime === undefined || input.Handler === undefined)) {
    throw invalidParameter(
      "Runtime and Handler are mandatory parameters for functions created with deployment packages.",
    );
  }
  const tags = checkTags(input.Tags ?? {});
  const blank = { ...blankRecord(services, functionName), code: NO_CODE };
  const settings = withSettings(blank, input, config.runtimes);
  if ((await store.getFunction(config.accountId, functionName, LATEST)) !== null) {
    throw new ServiceError("ResourceConflictException", 409, `Function already exist: ${functionName}`, {
      Type: "User",
    });
  }
  using code = await storeCode(services, input.Code ?? {});
  const record: FunctionRecord = { ...settings, code: code.named };
  await store.createFunction(record, tags);
  services.functions.forget(functionName);
  const published = input.Publish === true ? await publishRecord(services, record, null) : null;
  lifecycle.settle(record);
  return configurationOf(published ?? record, false);
};

export const GetFunctionConfiguration = async (
  services: ApiServices,
  input: GetFunctionConfigurationRequest,
): Promise<FunctionConfiguration> => {
  const { functionName, qualifier } = parseReference(services.config, input.FunctionName ?? "", input.Qualifier);
  const record = await findRecord(services, functionName, qualifier);
  return configurationOf(withHealth(services.code, record), qualifier !== null);
};

export const GetFunction = async (
  services: ApiServices,
  input: GetFunctionRequest,
  request: ApiRequest,
): Promise<GetFunctionResponse> => {
  const { store, config, links } = services;
  const { functionName, qualifier } = parseReference(config, input.FunctionName ?? "", input.Qualifier);
  const record = await findRecord(services, functionName, qualifier);
  const tags = (await store.getTags(config.accountId, functionName)) ?? {};
  const reserved = await store.getReservedConcurrency(config.accountId, functionName);
  return {
    Configuration: configurationOf(withHealth(services.code, record), qualifier !== null),
    Code: { RepositoryType: "S3", Location: links.make(request.headers.host ?? "localhost", record.code.digest) },
    Tags: Object.keys(tags).length === 0 ? undefined : { ...tags },
    Concurrency: reserved === null ? undefined : { ReservedConcurrentExecutions: reserved },
  };
};

export const ListFunctions = async (
  { store, config, code }: ApiServices,
  input: ListFunctionsRequest,
): Promise<ListFunctionsResponse> => {
  const items = Math.min(input.MaxItems ?? limits.LIST_ITEMS_PER_PAGE, limits.LIST_ITEMS_PER_PAGE);
  const allVersions = input.FunctionVersion === "ALL";
  const page = await store.listFunctions(config.accountId, { marker: input.Marker ?? null, items, allVersions });
  return {
    Functions: page.items.map((record) => configurationOf(withHealth(code, record), allVersions)),
    NextMarker: page.nextMarker ?? undefined,
  };
};

export const DeleteFunction = async (
  services: ApiServices,
  input: DeleteFunctionRequest,
): Promise<DeleteFunctionResponse> => {
  const { store, config, functions, workerManager } = services;
  const { functionName, qualifier } = parseReference(config, input.FunctionName ?? "", input.Qualifier);
  if (qualifier === LATEST) {
    throw invalidParameter("$LATEST version cannot be deleted without deleting the function.");
  }
  if (qualifier !== null && !/^\d+$/.test(qualifier)) {
    throw invalidParameter("Deletion of aliases is not currently supported.");
  }
  await findRecord(services, functionName, null);
  const deleted = await store.deleteFunction(config.accountId, functionName, qualifier);
  functions.forget(functionName);
  // AWS takes the deletion of a version that is not there as done.
  if (!deleted && qualifier === null) throw functionNotFound(functionArn(config, functionName, qualifier));
  if (qualifier === null) await workerManager.retire(functionArn(config, functionName), null);
  await freeSpace(services);
  return { StatusCode: 204 };
};

/** On a full disk a deletion is the remedy, so what it frees is freed at once. */
const freeSpace = async ({ code, store, log }: ApiServices): Promise<void> => {
  try {
    if (await code.isShort()) await code.collect(await store.digestsInUse());
  } catch (error) {
    log.error({ err: error }, "unused code could not be collected");
  }
};
