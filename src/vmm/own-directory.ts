import { lstatSync, mkdirSync, realpathSync, type Stats } from "node:fs";
import { dirname, resolve } from "node:path";

/** Write permission of the group and of all others. */
const OTHERS_WRITE = 0o022;
const STICKY = 0o1000;
const ROOT = 0;

const statusOf = (path: string): Stats => {
  try {
    return lstatSync(path);
  } catch (error) {
    throw new Error(`${path} cannot be looked at: ${error instanceof Error ? error.message : String(error)}`, {
      cause: error,
    });
  }
};

/** What somebody else could do to a directory of ours from above it, or null: rename it, and put another one in its place. */
const weaknessAbove = (path: string, user: number): string | null => {
  for (let above = dirname(path); ; above = dirname(above)) {
    const status = statusOf(above);
    if (status.uid !== ROOT && status.uid !== user) return `${above} belongs to user ${String(status.uid)}`;
    const isOpen = (status.mode & OTHERS_WRITE) !== 0 && (status.mode & STICKY) === 0;
    // The permissions of a symbolic link say nothing; only its owner can change it.
    if (isOpen && !status.isSymbolicLink()) return `${above} can be written by others`;
    if (above === dirname(above)) return null;
  }
};

/** Whether what is above a directory counts: `any` for one below a place that the administrator named. */
export type Above = "safe" | "any";

/** Why a directory that exists is not this user's alone, or null. */
export const unsafety = (directory: string, above: Above): string | null => {
  const path = resolve(directory);
  const user = process.getuid?.() ?? ROOT;
  const status = statusOf(path);
  if (status.isSymbolicLink()) return "it is a symbolic link";
  if (!status.isDirectory()) return "it is not a directory";
  if (status.uid !== user) return `it belongs to user ${String(status.uid)}`;
  if ((status.mode & OTHERS_WRITE) !== 0) return "others may write to it";
  if (above === "any") return null;
  // As it is written, links among it, and as it really is.
  return weaknessAbove(path, user) ?? weaknessAbove(realpathSync(path), user);
};

/**
 * Makes a directory in which only this user can put anything, with all that is missing above it, or takes it when it is
 * there already. Throws, naming the directory and what is wrong with it, when somebody else's is in its place (a symbolic
 * link, another owner, others may write) or, with `safe`, could be put there: sockets and programs of ours are to lie in it.
 */
export const takeOwnDirectory = (directory: string, mode: number, above: Above): void => {
  mkdirSync(directory, { recursive: true, mode });
  const wrong = unsafety(directory, above);
  if (wrong !== null)
    throw new Error(
      `The directory ${resolve(directory)} is not safe to use: ${wrong}. Remove or mend it, or set another one`,
    );
};
