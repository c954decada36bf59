import { readFile, stat, writeFile } from "node:fs/promises";
import { isMissing } from "../../lib/files.ts";
import { moveIntoPlace } from "./durable-files.ts";

/**
 * By which a file is known again without reading it: nothing wrote to it through the file system while these are the
 * same. What a disk lost by itself does not show here; `hearth check` reads everything.
 */
export interface Stamp {
  readonly bytes: number;
  readonly inode: number;
  /** Of the last change, in ns; a text, for a number has not that many digits. */
  readonly modifiedNs: string;
}

/** What is known of one archive and its image since both were last read and found right. */
export interface CodeFacts {
  readonly zip: Stamp;
  readonly image: Stamp & { readonly sha256: string };
}

/** null when there is no such file. */
export const stampOf = async (path: string): Promise<Stamp | null> => {
  try {
    const { size, ino, mtimeNs } = await stat(path, { bigint: true });
    return { bytes: Number(size), inode: Number(ino), modifiedNs: mtimeNs.toString() };
  } catch (error) {
    if (isMissing(error)) return null;
    throw error;
  }
};

/** True as well for two files that are not there. */
export const isSame = (one: Stamp | null, other: Stamp | null): boolean =>
  one?.bytes === other?.bytes && one?.inode === other?.inode && one?.modifiedNs === other?.modifiedNs;

const isStamp = (value: unknown): value is Stamp =>
  typeof value === "object" &&
  value !== null &&
  "bytes" in value &&
  typeof value.bytes === "number" &&
  "inode" in value &&
  typeof value.inode === "number" &&
  "modifiedNs" in value &&
  typeof value.modifiedNs === "string";

const isFacts = (value: unknown): value is CodeFacts => {
  if (typeof value !== "object" || value === null || !("zip" in value) || !("image" in value)) return false;
  const { zip, image } = value;
  return isStamp(zip) && isStamp(image) && "sha256" in image && /^[0-9a-f]{64}$/.test(String(image.sha256));
};

/** null when there are none, or none that can be read: then the image is made again, which makes new ones. */
export const readFacts = async (path: string): Promise<CodeFacts | null> => {
  try {
    const value: unknown = JSON.parse(await readFile(path, "utf8"));
    return isFacts(value) ? value : null;
  } catch (error) {
    if (isMissing(error) || error instanceof SyntaxError) return null;
    throw error;
  }
};

export const writeFacts = async (path: string, facts: CodeFacts): Promise<void> => {
  await writeFile(`${path}.new`, JSON.stringify(facts), { mode: 0o600 });
  await moveIntoPlace(`${path}.new`, path);
};
