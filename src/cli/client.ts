import { LambdaClient } from "@aws-sdk/client-lambda";
import type { ClientSettings } from "../daemon/settings.ts";

/** The AWS SDK's own client, pointed to Hearth. Nothing is retried: what goes wrong is told. */
export const lambdaClient = (settings: ClientSettings): LambdaClient =>
  new LambdaClient({
    endpoint: settings.endpoint,
    region: settings.region,
    credentials: settings.credentials,
    maxAttempts: 1,
  });
