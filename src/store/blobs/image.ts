import { execFile } from "node:child_process";
import { promisify } from "node:util";
import { serviceFailure } from "../../wire/errors.ts";

/** Any fixed UUID: two images of the same tree are then equal byte for byte. */
const IMAGE_UUID = "68656172-7468-4000-8000-000000000000";
const STDERR_CHARS_SHOWN = 500;

const run = promisify(execFile);

/** Makes an EROFS image of a directory tree: owned by root, without times. Throws ServiceException when the tool fails. */
export const makeImage = async (directory: string, image: string): Promise<void> => {
  try {
    await run("mkfs.erofs", ["--quiet", "-x-1", "-T0", "--all-root", `-U${IMAGE_UUID}`, image, directory]);
  } catch (error) {
    const missing = error instanceof Error && "code" in error && error.code === "ENOENT";
    const stderr = error instanceof Error && "stderr" in error ? String(error.stderr) : String(error);
    const why = missing
      ? "mkfs.erofs is not installed (Debian package erofs-utils)"
      : stderr.slice(-STDERR_CHARS_SHOWN);
    throw serviceFailure(`The code's image could not be made: ${why}`, error);
  }
};
