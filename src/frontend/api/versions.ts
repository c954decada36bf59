import { createHash } from "node:crypto";
import type {
  FunctionConfiguration,
  ListVersionsByFunctionRequest,
  ListVersionsByFunctionResponse,
  PublishVersionRequest,
} from "@aws-sdk/client-lambda";
import type { FunctionRecord } from "../../store/store.ts";
import { functionNotFound, invalidParameter } from "../../wire/errors.ts";
import { LIST_ITEMS_MAX, LIST_ITEMS_PER_PAGE } from "../../wire/limits.ts";
import { assertSettled, assertWhole, SETTLED, updateInProgress } from "../lifecycle.ts";
import { withHealth } from "../record-health.ts";
import { configurationOf } from "./configuration.ts";
import { checkRevision, findRecord } from "./context.ts";
import type { ApiServices } from "./context.ts";
import { functionArn, parseReference, parseUnqualified } from "./names.ts";

/** Under which a version keeps what it was made of, to tell whether $LATEST has changed since. */
const CONTENT = "hearth:content";

const sorted = (value: Readonly<Record<string, unknown>>): [string, unknown][] =>
  Object.entries(value)
    .filter(([name]) => name !== CONTENT)
    .sort(([a], [b]) => (a < b ? -1 : 1));

/** Equal for two records that differ in nothing a caller can set. */
const contentOf = (record: FunctionRecord): string => {
  const { code, runtime, handler, role, description, memoryMb, timeoutS, ephemeralMb } = record;
  const plain = [code.digest, runtime, handler, role, description, memoryMb, timeoutS, ephemeralMb];
  const nested = [sorted(record.environment), record.architectures, record.layers, record.logging, record.tracingMode];
  return createHash("sha256")
    .update(JSON.stringify([plain, nested, sorted(record.extra)]))
    .digest("hex");
};

const newestVersion = async (services: ApiServices, functionName: string): Promise<FunctionRecord | null> => {
  const { store, config } = services;
  let marker: string | null = null;
  let newest: FunctionRecord | undefined;
  do {
    const page = await store.listVersions(config.accountId, functionName, { marker, items: LIST_ITEMS_MAX });
    newest = page.items.at(-1) ?? newest;
    marker = page.nextMarker;
  } while (marker !== null);
  return newest ?? null;
};

/**
 * Publishes $LATEST; gives the newest version back instead when nothing has changed since. Throws
 * ResourceNotFoundException or ResourceConflictException when `latest` was deleted or changed meanwhile.
 */
export const publishRecord = async (
  services: ApiServices,
  latest: FunctionRecord,
  description: string | null,
): Promise<FunctionRecord> => {
  assertWhole(latest);
  const content = contentOf(latest);
  const newest = await newestVersion(services, latest.functionName);
  if (newest?.extra[CONTENT] === content) return newest;
  const version = {
    ...latest,
    ...SETTLED,
    description: description ?? latest.description,
    revisionId: services.ids.uuid(),
    extra: { ...latest.extra, [CONTENT]: content },
  };
  const published = await services.store.publishVersion(version, latest.revisionId);
  if (published !== null) return published;
  throw updateInProgress(await findRecord(services, latest.functionName, null));
};

export const PublishVersion = async (
  services: ApiServices,
  input: PublishVersionRequest,
): Promise<FunctionConfiguration> => {
  const functionName = parseUnqualified(services.config, input.FunctionName ?? "");
  const latest = await findRecord(services, functionName, null);
  assertSettled(latest);
  checkRevision(latest, input.RevisionId);
  const { sha256Base64 } = latest.code;
  if (input.CodeSha256 && input.CodeSha256 !== sha256Base64) {
    throw invalidParameter(
      `CodeSHA256 (${input.CodeSha256}) is different from current CodeSHA256 in $LATEST (${sha256Base64}). Please try again with the CodeSHA256 in $LATEST.`,
    );
  }
  return configurationOf(await publishRecord(services, latest, input.Description ?? null), true);
};

export const ListVersionsByFunction = async (
  services: ApiServices,
  input: ListVersionsByFunctionRequest,
): Promise<ListVersionsByFunctionResponse> => {
  const { store, config, code } = services;
  const { functionName } = parseReference(config, input.FunctionName ?? "", undefined);
  const items = Math.min(input.MaxItems ?? LIST_ITEMS_PER_PAGE, LIST_ITEMS_PER_PAGE);
  const page = await store.listVersions(config.accountId, functionName, { marker: input.Marker ?? null, items });
  if (page.items.length === 0 && input.Marker === undefined) throw functionNotFound(functionArn(config, functionName));
  return {
    Versions: page.items.map((record) => configurationOf(withHealth(code, record), true)),
    NextMarker: page.nextMarker ?? undefined,
  };
};
