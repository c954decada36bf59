import type {
  FunctionConfiguration,
  UpdateFunctionCodeRequest,
  UpdateFunctionConfigurationRequest,
} from "@aws-sdk/client-lambda";
import type { FunctionRecord } from "../../store/store.ts";
import { assertSettled, assertWhole, updateInProgress, UPDATING } from "../lifecycle.ts";
import { storeCode } from "./code-upload.ts";
import { configurationOf } from "./configuration.ts";
import { checkRevision, findRecord } from "./context.ts";
import type { ApiServices } from "./context.ts";
import { checkArchitectures, withSettings } from "./function-settings.ts";
import { parseUnqualified } from "./names.ts";
import { publishRecord } from "./versions.ts";

/** The function as it may be changed now. */
const changeable = async (
  services: ApiServices,
  name: string | undefined,
  revision: string | undefined,
  healing: FunctionRecord["damage"] | null = null,
): Promise<FunctionRecord> => {
  const functionName = parseUnqualified(services.config, name ?? "");
  const record = await findRecord(services, functionName, null);
  assertWhole(record, healing);
  assertSettled(record);
  checkRevision(record, revision);
  return record;
};

/** Stores a change of $LATEST, ends the slots of what it replaces, and lets it settle. */
const change = async (
  services: ApiServices,
  before: FunctionRecord,
  after: FunctionRecord,
): Promise<FunctionRecord> => {
  const { store, functions, workerManager, clock, ids } = services;
  const record = { ...after, ...UPDATING, revisionId: ids.uuid(), lastModifiedMs: clock.wallMs() };
  if (!(await store.updateFunction(record, before.revisionId))) throw updateInProgress(before);
  functions.forget(record.functionName);
  const { spec } = await functions.get(record.functionName, null);
  await workerManager.retire(spec.functionArn, spec.revision);
  return record;
};

export const UpdateFunctionCode = async (
  services: ApiServices,
  input: UpdateFunctionCodeRequest,
): Promise<FunctionConfiguration> => {
  const before = await changeable(services, input.FunctionName, input.RevisionId);
  checkArchitectures(input.Architectures);
  using code = await storeCode(services, input);
  if (input.DryRun === true) return configurationOf({ ...before, code: code.named }, false);
  const record = await change(services, before, { ...before, code: code.named });
  const published = input.Publish === true ? await publishRecord(services, record, null) : null;
  services.lifecycle.settle(record);
  return configurationOf(published ?? record, false);
};

export const UpdateFunctionConfiguration = async (
  services: ApiServices,
  input: UpdateFunctionConfigurationRequest,
): Promise<FunctionConfiguration> => {
  // Variables that cannot be read any more can be given anew.
  const healing = input.Environment === undefined ? null : "environment";
  const before = await changeable(services, input.FunctionName, input.RevisionId, healing);
  const record = await change(services, before, withSettings(before, input, services.config.runtimes));
  services.lifecycle.settle(record);
  return configurationOf(record, false);
};
