import { LambdaClient } from "@aws-sdk/client-lambda";
import { readFileSync } from "node:fs";
import { Agent } from "node:https";
import type { ClientSettings } from "../daemon/settings.ts";

/**
 * Trusts this certificate and no other, whatever names are in it: it is the one that the Hearth of this machine's own data
 * directory serves, and who may read the keys there need not be told by an authority whom they talk to.
 */
const trustOnly = (certFile: string): Agent =>
  new Agent({
    ca: readFileSync(certFile),
    allowPartialTrustChain: true,
    checkServerIdentity: () => undefined,
    keepAlive: true,
  });

/** The AWS SDK's own client, pointed to Hearth. Nothing is retried: what goes wrong is told. */
export const lambdaClient = ({ certFile = null, endpoint, region, credentials }: ClientSettings): LambdaClient =>
  new LambdaClient({
    endpoint,
    region,
    credentials,
    maxAttempts: 1,
    ...(certFile === null ? {} : { requestHandler: { httpsAgent: trustOnly(certFile) } }),
  });
