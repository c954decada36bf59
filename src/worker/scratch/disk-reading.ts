import { mkdirSync, statfsSync } from "node:fs";
import type { DiskReading } from "./scratch-budget.ts";

/** Reads the disk that a directory is on, which is made when it is absent. One system call. */
export const diskReading = (directory: string): DiskReading => {
  let status;
  try {
    status = statfsSync(directory);
  } catch {
    mkdirSync(directory, { recursive: true, mode: 0o711 });
    status = statfsSync(directory);
  }
  const { blocks, bavail, bsize } = status;
  return { totalBytes: blocks * bsize, availableBytes: bavail * bsize };
};
