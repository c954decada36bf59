import { closeSync, constants, fstatSync, mkdirSync, openSync, readSync, statSync } from "node:fs";
import { parse, resolve, sep } from "node:path";

/** True for the error of a system call on a file or directory that is not there. */
export const isMissing = (error: unknown): boolean =>
  error instanceof Error && "code" in error && error.code === "ENOENT";

/**
 * Makes a directory and what is missing above it, each with `mode`; what is there already is left alone. Node's own
 * `recursive` never ends where the file system says ENOENT below a directory that is there, as `/proc` does. Throws the
 * error of the system call.
 */
export const makeDirectory = (path: string, mode: number): void => {
  const whole = resolve(path);
  const { root } = parse(whole);
  let made = root;
  for (const part of whole.slice(root.length).split(sep)) {
    made = resolve(made, part);
    try {
      mkdirSync(made, { mode });
    } catch (error) {
      // Not every file system says EEXIST first: one mounted read-only may say EROFS for what is there.
      if (!statSync(made, { throwIfNoEntry: false })?.isDirectory()) throw error;
    }
  }
};

/**
 * The bytes of a small file that somebody named. Throws an Error when it is no regular file (a device may have no end, a
 * FIFO may never begin) or longer than `bytesMax`, and what the system calls throw.
 */
export const readSmallFile = (path: string, bytesMax: number): Buffer => {
  // Without NONBLOCK a FIFO that nobody writes to would hold the open for ever.
  const file = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  try {
    if (!fstatSync(file).isFile()) throw new Error("it is no regular file");
    const bytes = Buffer.alloc(bytesMax + 1);
    let length = 0;
    for (let read = -1; read !== 0 && length < bytes.length; length += read) {
      read = readSync(file, bytes, length, bytes.length - length, null);
    }
    if (length > bytesMax) throw new Error(`it must have at most ${bytesMax} bytes`);
    return bytes.subarray(0, length);
  } finally {
    closeSync(file);
  }
};
