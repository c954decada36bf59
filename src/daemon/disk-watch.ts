import { statfsSync } from "node:fs";
import type { Clock } from "../lib/clock.ts";

/** Shares of the disk in use from which an operator is warned, each once. */
export const DISK_WARNING_SHARES: readonly number[] = [0.8, 0.9];
/** So far below a share its warning is due anew: what comes and goes in `/tmp` shall not repeat it. */
const HYSTERESIS = 0.02;
const LOOK_MS = 10_000;

/** Of what this user may have of a file system, as df(1) reckons it: what root keeps for itself counts for nobody. */
export const diskUse = (path: string): { readonly usedShare: number; readonly availableBytes: number } => {
  const { blocks, bfree, bavail, bsize } = statfsSync(path);
  const used = blocks - bfree;
  return { usedShare: used + bavail === 0 ? 1 : used / (used + bavail), availableBytes: bavail * bsize };
};

/** How many of DISK_WARNING_SHARES are reached, where `level` of them were before. Pure. */
export const warningLevel = (level: number, usedShare: number): number => {
  const reached = DISK_WARNING_SHARES.filter((share, index) =>
    index < level ? usedShare > share - HYSTERESIS : usedShare >= share,
  );
  return reached.length;
};

export interface DiskWatchParts {
  readonly clock: Clock;
  readonly use: () => ReturnType<typeof diskUse>;
  readonly warn: (message: string) => void;
}

const MIB = 1024 * 1024;

/** Warns when the disk of a data directory fills up, once for each share that is crossed, until it is disposed of. */
export const watchDisk = ({ clock, use, warn }: DiskWatchParts): Disposable => {
  let level = 0;
  const look = (): void => {
    const { usedShare, availableBytes } = use();
    const now = warningLevel(level, usedShare);
    if (now > level) {
      warn(
        `${Math.floor(usedShare * 100)} % of the disk of the data directory are in use; ${Math.floor(availableBytes / MIB)} MB are left. ` +
          "Once it is full, nothing new is stored. Remove functions or logs, or give it a larger disk.",
      );
    }
    level = now;
  };
  look();
  return clock.every(LOOK_MS, look);
};
