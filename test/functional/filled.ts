import { execFileSync } from "node:child_process";
import { closeSync, openSync, statfsSync, writeFileSync, writeSync } from "node:fs";

const BLOCK_BYTES_MAX = 1024 * 1024;

/** Fills the disk that a file is on to its last byte: what somebody else may do at any time. */
export const fillDisk = (file: string): void => {
  writeFileSync(file, "");
  const { bavail, bsize } = statfsSync(file);
  // Most of it in no time.
  const bytesMost = bavail * bsize - BLOCK_BYTES_MAX;
  if (bytesMost > 0) execFileSync("fallocate", ["--length", String(bytesMost), file]);
  const descriptor = openSync(file, "a");
  try {
    for (let bytes = BLOCK_BYTES_MAX; bytes > 0;) {
      try {
        while (writeSync(descriptor, Buffer.alloc(bytes, 1)) === bytes);
      } catch (error) {
        if (!(error instanceof Error && "code" in error && error.code === "ENOSPC")) throw error;
      }
      bytes = Math.floor(bytes / 2);
    }
  } finally {
    closeSync(descriptor);
  }
};
