import { existsSync } from "node:fs";
import { dirname } from "node:path";

import { mounts, ownGroup, withoutLeaf } from "./cgroup.ts";

/** The control groups whose limits of memory hold for us and for all microVMs: the own one and those above it. */
export interface MemoryGroups {
  readonly version: 1 | 2;
  /** Directories, the own group's first. Some may lack the files: a hierarchy's root has no limit. */
  readonly directories: readonly string[];
}

/** null where no control group accounts for memory. */
export const findMemoryGroups = (): MemoryGroups | null => {
  const all = mounts();
  const v1 = all.find(({ type, options }) => type === "cgroup" && options.includes("memory"));
  if (v1 !== undefined) return { version: 1, directories: upwards(v1.point, ownGroup("memory")) };
  const v2 = all.find(({ type }) => type === "cgroup2");
  return v2 === undefined ? null : { version: 2, directories: upwards(v2.point, withoutLeaf(ownGroup(""))) };
};

/** In a container the group's path may be the host's, of which the mount shows only the end: then its root is our group. */
const upwards = (point: string, group: string): string[] => {
  const directories: string[] = [];
  for (let path = `${point}${group}`; path.length > point.length; path = dirname(path)) {
    if (existsSync(path)) directories.push(path);
  }
  return [...directories, point];
};
