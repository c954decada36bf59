import { existsSync } from "node:fs";
import { mkdir, readdir, rename, rm, stat, utimes } from "node:fs/promises";
import { join } from "node:path";
import { isMissing } from "../../lib/files.ts";
import { syncPath } from "./durable-files.ts";

/** Hearth's own: how long what was deleted can still be had back, and how much of it is kept at most. */
export const TRASH_KEEP_MS: number = 7 * 24 * 60 * 60_000;
export const TRASH_BYTES_MAX: number = 4 * 1024 * 1024 * 1024;

const MS_PER_S = 1000;

interface Thrown {
  readonly name: string;
  readonly bytes: number;
  /** Unix ms. */
  readonly thrownAtMs: number;
}

/** A directory of files that nothing names any more. They go by age, and the oldest first when they are too much. */
export class Trash {
  readonly #directory: string;
  readonly #nowMs: () => number;

  constructor(directory: string, nowMs: () => number) {
    this.#directory = directory;
    this.#nowMs = nowMs;
  }

  /** Takes a file in, under its own name. */
  async throwAway(path: string, name: string): Promise<void> {
    await mkdir(this.#directory, { recursive: true, mode: 0o700 });
    const target = join(this.#directory, name);
    const nowS = this.#nowMs() / MS_PER_S;
    // The time of the last change is from now on that of the throwing away.
    await utimes(path, nowS, nowS);
    await rename(path, target);
    await syncPath(this.#directory);
  }

  /** Puts a file back where it is wanted; false when it is not in here. */
  async takeBack(name: string, path: string): Promise<boolean> {
    try {
      await rename(join(this.#directory, name), path);
    } catch (error) {
      if (isMissing(error)) return false;
      throw error;
    }
    return true;
  }

  has(name: string): boolean {
    return existsSync(join(this.#directory, name));
  }

  /** Removes what is older than TRASH_KEEP_MS, and the oldest of more than `bytesMax`. Resolves to the bytes removed. */
  async empty(bytesMax: number = TRASH_BYTES_MAX): Promise<number> {
    const newestFirst = (await this.#list()).sort((a, b) => b.thrownAtMs - a.thrownAtMs);
    let kept = 0;
    let removed = 0;
    for (const { name, bytes, thrownAtMs } of newestFirst) {
      const old = this.#nowMs() - thrownAtMs > TRASH_KEEP_MS;
      if (!old && kept + bytes <= bytesMax) kept += bytes;
      else {
        await rm(join(this.#directory, name), { force: true });
        removed += bytes;
      }
    }
    return removed;
  }

  async #list(): Promise<Thrown[]> {
    const thrown: Thrown[] = [];
    for (const name of await readdir(this.#directory).catch(noneWhenMissing)) {
      const { size, mtimeMs } = await stat(join(this.#directory, name));
      thrown.push({ name, bytes: size, thrownAtMs: mtimeMs });
    }
    return thrown;
  }
}

const noneWhenMissing = (error: unknown): string[] => {
  if (isMissing(error)) return [];
  throw error;
};
