import { invalidParameter, ServiceError } from "../../wire/errors.ts";
import { FUNCTION_BARE_NAME_CHARS_MAX } from "../../wire/limits.ts";

/*
 * A function is named by its name, ACCOUNT:function:NAME, function:NAME, or its ARN, each with or without :QUALIFIER.
 * AWS's patterns, but for the region: any of AWS's form, since an installation may choose its own.
 * Groups: 3 region, 5 account, 7 name, 9 qualifier.
 */
export const FUNCTION_NAME: RegExp =
  /^(arn:(aws[a-zA-Z-]*)?:lambda:)?([a-z]{2}(-[a-z]+)+-\d{1}:)?(\d{12}:)?(function:)?([a-zA-Z0-9-_]+)(:(\$LATEST|[a-zA-Z0-9-_]+))?$/;
/** As FUNCTION_NAME; operations that read or invoke allow dots as well. */
export const VERSIONED_FUNCTION_NAME: RegExp =
  /^(arn:(aws[a-zA-Z-]*)?:lambda:)?([a-z]{2}(-[a-z]+)+-\d{1}:)?(\d{12}:)?(function:)?([a-zA-Z0-9-_.]+)(:(\$LATEST|[a-zA-Z0-9-_]+))?$/;

export const LATEST = "$LATEST";

/** Where this Frontend's functions live. */
export interface Home {
  readonly accountId: string;
  readonly region: string;
}

export interface FunctionReference {
  readonly functionName: string;
  /** As the caller gave it, in the name or beside it; null when there was none. */
  readonly qualifier: string | null;
}

/** ARN of a function, or of one of its versions. */
export const functionArn = (home: Home, functionName: string, qualifier: string | null = null): string =>
  `arn:aws:lambda:${home.region}:${home.accountId}:function:${functionName}${qualifier === null ? "" : `:${qualifier}`}`;

const checkHome = (home: Home, region: string | undefined, account: string | undefined, name: string): void => {
  if (region !== undefined && region !== home.region) {
    throw new ServiceError(
      "ResourceNotFoundException",
      404,
      `Functions from '${region}' are not reachable in this region ('${home.region}')`,
      { Type: "User" },
    );
  }
  if (account !== undefined && account !== home.accountId) {
    const resource = functionArn({ ...home, accountId: account }, name);
    throw new ServiceError(
      "AccessDeniedException",
      403,
      `User: arn:aws:iam::${home.accountId}:root is not authorized to perform this action on resource: ${resource} because no resource-based policy allows it`,
    );
  }
};

/**
 * Reads a name in any of its forms, and the qualifier given beside it. Throws as AWS does for another region or
 * account, a name too long, and two qualifiers that differ.
 */
export const parseReference = (home: Home, text: string, beside: string | undefined): FunctionReference => {
  const match = VERSIONED_FUNCTION_NAME.exec(text);
  const [, , , region, , account, , functionName, , inside] = match ?? [];
  if (functionName === undefined) throw invalidParameter(`'${text}' is no name of a function`);
  if (functionName.length > FUNCTION_BARE_NAME_CHARS_MAX) {
    throw new ServiceError(
      "ValidationException",
      400,
      `1 validation error detected: Value '${functionName}' at 'functionName' failed to satisfy constraint: Member must have length less than or equal to ${FUNCTION_BARE_NAME_CHARS_MAX}`,
    );
  }
  checkHome(home, region?.slice(0, -1), account?.slice(0, -1), functionName);
  const qualifier = beside === "" ? undefined : beside;
  if (inside !== undefined && qualifier !== undefined && inside !== qualifier) {
    throw invalidParameter("The derived qualifier from the function name does not match the specified qualifier.");
  }
  return { functionName, qualifier: qualifier ?? inside ?? null };
};

/** For operations on a function as a whole: its bare name. Throws when a version is named. */
export const parseUnqualified = (home: Home, text: string): string => {
  const { functionName, qualifier } = parseReference(home, text, undefined);
  if (qualifier !== null && qualifier !== LATEST) {
    throw invalidParameter(
      "This operation is permitted on Lambda functions only. Aliases and versions do not support this operation. Please specify either a function name or an unqualified function ARN.",
    );
  }
  return functionName;
};
