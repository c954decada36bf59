import { createHmac, createSecretKey, hash, timingSafeEqual } from "node:crypto";
import type { KeyObject } from "node:crypto";
import type { IncomingHttpHeaders } from "node:http";
import { escapeUri } from "@smithy/core/protocols";
import { getCanonicalQuery } from "@smithy/signature-v4";
import { ServiceError } from "../wire/errors.ts";
import { PRESIGNED_S_MAX, SIGNATURE_SKEW_MS } from "../wire/limits.ts";

/*
 * Signature Version 4, verified ("Create a signed AWS API request" in AWS's IAM user guide): in the Authorization
 * header, or in the query of a presigned URL.
 */

export interface Credentials {
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
}

/** The keys that may sign; which they are may change at any time. */
export interface Keys {
  secretOf(accessKeyId: string): string | undefined;
  /** A request was proven to be signed with it. */
  used(accessKeyId: string): void;
}

/** Keys that never change. */
export const fixedKeys = (credentials: readonly Credentials[]): Keys => {
  const secrets = new Map(credentials.map(({ accessKeyId, secretAccessKey }) => [accessKeyId, secretAccessKey]));
  return { secretOf: (accessKeyId) => secrets.get(accessKeyId), used: () => undefined };
};

export interface RequestHead {
  readonly method: string;
  /** Path and query exactly as they came: the signature covers their encoding. */
  readonly url: string;
  readonly headers: IncomingHttpHeaders;
  /** Whether nobody between can have changed the body: it comes over TLS, or from this machine. */
  readonly isPrivate: boolean;
}

/** A request whose head is in order. `checkBody` completes the check and must be called before anything is done. */
export interface Authenticated {
  readonly accessKeyId: string;
  /** True when the head alone proves that the client has the key; false when the body's hash is needed for that. */
  readonly isProven: boolean;
  /** False when the body's hash says nothing: `checkBody` then takes any. */
  readonly needsHash: boolean;
  /** Throws InvalidSignatureException when a body of this SHA-256 (hexadecimal) is not the one that was signed. */
  checkBody(sha256: string): void;
}

/** Checks requests' heads. Throws the ServiceError that AWS answers. */
export type Authenticator = (head: RequestHead) => Authenticated;

const ALGORITHM = "AWS4-HMAC-SHA256";
const SERVICE = "lambda";
const TERMINATOR = "aws4_request";
const UNSIGNED = "UNSIGNED-PAYLOAD";
/** Headers whose values are in every signature anyway: as the date, and as the last line of the canonical request. */
const ALWAYS_SIGNED: ReadonlySet<string> = new Set(["x-amz-date", "x-amz-content-sha256"]);
const SIGNING_KEYS_MAX = 64;
const MINUTE_MS = 60_000;
const MS_PER_S = 1_000;
const FORBIDDEN = 403;

const incomplete = (message: string): ServiceError =>
  new ServiceError("IncompleteSignatureException", FORBIDDEN, message);
const invalid = (message: string): ServiceError => new ServiceError("InvalidSignatureException", FORBIDDEN, message);

const mismatch = (): ServiceError =>
  invalid(
    "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key and signing method. Consult the service documentation for details.",
  );

/** What a request says about its own signature. */
interface Claim {
  readonly credential: string;
  readonly signedHeaders: readonly string[];
  readonly signature: string;
  /** 20260101T000000Z */
  readonly date: string;
  /** Null: a header signature, good within the allowed skew. */
  readonly expiresS: number | null;
  /** As the client gave it; null means: hash the body. */
  readonly payloadHash: string | null;
}

const one = (value: string | string[] | undefined): string | undefined =>
  Array.isArray(value) ? value.join(",") : value;

