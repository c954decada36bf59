import type {
  Concurrency,
  DeleteFunctionConcurrencyRequest,
  GetAccountSettingsResponse,
  GetFunctionConcurrencyRequest,
  GetFunctionConcurrencyResponse,
  PutFunctionConcurrencyRequest,
} from "@aws-sdk/client-lambda";
import { functionNotFound, invalidParameter } from "../../wire/errors.ts";
import * as limits from "../../wire/limits.ts";
import { findRecord } from "./context.ts";
import type { ApiServices } from "./context.ts";
import { functionArn, parseUnqualified } from "./names.ts";

/** What may be reserved in all: AWS keeps a part of the account's concurrency free for everybody. */
const reservableMax = (concurrencyMax: number): number =>
  Math.max(0, concurrencyMax - limits.CONCURRENCY_UNRESERVED_MIN);

export const GetAccountSettings = async ({ store, config }: ApiServices): Promise<GetAccountSettingsResponse> => {
  const { functions, codeBytes } = await store.usage(config.accountId);
  const reserved = await store.reservedConcurrency(config.accountId);
  return {
    AccountLimit: {
      TotalCodeSize: limits.CODE_STORAGE_BYTES_MAX,
      CodeSizeUnzipped: limits.UNZIPPED_BYTES_MAX,
      CodeSizeZipped: limits.ZIP_BYTES_MAX,
      ConcurrentExecutions: config.concurrencyMax,
      UnreservedConcurrentExecutions: config.concurrencyMax - reserved,
    },
    AccountUsage: { TotalCodeSize: codeBytes, FunctionCount: functions },
  };
};

export const PutFunctionConcurrency = async (
  { store, config, functions }: ApiServices,
  input: PutFunctionConcurrencyRequest,
): Promise<Concurrency> => {
  const functionName = parseUnqualified(config, input.FunctionName ?? "");
  const reserved = input.ReservedConcurrentExecutions ?? 0;
  const totalMax = reservableMax(config.concurrencyMax);
  const outcome = await store.setReservedConcurrency(config.accountId, functionName, reserved, totalMax);
  if (outcome === "missing") throw functionNotFound(functionArn(config, functionName));
  if (outcome === "exceeded") {
    throw invalidParameter(
      `Specified ReservedConcurrentExecutions for function decreases account's UnreservedConcurrentExecution below its minimum value of [${limits.CONCURRENCY_UNRESERVED_MIN}].`,
    );
  }
  functions.forget(functionName);
  return { ReservedConcurrentExecutions: reserved };
};

export const GetFunctionConcurrency = async (
  services: ApiServices,
  input: GetFunctionConcurrencyRequest,
): Promise<GetFunctionConcurrencyResponse> => {
  const functionName = parseUnqualified(services.config, input.FunctionName ?? "");
  await findRecord(services, functionName, null);
  const reserved = await services.store.getReservedConcurrency(services.config.accountId, functionName);
  return { ReservedConcurrentExecutions: reserved ?? undefined };
};

export const DeleteFunctionConcurrency = async (
  { store, config, functions }: ApiServices,
  input: DeleteFunctionConcurrencyRequest,
): Promise<Record<string, never>> => {
  const functionName = parseUnqualified(config, input.FunctionName ?? "");
  const outcome = await store.setReservedConcurrency(config.accountId, functionName, null, 0);
  if (outcome === "missing") throw functionNotFound(functionArn(config, functionName));
  functions.forget(functionName);
  return {};
};
