import { readdir, rm, rmdir, stat } from "node:fs/promises";
import { join } from "node:path";

/*
 * What is kept of functions' logs: so long, and so much of all together. A function's own files are bounded by their
 * rotation; the number of functions is not, and a function that is gone leaves its log behind.
 */

/** A file that a function is still writing is not removed for its size: rotation bounds it. */
const IN_USE_MS = 60_000;

export interface LogRetention {
  /** Files that nothing was written to for so long are removed. */
  readonly ageMsMax: number;
  /** Bytes of all log files together. */
  readonly bytesMax: number;
}

interface LogFile {
  readonly directory: string;
  readonly path: string;
  readonly isRotated: boolean;
  readonly bytes: number;
  /** Unix ms of its last line. */
  readonly writtenAtMs: number;
}

const filesIn = async (directory: string): Promise<LogFile[]> => {
  const names = await readdir(directory).catch(() => []);
  const files = names
    .filter((name) => /^log(\.\d+)?\.jsonl$/.test(name))
    .map(async (name): Promise<LogFile | null> => {
      const path = join(directory, name);
      const status = await stat(path).catch(() => null);
      if (status === null) return null;
      return { directory, path, isRotated: name !== "log.jsonl", bytes: status.size, writtenAtMs: status.mtimeMs };
    });
  return (await Promise.all(files)).filter((file) => file !== null);
};

/** All log files, oldest first. One directory after the other, so that thousands of functions do not take all descriptors. */
const allFiles = async (directory: string): Promise<LogFile[]> => {
  const files: LogFile[] = [];
  for (const name of await readdir(directory).catch(() => [])) files.push(...(await filesIn(join(directory, name))));
  return files.sort((a, b) => a.writtenAtMs - b.writtenAtMs);
};

/**
 * Removes log files that are too old, then the oldest of all functions until the rest is small enough. `nowMs` is Unix
 * time. Returns the bytes that are left. Never rejects for a file that went away meanwhile.
 */
export const trimLogs = async (directory: string, retention: LogRetention, nowMs: number): Promise<number> => {
  const files = await allFiles(directory);
  let bytes = files.reduce((sum, file) => sum + file.bytes, 0);
  for (const file of files) {
    const ageMs = nowMs - file.writtenAtMs;
    const isTooMuch = bytes > retention.bytesMax && (file.isRotated || ageMs > IN_USE_MS);
    if (ageMs <= retention.ageMsMax && !isTooMuch) continue;
    await rm(file.path, { force: true });
    bytes -= file.bytes;
    // The last one takes its directory along; a function that writes again makes a new one.
    await rmdir(file.directory).catch(() => {});
  }
  return bytes;
};
