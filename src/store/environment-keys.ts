import { createCipheriv, createDecipheriv, createHash, randomBytes } from "node:crypto";
import {
  mkdirSync,
  readdirSync,
  readFileSync,
  writeFileSync,
  renameSync,
  openSync,
  fsyncSync,
  closeSync,
} from "node:fs";
import { join } from "node:path";
import { isMissing } from "../lib/files.ts";

/*
 * Environment variables are encrypted where they lie: AES-256-GCM under a key that is not in the database, so that a copy
 * of the database (a backup, a disk that was thrown away) does not tell them. Each key is a file of its own, named by its
 * identifier: putting back an old key overwrites no newer one. The newest key encrypts, all of them decrypt; what lies
 * under an older one is encrypted anew at the next start, after which the older one may be removed. A systemd credential
 * (`LoadCredential=`) of the name CREDENTIAL is a key too, and the newest whatever others there are.
 */

const KEY_BYTES = 32;
const NONCE_BYTES = 12;
const TAG_BYTES = 16;
const ID_BYTES = 4;
const FORMAT = 1;
const CIPHER = "aes-256-gcm";
const HEAD_BYTES = 1 + ID_BYTES + NONCE_BYTES;

export const CREDENTIAL = "hearth-environment-key";
const FILE = /^environment-(?<id>[0-9a-f]{8})\.key$/;
const FILE_TEXT = /^made: (?<made>\d{4}-[0-9T:.-]+Z)\nkey: (?<key>[A-Za-z0-9+/]{43}=)\n$/;

interface Key {
  readonly id: string;
  readonly bytes: Buffer;
  /** ISO 8601. */
  readonly made: string;
}

/** A text that cannot be read, with the reason. */
export class UnreadableError extends Error {
  override readonly name = "UnreadableError";
}

const idOf = (bytes: Buffer): string =>
  createHash("sha256")
    .update("hearth environment key")
    .update(bytes)
    .digest("hex")
    .slice(0, 2 * ID_BYTES);

const syncFile = (path: string): void => {
  const descriptor = openSync(path, "r");
  fsyncSync(descriptor);
  closeSync(descriptor);
};

/** Encrypts and decrypts environments. `about` names whose they are: one that was moved to another record is not read. */
export class EnvironmentKeys {
  readonly #current: Key;
  readonly #byId: ReadonlyMap<string, Key>;
  readonly #damaged: readonly string[];

  constructor(keys: readonly Key[], damaged: readonly string[] = []) {
    const current = keys.reduce((newest, key) => (key.made >= newest.made ? key : newest));
    this.#current = current;
    this.#byId = new Map(keys.map((key) => [key.id, key]));
    this.#damaged = damaged;
  }

  /** Names of key files that hold no key any more. */
  get damaged(): readonly string[] {
    return this.#damaged;
  }

  get currentId(): string {
    return this.#current.id;
  }

  encrypt(variables: Readonly<Record<string, string>>, about: string): Buffer<ArrayBuffer> {
    const { id, bytes } = this.#current;
    const nonce = randomBytes(NONCE_BYTES);
    const cipher = createCipheriv(CIPHER, bytes, nonce, { authTagLength: TAG_BYTES });
    cipher.setAAD(Buffer.from(about));
    const body = Buffer.concat([cipher.update(JSON.stringify(variables), "utf8"), cipher.final()]);
    return Buffer.concat([Buffer.from([FORMAT]), Buffer.from(id, "hex"), nonce, body, cipher.getAuthTag()]);
  }

