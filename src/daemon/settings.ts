import { existsSync, readFileSync } from "node:fs";
import { homedir } from "node:os";
import { join, resolve } from "node:path";
import { isLoopbackAddress } from "../lib/loopback.ts";
import { usageError } from "./errors.ts";
import { KEY_NAME_DEFAULT, readKeyFile } from "./key-file.ts";

/** Where set-up puts the guest's images. */
export const IMAGES_DIRECTORY: string = new URL("../../build/images", import.meta.url).pathname;
/** The shim in the base image: PID 1 of every guest. */
export const SHIM_PATH = "/sbin/shim";

/** Where `hearth up` listens and the client commands look, unless told otherwise. In one place: here. */
export const LISTEN_DEFAULT = "127.0.0.1:9070";
export const REGION_DEFAULT = "us-east-1";
/** The account of a Hearth that nobody configured, as AWS's documentation writes accounts. */
export const ACCOUNT_DEFAULT = "000000000000";
/** Tag on a function: `never` gives every invocation a fresh microVM. */
export const REUSE_TAG = "hearth:reuse";

export type Environment = Readonly<Record<string, string | undefined>>;

/** Hearth's version. */
export const version = (): string => {
  const text = readFileSync(new URL("../../package.json", import.meta.url), "utf8");
  return (JSON.parse(text) as { readonly version: string }).version;
};

export interface Address {
  readonly host: string;
  readonly port: number;
}

/** The data directory: as given, HEARTH_DATA_DIR, /var/lib/hearth for root, else the user's data directory. Absolute. */
export const dataDirectory = (given: string | undefined, env: Environment): string => {
  const named = given ?? env["HEARTH_DATA_DIR"];
  if (named !== undefined && named !== "") return resolve(named);
  if (process.getuid?.() === 0) return "/var/lib/hearth";
  return join(env["XDG_DATA_HOME"] ?? join(homedir(), ".local", "share"), "hearth");
};

/** What is where in a data directory. */
export const dataFiles = (
  dataDir: string,
): Readonly<
  Record<
    | "credentials"
    | "keyUses"
    | "endpoint"
    | "lock"
    | "pid"
    | "control"
    | "logs"
    | "database"
    | "code"
    | "drives"
    | "scratch",
    string
  >
> => ({
  credentials: join(dataDir, "credentials"),
  keyUses: join(dataDir, "key-uses.json"),
  endpoint: join(dataDir, "endpoint"),
  lock: join(dataDir, "lock"),
  pid: join(dataDir, "hearth.pid"),
  control: join(dataDir, "control.sock"),
  logs: join(dataDir, "logs"),
  database: join(dataDir, "hearth.db"),
  code: join(dataDir, "code"),
  drives: join(dataDir, "drives"),
  scratch: join(dataDir, "scratch"),
});

/** `HOST:PORT`, `[IPv6]:PORT` or `PORT` (on the loopback). Port 0 asks for a free one. Throws a usage error. */
export const parseAddress = (text: string): Address => {
  const match = /^(?:(?<host>\[[0-9a-fA-F:.]+\]|[^:\s]+):)?(?<port>\d{1,5})$/.exec(text);
  const port = Number(match?.groups?.["port"]);
  if (match === null || port > 65_535) {
    throw usageError(`"${text}" is no address to listen on.`, `Write HOST:PORT, such as ${LISTEN_DEFAULT}.`);
  }
  const host = (match.groups?.["host"] ?? "127.0.0.1").replace(/^\[(.*)\]$/, "$1");
  return { host, port };
};

/** True when only this machine can reach the address. */
export const isLoopback = (host: string): boolean => host === "localhost" || isLoopbackAddress(host);

export interface ClientSettings {
  readonly endpoint: string;
  readonly dataDir: string;
  /** The certificate that a Hearth found in the data directory serves; null: the usual authorities decide. */
  readonly certFile?: string | null;
  readonly region: string;
  readonly credentials: { readonly accessKeyId: string; readonly secretAccessKey: string };
}

/** The key in the data directory that this machine's commands use: `default`, else the first. null when there is none. */
export const readCredentials = (dataDir: string): ClientSettings["credentials"] | null => {
  const keys = readKeyFile(dataFiles(dataDir).credentials);
  return keys.find(({ name }) => name === KEY_NAME_DEFAULT) ?? keys[0] ?? null;
};

/**
 * Where the client commands talk to, and with which keys. An endpoint that was named is met with the AWS_ variables
 * first; one found in the data directory with that directory's keys first, so that keys for AWS itself, set in the
 * same shell, are not in the way.
 */
export const clientSettings = (
  options: { readonly endpoint?: string; readonly dataDir?: string },
  env: Environment,
): ClientSettings => {
  const dataDir = dataDirectory(options.dataDir, env);
  const named = options.endpoint ?? env["HEARTH_ENDPOINT"];
  const file = dataFiles(dataDir).endpoint;
  const [running, certFile] = existsSync(file) ? readFileSync(file, "utf8").trim().split("\n") : [];
  const endpoint = named ?? running ?? `http://${LISTEN_DEFAULT}`;
  if (!/^https?:\/\/[^\s/]+/.test(endpoint)) {
    throw usageError(`"${endpoint}" is no endpoint.`, `Write a URL, such as http://${LISTEN_DEFAULT}.`);
  }
  const accessKeyId = env["AWS_ACCESS_KEY_ID"];
  const secretAccessKey = env["AWS_SECRET_ACCESS_KEY"];
  const fromVariables =
    accessKeyId === undefined || secretAccessKey === undefined ? null : { accessKeyId, secretAccessKey };
  const fromFile = readCredentials(dataDir);
  const credentials = (named === undefined ? (fromFile ?? fromVariables) : (fromVariables ?? fromFile)) ?? {
    // A Hearth started with `--auth none` takes any; every other one says what is missing.
    accessKeyId: "none",
    secretAccessKey: "none",
  };
  const region = env["AWS_REGION"] ?? env["AWS_DEFAULT_REGION"] ?? REGION_DEFAULT;
  const trusted = named === undefined && certFile !== undefined ? certFile : null;
  return { endpoint, dataDir, region, credentials, certFile: trusted };
};
