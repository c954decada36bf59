import { open, rename } from "node:fs/promises";
import { dirname } from "node:path";

/** Puts what was written to a file, or the names in a directory, onto the disk. */
export const syncPath = async (path: string): Promise<void> => {
  await using handle = await open(path, "r");
  await handle.sync();
};

/** Moves a finished file to its place, so that after a crash it is there whole or not at all. */
export const moveIntoPlace = async (from: string, to: string): Promise<void> => {
  await syncPath(from);
  await rename(from, to);
  await syncPath(dirname(to));
};
