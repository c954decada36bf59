import { randomBytes } from "node:crypto";
import { existsSync, statSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { moveIntoPlace } from "../store/code/durable-files.ts";
import { CliError } from "./errors.ts";
import { dataFiles, readCredentials } from "./settings.ts";
import type { ClientSettings } from "./settings.ts";

/** 20 characters, as AWS's key ids have; `AKIA` marks a long-lived key. */
const newKeyId = (): string => `AKIA${randomBytes(8).toString("hex").toUpperCase()}`;

/**
 * The keys of a Hearth: those in its data directory, else new ones, kept there for the owner alone, in the format
 * of AWS's shared credentials file (so `AWS_SHARED_CREDENTIALS_FILE` can point to it).
 */
export const loadOrCreateCredentials = async (dataDir: string): Promise<ClientSettings["credentials"]> => {
  const found = readCredentials(dataDir);
  if (found !== null) return found;
  const { credentials: file } = dataFiles(dataDir);
  if (existsSync(file) && statSync(file).size > 0) {
    throw new CliError(
      `There are no keys in ${file}.`,
      "Put back what was in it, or remove it: then new keys are made, and the old ones are worth nothing.",
    );
  }
  const made = { accessKeyId: newKeyId(), secretAccessKey: randomBytes(30).toString("base64url") };
  const text = `[default]\naws_access_key_id = ${made.accessKeyId}\naws_secret_access_key = ${made.secretAccessKey}\n`;
  // Whole or not at all: half a file would stop every later start.
  await writeFile(`${file}.new`, text, { mode: 0o600 });
  await moveIntoPlace(`${file}.new`, file);
  return made;
};
