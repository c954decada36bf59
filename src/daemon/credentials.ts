import { randomBytes } from "node:crypto";
import { existsSync, statSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { moveIntoPlace } from "../store/code/durable-files.ts";
import { CliError, usageError } from "./errors.ts";
import { formatKeys, isKeyName, KEY_NAME_DEFAULT, readKeyFile } from "./key-file.ts";
import type { NamedKey } from "./key-file.ts";
import { dataFiles } from "./settings.ts";

/** Far more than anybody can keep apart; each costs a running Hearth some hundred bytes. */
const KEYS_MAX = 1_000;

/** 20 characters, as AWS's key ids have; `AKIA` marks a long-lived key. */
const newKeyId = (): string => `AKIA${randomBytes(8).toString("hex").toUpperCase()}`;

const newKey = (name: string, nowMs: number): NamedKey => ({
  name,
  accessKeyId: newKeyId(),
  secretAccessKey: randomBytes(30).toString("base64url"),
  createdAt: new Date(nowMs).toISOString(),
});

/** Whole or not at all: half a file would stop every later start. For the owner alone. */
const writeKeys = async (dataDir: string, keys: readonly NamedKey[]): Promise<void> => {
  const { credentials: file } = dataFiles(dataDir);
  await writeFile(`${file}.new`, formatKeys(keys), { mode: 0o600 });
  await moveIntoPlace(`${file}.new`, file);
};

/** The keys of a data directory, in the order in which they were made. Throws a CliError when its file has none. */
export const listKeys = (dataDir: string): NamedKey[] => {
  const { credentials: file } = dataFiles(dataDir);
  const keys = readKeyFile(file);
  if (keys.length === 0 && existsSync(file) && statSync(file).size > 0) {
    throw new CliError(
      `There are no keys in ${file}.`,
      "Put back what was in it, or remove it: then new keys are made, and the old ones are worth nothing.",
    );
  }
  return keys;
};

/**
 * The key that a Hearth's own commands use: `default`, or the first one there is, in its data directory; else a new one,
 * kept there for the owner alone.
 */
export const loadOrCreateCredentials = async (dataDir: string, nowMs: number): Promise<NamedKey> => {
  const keys = listKeys(dataDir);
  const found = keys.find(({ name }) => name === KEY_NAME_DEFAULT) ?? keys[0];
  if (found !== undefined) return found;
  const made = newKey(KEY_NAME_DEFAULT, nowMs);
  await writeKeys(dataDir, [made]);
  return made;
};

/** Makes a key of that name. A running Hearth knows it within a second. Throws a usage error when the name is taken or none. */
export const addKey = async (dataDir: string, name: string, nowMs: number): Promise<NamedKey> => {
  if (!isKeyName(name)) {
    throw usageError(
      `"${name}" is no name of a key.`,
      "A name has 1 to 64 letters, digits, dots, dashes and underscores.",
    );
  }
  const keys = listKeys(dataDir);
  if (keys.some((key) => key.name === name)) {
    throw usageError(`There is a key ${name} already.`, `Choose another name, or remove it: hearth keys rm ${name}`);
  }
  if (keys.length >= KEYS_MAX) throw new CliError(`There must be at most ${KEYS_MAX} keys, and there are as many.`);
  const made = newKey(name, nowMs);
  await writeKeys(dataDir, [...keys, made]);
  return made;
};

/** Removes the key of that name. A running Hearth refuses it within a second. Throws when there is none, or it is the last. */
export const removeKey = async (dataDir: string, name: string): Promise<void> => {
  const keys = listKeys(dataDir);
  const left = keys.filter((key) => key.name !== name);
  if (left.length === keys.length) {
    throw new CliError(`There is no key ${name}.`, "`hearth keys ls` shows those that there are.");
  }
  if (left.length === 0) {
    throw new CliError(
      `${name} is the only key, and without one nobody could call this Hearth.`,
      "Add another first: hearth keys add NAME",
    );
  }
  await writeKeys(dataDir, left);
};
