import { execFile } from "node:child_process";
import { promisify } from "node:util";
import { serviceFailure } from "../../wire/errors.ts";
import { toolExhaustion } from "../../wire/exhaustion.ts";

/** Any fixed UUID: two images of the same tree are then equal byte for byte. */
const IMAGE_UUID = "68656172-7468-4000-8000-000000000000";
const STDERR_CHARS_SHOWN = 500;

const run = promisify(execFile);

/** The tool ends with us: nothing of it writes on after a crash. setpriv is in Debian's util-linux, which is always there. */
const TOOL: readonly string[] = ["--pdeathsig", "KILL", "mkfs.erofs"];

/** Makes an EROFS image of a directory tree: owned by root, without times. Throws ServiceException when the tool fails. */
export const makeImage = async (directory: string, image: string): Promise<void> => {
  try {
    await run("setpriv", [...TOOL, "--quiet", "-x-1", "-T0", "--all-root", `-U${IMAGE_UUID}`, image, directory]);
  } catch (error) {
    const stderr = error instanceof Error && "stderr" in error ? String(error.stderr) : String(error);
    const full = toolExhaustion(stderr);
    if (full !== null) throw full;
    const why = stderr.startsWith("setpriv: failed to execute")
      ? "mkfs.erofs is not installed (Debian package erofs-utils)"
      : stderr.slice(-STDERR_CHARS_SHOWN);
    throw serviceFailure(`The code's image could not be made: ${why}`, error);
  }
};
