import { FUNCTION_GROUPS } from "./limits.ts";
import type { ReusePolicy } from "./slot.ts";

/** A content-addressed image in the blob store: lower-case hex SHA-256 of the uploaded archive. */
export type Digest = string;

/**
 * What a worker needs to run one version of a function, and nothing else. Immutable: a change of
 * configuration or code makes a new one, with another `revision`.
 */
export interface FunctionSpec {
  /** arn:aws:lambda:REGION:ACCOUNT:function:NAME, unqualified. */
  readonly functionArn: string;
  readonly functionName: string;
  /** "$LATEST" or a decimal number. */
  readonly version: string;
  /** RevisionId at the time; slots of another revision never serve this one. */
  readonly revision: string;
  readonly accountId: string;
  readonly region: string;
  /** e.g. nodejs24.x */
  readonly runtime: string;
  readonly handler: string;
  readonly memoryMb: number;
  readonly timeoutMs: number;
  readonly ephemeralMb: number;
  readonly environment: Readonly<Record<string, string>>;
  readonly code: Digest;
  readonly layers: readonly Digest[];
  readonly logGroup: string;
  readonly logFormat: "Text" | "JSON";
  readonly reuse: ReusePolicy;
}

/** Key under which slots are shared: equal keys mean interchangeable slots. */
export const functionKey = (spec: Pick<FunctionSpec, "functionArn" | "version" | "revision">): string =>
  `${spec.functionArn}:${spec.version}@${spec.revision}`;

/** FNV-1a, 32 bits (RFC 9923 section 5). */
const FNV_OFFSET = 0x811c9dc5;
const FNV_PRIME = 0x01000193;

/** Which of FUNCTION_GROUPS groups a function belongs to: all of its versions to one, for good, on every machine. */
export const functionGroup = (functionArn: string): number => {
  let hash = FNV_OFFSET;
  for (let at = 0; at < functionArn.length; at += 1) {
    hash = Math.imul(hash ^ functionArn.charCodeAt(at), FNV_PRIME);
  }
  return (hash >>> 0) % FUNCTION_GROUPS;
};
