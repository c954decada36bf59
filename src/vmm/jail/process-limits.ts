import { existsSync, readFileSync } from "node:fs";
import { dirname } from "node:path";

import { mounts, ownGroup, withoutLeaf } from "./cgroup.ts";

/** How many files and processes this process, and all that it starts, may have. */
export interface ProcessLimits {
  /** RLIMIT_NOFILE: of this process alone. */
  readonly openFilesMax: number;
  /** Processes that may still be made, by pids.max of the control groups that hold us; Infinity without such a limit. */
  readonly processesLeft: number;
}

const numberIn = (path: string): number | null => {
  try {
    const text = readFileSync(path, "utf8").trim();
    return /^\d+$/.test(text) ? Number(text) : null;
  } catch {
    // A hierarchy's root has no such file.
    return null;
  }
};

/** What a group, and every one above it, leaves of its processes. */
const processesLeftIn = (point: string, group: string): number => {
  let left = Number.POSITIVE_INFINITY;
  for (let path = `${point}${group}`; path.length >= point.length; path = dirname(path)) {
    const max = numberIn(`${path}/pids.max`);
    const current = numberIn(`${path}/pids.current`);
    if (max !== null && current !== null && existsSync(path)) left = Math.min(left, Math.max(0, max - current));
  }
  return left;
};

/** Reads them now. Throws when /proc cannot be read. */
export const readProcessLimits = (): ProcessLimits => {
  const text = readFileSync("/proc/self/limits", "utf8");
  // The soft limit: Node raises it to the hard one as it starts.
  const files = /^Max open files\s+(\S+)/m.exec(text)?.[1] ?? "unlimited";
  const all = mounts();
  const v1 = all.find(({ type, options }) => type === "cgroup" && options.includes("pids"));
  const v2 = all.find(({ type }) => type === "cgroup2");
  const kernelMax = numberIn("/proc/sys/kernel/pid_max") ?? Number.POSITIVE_INFINITY;
  const inGroup =
    v1 !== undefined
      ? processesLeftIn(v1.point, ownGroup("pids"))
      : v2 === undefined
        ? Number.POSITIVE_INFINITY
        : processesLeftIn(v2.point, withoutLeaf(ownGroup("")));
  return {
    openFilesMax: files === "unlimited" ? Number.POSITIVE_INFINITY : Number(files),
    processesLeft: Math.min(inGroup, kernelMax),
  };
};