const headerClaim = (headers: IncomingHttpHeaders, authorization: string): Claim => {
  const [algorithm = "", ...rest] = authorization.trim().split(/\s+/);
  if (algorithm !== ALGORITHM) throw incomplete(`Unsupported AWS 'algorithm': '${algorithm}'; use ${ALGORITHM}.`);
  const parameters = new Map(
    rest
      .join("")
      .split(",")
      .map((part) => [part.slice(0, part.indexOf("=")), part.slice(part.indexOf("=") + 1)]),
  );
  const missing = ["Credential", "Signature", "SignedHeaders"].filter((name) => !parameters.get(name));
  const problems = missing.map((name) => `Authorization header requires '${name}' parameter.`);
  const date = one(headers["x-amz-date"]);
  if (date === undefined) problems.push("Authorization header requires existence of an 'X-Amz-Date' header.");
  if (problems.length > 0) throw incomplete(problems.join(" "));
  return {
    credential: parameters.get("Credential") ?? "",
    signedHeaders: (parameters.get("SignedHeaders") ?? "").split(";"),
    signature: parameters.get("Signature") ?? "",
    date: date ?? "",
    expiresS: null,
    payloadHash: one(headers["x-amz-content-sha256"]) ?? null,
  };
};

const queryClaim = (headers: IncomingHttpHeaders, query: URLSearchParams): Claim => {
  const get = (name: string): string => {
    const value = query.get(name);
    if (value === null || value === "") throw incomplete(`AWS query-string parameters must include '${name}'.`);
    return value;
  };
  if (get("X-Amz-Algorithm") !== ALGORITHM) throw incomplete(`X-Amz-Algorithm must be ${ALGORITHM}.`);
  const expiresS = Number(get("X-Amz-Expires"));
  if (!Number.isInteger(expiresS) || expiresS < 1 || expiresS > PRESIGNED_S_MAX) {
    throw incomplete(`X-Amz-Expires must be a number of seconds from 1 to ${PRESIGNED_S_MAX}.`);
  }
  return {
    credential: get("X-Amz-Credential"),
    signedHeaders: get("X-Amz-SignedHeaders").split(";"),
    signature: get("X-Amz-Signature"),
    date: get("X-Amz-Date"),
    expiresS,
    payloadHash: one(headers["x-amz-content-sha256"]) ?? query.get("X-Amz-Content-Sha256"),
  };
};

const parseDate = (text: string): number => {
  const ms = /^\d{8}T\d{6}Z$/.test(text)
    ? Date.parse(`${text.slice(0, 4)}-${text.slice(4, 6)}-${text.slice(6, 11)}:${text.slice(11, 13)}:${text.slice(13)}`)
    : Number.NaN;
  if (Number.isNaN(ms)) {
    throw incomplete(
      `Date must be in ISO-8601 'basic format'. Got '${text}'. See http://en.wikipedia.org/wiki/ISO_8601`,
    );
  }
  return ms;
};

const formatDate = (ms: number): string => new Date(ms).toISOString().replaceAll(/[-:]|\.\d+/g, "");

/** Throws unless the signature is of now: texts as AWS writes them. */
const checkTime = (claim: Claim, nowMs: number): void => {
  const signedMs = parseDate(claim.date);
  const window = `${SIGNATURE_SKEW_MS / MINUTE_MS} min.`;
  const lifetimeMs = claim.expiresS === null ? SIGNATURE_SKEW_MS : claim.expiresS * MS_PER_S;
  if (signedMs + lifetimeMs < nowMs) {
    const [earliest, now] = [formatDate(nowMs - lifetimeMs), formatDate(nowMs)];
    const shown = claim.expiresS === null ? window : `${claim.expiresS} s`;
    throw invalid(`Signature expired: ${claim.date} is now earlier than ${earliest} (${now} - ${shown})`);
  }
  if (signedMs > nowMs + SIGNATURE_SKEW_MS) {
    const [latest, now] = [formatDate(nowMs + SIGNATURE_SKEW_MS), formatDate(nowMs)];
    throw invalid(`Signature not yet current: ${claim.date} is still later than ${latest} (${now} + ${window})`);
  }
};

interface Scope {
  readonly accessKeyId: string;
  readonly text: string;
}

