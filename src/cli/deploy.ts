import {
  CreateFunctionCommand,
  GetFunctionConfigurationCommand,
  ResourceConflictException,
  ResourceNotFoundException,
  TagResourceCommand,
  UpdateFunctionCodeCommand,
  UpdateFunctionConfigurationCommand,
} from "@aws-sdk/client-lambda";
import type { FunctionConfiguration, LambdaClient, Runtime } from "@aws-sdk/client-lambda";
import { setTimeout as sleep } from "node:timers/promises";
import { CliError } from "../daemon/errors.ts";
import { ACCOUNT_DEFAULT, REUSE_TAG } from "../daemon/settings.ts";

/** A function as it shall be. Absent members keep what an existing function has, or take Lambda's default. */
export interface Deployment {
  readonly name: string;
  readonly zip: Uint8Array;
  readonly runtime: string;
  readonly handler: string;
  readonly memoryMb?: number;
  readonly timeoutS?: number;
  readonly ephemeralMb?: number;
  readonly description?: string;
  readonly role?: string;
  readonly environment?: Readonly<Record<string, string>>;
  readonly reuse?: "always" | "never";
}

export interface Deployed {
  readonly functionArn: string;
  readonly created: boolean;
  readonly configuration: FunctionConfiguration;
}

const ROLE_DEFAULT = `arn:aws:iam::${ACCOUNT_DEFAULT}:role/hearth`;
const POLL_MS = 50;
const ACTIVE_TIMEOUT_MS = 120_000;

/** Creates the function, or updates its code and configuration, and waits until it can be invoked. */
export const deploy = async (client: LambdaClient, wanted: Deployment): Promise<Deployed> => {
  const existing = await configurationOf(client, wanted.name);
  if (existing === null) await create(client, wanted);
  else await update(client, wanted, existing);
  const configuration = await settled(client, wanted.name);
  return { functionArn: configuration.FunctionArn ?? "", created: existing === null, configuration };
};

const configurationOf = async (client: LambdaClient, name: string): Promise<FunctionConfiguration | null> => {
  try {
    return await client.send(new GetFunctionConfigurationCommand({ FunctionName: name }));
  } catch (error) {
    if (error instanceof ResourceNotFoundException) return null;
    throw error;
  }
};

const configurationMembers = (wanted: Deployment) => ({
  Runtime: wanted.runtime as Runtime,
  Handler: wanted.handler,
  ...(wanted.memoryMb === undefined ? {} : { MemorySize: wanted.memoryMb }),
  ...(wanted.timeoutS === undefined ? {} : { Timeout: wanted.timeoutS }),
  ...(wanted.ephemeralMb === undefined ? {} : { EphemeralStorage: { Size: wanted.ephemeralMb } }),
  ...(wanted.description === undefined ? {} : { Description: wanted.description }),
  ...(wanted.environment === undefined ? {} : { Environment: { Variables: { ...wanted.environment } } }),
});

const create = async (client: LambdaClient, wanted: Deployment): Promise<void> => {
  await client.send(
    new CreateFunctionCommand({
      FunctionName: wanted.name,
      Role: wanted.role ?? ROLE_DEFAULT,
      Code: { ZipFile: wanted.zip },
      ...configurationMembers(wanted),
      ...(wanted.reuse === undefined ? {} : { Tags: { [REUSE_TAG]: wanted.reuse } }),
    }),
  );
};

const update = async (client: LambdaClient, wanted: Deployment, existing: FunctionConfiguration): Promise<void> => {
  await settled(client, wanted.name);
  await whenFree(client, wanted.name, () =>
    client.send(new UpdateFunctionCodeCommand({ FunctionName: wanted.name, ZipFile: wanted.zip })),
  );
  await settled(client, wanted.name);
  await whenFree(client, wanted.name, () =>
    client.send(
      new UpdateFunctionConfigurationCommand({
        FunctionName: wanted.name,
        ...configurationMembers(wanted),
        ...(wanted.role === undefined ? {} : { Role: wanted.role }),
      }),
    ),
  );
  if (wanted.reuse !== undefined && existing.FunctionArn !== undefined) {
    await client.send(new TagResourceCommand({ Resource: existing.FunctionArn, Tags: { [REUSE_TAG]: wanted.reuse } }));
  }
};

/** A change made while another is in progress is refused with 409: once more, when that one is through. */
const whenFree = async (client: LambdaClient, name: string, change: () => Promise<unknown>): Promise<void> => {
  try {
    await change();
  } catch (error) {
    if (!(error instanceof ResourceConflictException)) throw error;
    await settled(client, name);
    await change();
  }
};

/** The configuration once it is Active and nothing is in progress. Throws a CliError when it failed or takes too long. */
export const settled = async (client: LambdaClient, name: string): Promise<FunctionConfiguration> => {
  const until = Date.now() + ACTIVE_TIMEOUT_MS;
  for (;;) {
    const found = await client.send(new GetFunctionConfigurationCommand({ FunctionName: name }));
    if (found.State === "Failed" || found.LastUpdateStatus === "Failed") {
      const reason = found.StateReason ?? found.LastUpdateStatusReason ?? "no reason given";
      throw new CliError(`Function ${name} failed to become active: ${reason}`);
    }
    if (found.State === "Active" && found.LastUpdateStatus !== "InProgress") return found;
    if (Date.now() > until) {
      throw new CliError(`Function ${name} is still ${found.State ?? "unknown"} after ${ACTIVE_TIMEOUT_MS / 1000} s.`);
    }
    await sleep(POLL_MS);
  }
};