  /** Throws UnreadableError when the key is not here, or what was encrypted is damaged. */
  decrypt(encrypted: Uint8Array, about: string): Readonly<Record<string, string>> {
    const bytes = Buffer.from(encrypted.buffer, encrypted.byteOffset, encrypted.byteLength);
    if (bytes.length < HEAD_BYTES + TAG_BYTES || bytes[0] !== FORMAT) {
      throw new UnreadableError("The environment variables of this function are damaged.");
    }
    const id = keyIdOf(bytes);
    const key = this.#byId.get(id);
    if (key === undefined) throw new UnreadableError(keyMissing(id, this.#damaged));
    try {
      const nonce = bytes.subarray(1 + ID_BYTES, HEAD_BYTES);
      const decipher = createDecipheriv(CIPHER, key.bytes, nonce, { authTagLength: TAG_BYTES });
      decipher.setAAD(Buffer.from(about));
      decipher.setAuthTag(bytes.subarray(-TAG_BYTES));
      const body = [decipher.update(bytes.subarray(HEAD_BYTES, -TAG_BYTES)), decipher.final()];
      return JSON.parse(Buffer.concat(body).toString("utf8")) as Record<string, string>;
    } catch (error) {
      throw new UnreadableError("The environment variables of this function are damaged.", { cause: error });
    }
  }
}

/** Under which key something was encrypted. */
export const keyIdOf = (encrypted: Uint8Array): string =>
  Buffer.from(encrypted.subarray(1, 1 + ID_BYTES)).toString("hex");

const keyMissing = (id: string, damaged: readonly string[]): string => {
  const file = `environment-${id}.key`;
  const state = damaged.includes(file) ? "is damaged" : "is not in the data directory's folder keys";
  return `The key of this function's environment variables, ${file}, ${state}. Put the file back, or set the variables again.`;
};

const newKey = (nowMs: number): Key => {
  const bytes = randomBytes(KEY_BYTES);
  return { id: idOf(bytes), bytes, made: new Date(nowMs).toISOString() };
};

/** A key for what is kept in memory only. */
export const passingKeys = (nowMs: number): EnvironmentKeys => new EnvironmentKeys([newKey(nowMs)]);

const writeKey = (directory: string, key: Key): void => {
  const path = join(directory, `environment-${key.id}.key`);
  writeFileSync(`${path}.new`, `made: ${key.made}\nkey: ${key.bytes.toString("base64")}\n`, { mode: 0o600 });
  syncFile(`${path}.new`);
  renameSync(`${path}.new`, path);
  syncFile(directory);
};

const readKey = (path: string, id: string): Key | null => {
  const { made, key } = FILE_TEXT.exec(readFileSync(path, "latin1"))?.groups ?? {};
  if (made === undefined || key === undefined) return null;
  const bytes = Buffer.from(key, "base64");
  return idOf(bytes) === id ? { id, bytes, made } : null;
};

const credentialKey = (directory: string | undefined): Key | null => {
  if (directory === undefined) return null;
  try {
    const text = readFileSync(join(directory, CREDENTIAL));
    // Any secret will do; it is brought to a key's length.
    const bytes = createHash("sha256").update(text).digest();
    return { id: idOf(bytes), bytes, made: "credential" };
  } catch (error) {
    if (isMissing(error)) return null;
    throw error;
  }
};

export interface KeyOptions {
  /** Unix ms. */
  readonly nowMs: number;
  /** systemd's CREDENTIALS_DIRECTORY. */
  readonly credentials?: string | undefined;
  /** Whether a key is made when there is none; else the keys of a data directory that is only looked at. */
  readonly make: boolean;
}

/** The keys in a directory, which is made, with a first key, when there is none. */
export const openEnvironmentKeys = (directory: string, { nowMs, credentials, make }: KeyOptions): EnvironmentKeys => {
  const keys: Key[] = [];
  const damaged: string[] = [];
  for (const name of listNames(directory)) {
    const id = FILE.exec(name)?.groups?.["id"];
    if (id === undefined) continue;
    const key = readKey(join(directory, name), id);
    if (key === null) damaged.push(name);
    else keys.push(key);
  }
  const credential = credentialKey(credentials);
  if (credential !== null) keys.push(credential);
  if (keys.length > 0) return new EnvironmentKeys(keys, damaged);
  const made = newKey(nowMs);
  if (make) {
    mkdirSync(directory, { recursive: true, mode: 0o700 });
    writeKey(directory, made);
  }
  return new EnvironmentKeys([made], damaged);
};

const listNames = (directory: string): string[] => {
  try {
    return readdirSync(directory);
  } catch (error) {
    if (isMissing(error)) return [];
    throw error;
  }
};