const checkScope = (claim: Claim, region: string): Scope => {
  const [accessKeyId = "", date, scopeRegion, service, terminator, ...more] = claim.credential.split("/");
  if (terminator === undefined || more.length > 0) {
    throw incomplete(
      `Credential must have exactly 5 slash-delimited elements, e.g. keyid/date/region/service/term, got '${claim.credential}'`,
    );
  }
  const problems: string[] = [];
  if (terminator !== TERMINATOR)
    problems.push(`Credential should be scoped with a valid terminator: '${TERMINATOR}', not '${terminator}'.`);
  if (scopeRegion !== region)
    problems.push(`Credential should be scoped to a valid region: '${region}', not '${scopeRegion}'.`);
  if (service !== SERVICE) problems.push(`Credential should be scoped to correct service: '${SERVICE}'.`);
  if (date !== claim.date.slice(0, 8)) {
    problems.push(
      `Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: '${date}' != '${claim.date.slice(0, 8)}', from '${claim.date}'.`,
    );
  }
  if (problems.length > 0) throw invalid(problems.join(" "));
  return { accessKeyId, text: `${date}/${region}/${SERVICE}/${TERMINATOR}` };
};

/** The path is encoded once more than it travels (so `%24` is signed as `%2524`), `.` and empty segments left out. */
const canonicalPath = (path: string): string => {
  const segments: string[] = [];
  for (const segment of path.split("/")) {
    if (segment === "..") segments.pop();
    else if (segment !== "" && segment !== ".") segments.push(segment);
  }
  const trailing = segments.length > 0 && path.endsWith("/") ? "/" : "";
  return `/${segments.map((segment) => escapeUri(segment)).join("/")}${trailing}`;
};

const queryRecord = (query: URLSearchParams): Record<string, string | string[]> => {
  const names = new Set(query.keys());
  return Object.fromEntries([...names].map((name) => [name, query.getAll(name)]));
};

/** Everything of the canonical request that stands above the payload's hash. */
const canonicalHead = (head: RequestHead, path: string, query: URLSearchParams, claim: Claim): string => {
  const headers = claim.signedHeaders.map((name) => {
    // Only what was sent: a header called `constructor` is not the object's own.
    const value = Object.hasOwn(head.headers, name) ? one(head.headers[name]) : undefined;
    if (value === undefined && name !== "host") throw mismatch();
    return `${name}:${(value ?? "").replaceAll(/\s+/g, " ").trim()}\n`;
  });
  const canonicalQuery =
    query.size === 0 ? "" : getCanonicalQuery({ query: queryRecord(query) } as Parameters<typeof getCanonicalQuery>[0]);
  return `${head.method}\n${canonicalPath(path)}\n${canonicalQuery}\n${headers.join("")}\n${claim.signedHeaders.join(";")}\n`;
};

const hmac = (key: string | Uint8Array | KeyObject, text: string): Buffer =>
  createHmac("sha256", key).update(text).digest();

/** As an object of the crypto library, which makes one of any other key with every use. */
const deriveKey = (secret: string, scope: string): KeyObject => {
  let key: string | Buffer = `AWS4${secret}`;
  for (const part of scope.split("/")) key = hmac(key, part);
  return createSecretKey(Buffer.from(key));
};

/** Signing keys by key id and scope. Only scopes that passed the checks come here: one a day. */
class SigningKeys {
  readonly #keys: Keys;
  readonly #derived = new Map<string, { readonly secret: string; readonly key: KeyObject }>();

  constructor(keys: Keys) {
    this.#keys = keys;
  }

