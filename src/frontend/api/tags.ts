import type {
  ListTagsRequest,
  ListTagsResponse,
  TagResourceRequest,
  UntagResourceRequest,
} from "@aws-sdk/client-lambda";
import { functionNotFound, invalidParameter } from "../../wire/errors.ts";
import { TAG_KEY_CHARS_MAX, TAG_VALUE_CHARS_MAX, TAGS_MAX } from "../../wire/limits.ts";
import { REUSE_TAG } from "../function-cache.ts";
import type { ApiServices } from "./context.ts";
import { functionArn, parseReference } from "./names.ts";

type Tags = Readonly<Record<string, string>>;

/** Checks tags that are to be set, and gives them back. */
export const checkTags = (tags: Tags): Tags => {
  for (const [key, value] of Object.entries(tags)) {
    if (key.length < 1 || key.length > TAG_KEY_CHARS_MAX) {
      throw invalidParameter(`The tag key '${key}' must have 1 to ${TAG_KEY_CHARS_MAX} characters.`);
    }
    if (value.length > TAG_VALUE_CHARS_MAX) {
      throw invalidParameter(`The value of the tag '${key}' must have at most ${TAG_VALUE_CHARS_MAX} characters.`);
    }
    if (key.toLowerCase().startsWith("aws:")) {
      throw invalidParameter(`The tag key '${key}' must not begin with 'aws:'.`);
    }
    if (key === REUSE_TAG && value !== "always" && value !== "never") {
      throw invalidParameter(`The tag '${REUSE_TAG}' must be 'always' or 'never', not '${value}'.`);
    }
  }
  if (Object.keys(tags).length > TAGS_MAX) throw invalidParameter("Number of tags exceeds resource tag limit.");
  return tags;
};

interface Tagged {
  readonly functionName: string;
  readonly tags: Tags;
}

const taggedFunction = async ({ store, config }: ApiServices, resource: string | undefined): Promise<Tagged> => {
  const arn = resource ?? "";
  if (!/:function:/.test(arn)) throw invalidParameter(`Only functions can be tagged here yet, not ${arn}.`);
  const { functionName, qualifier } = parseReference(config, arn, undefined);
  if (qualifier !== null) {
    throw invalidParameter("Tags on function aliases and versions are not supported. Please specify a function ARN.");
  }
  const tags = await store.getTags(config.accountId, functionName);
  if (tags === null) throw functionNotFound(functionArn(config, functionName));
  return { functionName, tags };
};

/** Stores a change of tags; a change of the reuse policy ends the slots of the old one. */
const change = async (services: ApiServices, tagged: Tagged, set: Tags, remove: readonly string[]): Promise<void> => {
  const { store, config, functions, workerManager } = services;
  const { functionName } = tagged;
  if (!(await store.changeTags(config.accountId, functionName, set, remove))) {
    throw functionNotFound(functionArn(config, functionName));
  }
  functions.forget(functionName);
  if (set[REUSE_TAG] === undefined && !remove.includes(REUSE_TAG)) return;
  const { spec } = await functions.get(functionName, null);
  await workerManager.retire(spec.functionArn, spec.revision);
};

export const TagResource = async (services: ApiServices, input: TagResourceRequest): Promise<Record<string, never>> => {
  const tagged = await taggedFunction(services, input.Resource);
  const set = checkTags(input.Tags ?? {});
  checkTags({ ...tagged.tags, ...set });
  await change(services, tagged, set, []);
  return {};
};

export const UntagResource = async (
  services: ApiServices,
  input: UntagResourceRequest,
): Promise<Record<string, never>> => {
  const tagged = await taggedFunction(services, input.Resource);
  await change(services, tagged, {}, input.TagKeys ?? []);
  return {};
};

export const ListTags = async (services: ApiServices, input: ListTagsRequest): Promise<ListTagsResponse> => ({
  Tags: { ...(await taggedFunction(services, input.Resource)).tags },
});