  get(scope: Scope): KeyObject {
    const secret = this.#keys.secretOf(scope.accessKeyId);
    if (secret === undefined) {
      throw new ServiceError(
        "UnrecognizedClientException",
        FORBIDDEN,
        "The security token included in the request is invalid.",
      );
    }
    const name = `${scope.accessKeyId}/${scope.text}`;
    const known = this.#derived.get(name);
    if (known?.secret === secret) return known.key;
    if (this.#derived.size >= SIGNING_KEYS_MAX) this.#derived.clear();
    const key = deriveKey(secret, scope.text);
    this.#derived.set(name, { secret, key });
    return key;
  }
}

const claimOf = (head: RequestHead, query: URLSearchParams): Claim => {
  const authorization = one(head.headers.authorization);
  if (authorization !== undefined) return headerClaim(head.headers, authorization);
  if (query.has("X-Amz-Algorithm") || query.has("X-Amz-Signature")) return queryClaim(head.headers, query);
  throw new ServiceError("MissingAuthenticationTokenException", FORBIDDEN, "Missing Authentication Token");
};

/** Throws when a header that steers the request was added after it was signed, or the signature names no host. */
const checkSignedHeaders = (claim: Claim, headers: IncomingHttpHeaders): void => {
  if (!claim.signedHeaders.includes("host")) {
    throw invalid("'Host' must be a 'SignedHeader' in the AWS Authorization.");
  }
  const unsigned = Object.keys(headers).filter(
    (name) => name.startsWith("x-amz-") && !ALWAYS_SIGNED.has(name) && !claim.signedHeaders.includes(name),
  );
  if (unsigned.length > 0) {
    throw invalid(`There were headers present in the request which were not signed: ${unsigned.join(", ")}`);
  }
};

/** Throws when the payload's hash is none, or the body is left unsigned where others could change it. */
const checkPayloadHash = (payloadHash: string | null, isPrivate: boolean): void => {
  if (payloadHash === null) return;
  if (payloadHash === UNSIGNED) {
    if (isPrivate) return;
    throw invalid(
      `x-amz-content-sha256 may be ${UNSIGNED} only over TLS or from this machine. Sign the request's body, or use https.`,
    );
  }
  if (!/^[0-9a-f]{64}$/.test(payloadHash)) {
    throw invalid(`x-amz-content-sha256 must be ${UNSIGNED} or the SHA-256 of the body in hexadecimal.`);
  }
};

const sameSignature = (expected: Buffer, given: string): boolean =>
  /^[0-9a-f]{64}$/.test(given) && timingSafeEqual(expected, Buffer.from(given, "hex"));

/**
 * An authenticator for the given keys and region. A request that tells its body's hash is judged by its head alone,
 * before the body is read; of every other the signature is checked together with the body.
 */
export const sigV4Authenticator = (options: {
  readonly keys: Keys;
  readonly region: string;
  readonly nowMs: () => number;
}): Authenticator => {
  const keys = new SigningKeys(options.keys);
  return (head) => {
    const at = head.url.indexOf("?");
    const path = at < 0 ? head.url : head.url.slice(0, at);
    const query = new URLSearchParams(at < 0 ? "" : head.url.slice(at + 1));
    const claim = claimOf(head, query);
    const scope = checkScope(claim, options.region);
    const key = keys.get(scope);
    checkTime(claim, options.nowMs());
    checkSignedHeaders(claim, head.headers);
    checkPayloadHash(claim.payloadHash, head.isPrivate);
    const canonical = canonicalHead(head, path, query, claim);
    const checkSignature = (payloadHash: string): void => {
      const text = `${ALGORITHM}\n${claim.date}\n${scope.text}\n${hash("sha256", canonical + payloadHash, "hex")}`;
      if (!sameSignature(hmac(key, text), claim.signature)) throw mismatch();
      options.keys.used(scope.accessKeyId);
    };
    const { accessKeyId } = scope;
    const { payloadHash } = claim;
    if (payloadHash === null) return { accessKeyId, isProven: false, needsHash: true, checkBody: checkSignature };
    checkSignature(payloadHash);
    return {
      accessKeyId,
      isProven: true,
      needsHash: payloadHash !== UNSIGNED,
      checkBody: (sha256) => {
        if (payloadHash !== UNSIGNED && payloadHash !== sha256) throw mismatch();
      },
    };
  };
};

/** Lets everybody in: for a Frontend that only its owner can reach. */
export const noAuthenticator: Authenticator = () => ({
  accessKeyId: "anonymous",
  isProven: true,
  needsHash: false,
  checkBody: () => undefined,
});
