import {
  accessSync,
  constants,
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readFileSync,
  rmdirSync,
  writeFileSync,
} from "node:fs";

import type { Clock } from "../../lib/clock.ts";
import { CPU_QUOTA_PERIOD_US, CPU_QUOTA_US_MIN, CPU_WEIGHT_WHOLE, FREEZE_TIMEOUT_MS } from "../limits.ts";
import { signalProcess } from "../signal-process.ts";
import type { CpuShare } from "../microvm.ts";

/*
 * Control groups, version 1 (a hierarchy for each controller) and 2 (one for all). Which of them holds what is found
 * out in one place, `detectCgroups`; a host may have both, then version 1 has the controllers.
 */

const V1_CONTROLLERS = ["memory", "cpu", "cpuacct", "pids"] as const;
const V2_CONTROLLERS = ["memory", "cpu", "pids"] as const;
const GROUP = "hearth";
const MIB = 1024 * 1024;

export interface CgroupLimits {
  readonly memoryBytes: number;
  readonly pids: number;
  readonly cpu: CpuShare;
}

/** Version 1's unit of weight: what version 2 calls 100 is 1024 there (kernel/sched/core.c). */
const SHARES_PER_WEIGHT = 10.24;

/** Weight of the group that the monitor is in when it cannot stay beside its guests': the most that there is. */
const MONITOR_WEIGHT = 10_000;

/** Directories below which a group is made, by what they control. */
export interface CgroupLayout {
  readonly version: 1 | 2;
  readonly parents: ReadonlyMap<string, string>;
}

export interface Mount {
  readonly point: string;
  readonly type: string;
  readonly options: readonly string[];
}

/** What is mounted in our namespace. */
export const mounts = (): Mount[] =>
  readFileSync("/proc/self/mountinfo", "utf8")
    .split("\n")
    .flatMap((line) => {
      const [before = "", after = ""] = line.split(" - ");
      const point = before.split(" ")[4];
      const [type, , options] = after.split(" ");
      return point === undefined || type === undefined ? [] : [{ point, type, options: options?.split(",") ?? [] }];
    });

/** Our own group in a hierarchy: groups of microVMs are made below it, within whatever limits were given to us. */
export const ownGroup = (controller: string): string => {
  for (const line of readFileSync("/proc/self/cgroup", "utf8").split("\n")) {
    const [, controllers, ...path] = line.split(":");
    if (controllers?.split(",").includes(controller) === true) return path.join(":").replace(/\/$/, "");
  }
  return "";
};

const detectV1 = (all: readonly Mount[]): CgroupLayout | null => {
  const parents = new Map<string, string>();
  for (const controller of V1_CONTROLLERS) {
    const mount = all.find(({ type, options }) => type === "cgroup" && options.includes(controller));
    if (mount === undefined) continue;
    const parent = `${mount.point}${ownGroup(controller)}/${GROUP}`;
    // Controllers that are mounted together share their groups.
    if (![...parents.values()].includes(parent)) parents.set(controller, parent);
    mkdirSync(parent, { recursive: true });
    accessSync(parent, constants.W_OK);
  }
  return parents.size === 0 ? null : { version: 1, parents };
};

/** Version 2 lets a group have either processes or controlled children: if we are in the way we move to a leaf. */
const enableV2 = (own: string): void => {
  const wanted = V2_CONTROLLERS.map((controller) => `+${controller}`).join(" ");
  try {
    writeFileSync(`${own}/cgroup.subtree_control`, wanted);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "EBUSY") throw error;
    mkdirSync(`${own}/${GROUP}-monitor`, { recursive: true });
    writeFileSync(`${own}/${GROUP}-monitor/cgroup.procs`, String(process.pid));
    writeFileSync(`${own}/cgroup.subtree_control`, wanted);
    // Beside the group of all guests: here the loop's niceness counts only within its leaf.
    writeFileSync(`${own}/${GROUP}-monitor/cpu.weight`, String(MONITOR_WEIGHT));
  }
};

const detectV2 = (all: readonly Mount[]): CgroupLayout | null => {
  const mount = all.find(({ type }) => type === "cgroup2");
  if (mount === undefined) return null;
  const available = readFileSync(`${mount.point}/cgroup.controllers`, "utf8").trim().split(" ");
  if (!V2_CONTROLLERS.every((controller) => available.includes(controller))) return null;
  const own = `${mount.point}${withoutLeaf(ownGroup(""))}`;
  enableV2(own);
  const parent = `${own}/${GROUP}`;
  mkdirSync(parent, { recursive: true });
  accessSync(parent, constants.W_OK);
  writeFileSync(`${parent}/cgroup.subtree_control`, V2_CONTROLLERS.map((controller) => `+${controller}`).join(" "));
  return { version: 2, parents: new Map([["unified", parent]]) };
};

/** The group that was ours before we moved to a leaf of it. */
export const withoutLeaf = (group: string): string => group.replace(new RegExp(`/${GROUP}-monitor$`), "");

/** What this host has and lets us use. Throws with the reason when nothing of it can be used. */
export const detectCgroups = (): CgroupLayout => {
  const all = mounts();
  const layout = detectV2(all) ?? detectV1(all);
  if (layout === null) throw new Error("no cgroup controllers are mounted");
  return layout;
};

const isGone = (error: unknown): boolean => (error as NodeJS.ErrnoException).code === "ENOENT";

/** The group of one microVM. */
export class Cgroup {
  readonly #layout: CgroupLayout;
  readonly #name: string;
  readonly #memoryBytesMax: number;
  /** Whether a quota is set. */
  #quota = false;

  /** Makes the group and sets its limits. */
  constructor(layout: CgroupLayout, name: string, limits: CgroupLimits) {
    this.#layout = layout;
    this.#name = name;
    this.#memoryBytesMax = limits.memoryBytes;
    try {
      for (const parent of layout.parents.values()) mkdirSync(`${parent}/${name}`);
      this.#setLimits(limits);
    } catch (error) {
      removeCgroup(layout, name);
      throw error;
    }
  }

  #setLimits(limits: CgroupLimits): void {
    const files: readonly (readonly [controller: string, file: string, value: number])[] =
      this.#layout.version === 1
        ? [
            ["memory", "memory.limit_in_bytes", limits.memoryBytes],
            ["pids", "pids.max", limits.pids],
          ]
        : [
            ["unified", "memory.max", limits.memoryBytes],
            ["unified", "pids.max", limits.pids],
          ];
    for (const [controller, file, value] of files) {
      const path = this.#path(controller, file);
      if (path !== null) writeFileSync(path, String(value));
    }
    this.setCpuShare(limits.cpu);
  }

  /**
   * Sets its part of the CPU: a weight against its siblings, and when it is hard a quota. Does nothing where CPU time is
   * not controlled.
   */
  setCpuShare({ share, hard }: CpuShare): void {
    const weight = Math.min(CPU_WEIGHT_WHOLE, Math.max(1, Math.round(share * CPU_WEIGHT_WHOLE)));
    const quotaUs = Math.max(CPU_QUOTA_US_MIN, Math.round(share * CPU_QUOTA_PERIOD_US));
    // A whole CPU is all it can use.
    const limited = hard && share < 1;
    const files: (readonly [controller: string, file: string, value: string])[] = [];
    if (this.#layout.version === 2) {
      files.push(["unified", "cpu.weight", String(weight)]);
      if (limited || this.#quota)
        files.push(["unified", "cpu.max", `${limited ? String(quotaUs) : "max"} ${String(CPU_QUOTA_PERIOD_US)}`]);
    } else {
      files.push(["cpu", "cpu.shares", String(Math.max(2, Math.round(weight * SHARES_PER_WEIGHT)))]);
      if (limited || this.#quota)
        files.push(
          ["cpu", "cpu.cfs_period_us", String(CPU_QUOTA_PERIOD_US)],
          ["cpu", "cpu.cfs_quota_us", limited ? String(quotaUs) : "-1"],
        );
    }
    this.#quota = limited;
    for (const [controller, file, value] of files) {
      const path = this.#path(controller, file);
      if (path !== null) writeFileSync(path, value);
    }
  }

  /** All tasks (processes and their threads) in it now. */
  tasks(): number[] {
    const [parent = ""] = this.#layout.parents.values();
    const file = this.#layout.version === 2 ? "cgroup.threads" : "tasks";
    return readFileSync(`${parent}/${this.#name}/${file}`, "utf8").split("\n").filter(Boolean).map(Number);
  }

  #path(controller: string, file: string): string | null {
    const parent = this.#layout.parents.get(controller);
    return parent === undefined ? null : `${parent}/${this.#name}/${file}`;
  }

  #readNumber(controller: string, file: string, pattern: RegExp): number | null {
    const path = this.#path(controller, file);
    if (path === null) return null;
    const match = pattern.exec(readFileSync(path, "utf8"));
    return match?.[1] === undefined ? null : Number(match[1]);
  }

  /**
   * Descriptors of the files through which a process of one thread enters it by writing "0"; to be closed by the caller.
   * With version 1 that is `tasks`: a thread that moves itself needs no lock over all processes of the host, for which
   * `cgroup.procs` waits until every CPU has been through the scheduler (8 ms of a boot here).
   */
  openMembership(): number[] {
    const file = this.#layout.version === 1 ? "tasks" : "cgroup.procs";
    const opened: number[] = [];
    try {
      for (const parent of this.#layout.parents.values()) opened.push(openSync(`${parent}/${this.#name}/${file}`, "w"));
      return opened;
    } catch (error) {
      closeMembership(opened);
      throw error;
    }
  }

  /** Bytes charged to it, or null when memory is not controlled here. */
  memoryBytes(): number | null {
    return this.#layout.version === 1
      ? this.#readNumber("memory", "memory.usage_in_bytes", /(\d+)/)
      : this.#readNumber("unified", "memory.current", /(\d+)/);
  }

  /**
   * In a sentence that the host's kernel killed processes of it for want of memory, because of its own limit or of one above
   * it; null when it did not, or memory is not controlled here.
   */
  outOfMemory(): string | null {
    const [controller, events, peak] =
      this.#layout.version === 1
        ? (["memory", "memory.oom_control", "memory.max_usage_in_bytes"] as const)
        : (["unified", "memory.events", "memory.peak"] as const);
    if ((this.#readNumber(controller, events, /^oom_kill (\d+)$/m) ?? 0) === 0) return null;
    const limit = Math.round(this.#memoryBytesMax / MIB);
    // Version 2 tells it from Linux 5.19 on.
    const tookBytes = existsSync(this.#path(controller, peak) ?? "")
      ? this.#readNumber(controller, peak, /(\d+)/)
      : null;
    const took = tookBytes === null ? "" : `, and had taken ${Math.round(tookBytes / MIB)}`;
    return `The host's kernel killed a part of it for want of memory: it may take ${limit} MiB of the host's${took}`;
  }

  /** CPU time used in µs, or null when it is not accounted here. */
  cpuTimeUs(): number | null {
    if (this.#layout.version === 2) return this.#readNumber("unified", "cpu.stat", /usage_usec (\d+)/);
    const controller = this.#layout.parents.has("cpuacct") ? "cpuacct" : "cpu";
    const ns = this.#readNumber(controller, "cpuacct.usage", /(\d+)/);
    return ns === null ? null : Math.floor(ns / 1000);
  }

  /**
   * Only with cgroup v2: what its freezer holds can be killed. Version 1's cannot, so that a monitor that is killed
   * would leave its frozen guests behind.
   */
  get canFreeze(): boolean {
    return this.#layout.version === 2;
  }

  /** Stops or continues all its processes; resolves when they are. */
  async freeze(frozen: boolean, clock: Clock): Promise<void> {
    const path = this.#path("unified", "cgroup.freeze");
    const shows = this.#path("unified", "cgroup.events");
    if (path === null || shows === null) throw new Error("Freezing needs cgroup v2");
    writeFileSync(path, frozen ? "1" : "0");
    if (!frozen) return;
    for (const deadline = clock.monotonicMs() + FREEZE_TIMEOUT_MS; ; await clock.sleep(1)) {
      if (readFileSync(shows, "utf8").includes("frozen 1")) return;
      if (clock.monotonicMs() > deadline) throw new Error(`Not frozen after ${String(FREEZE_TIMEOUT_MS)} ms`);
    }
  }

  /** Kills whatever is in it. */
  kill(): void {
    killCgroup(this.#layout, this.#name);
  }

  /** Removes it; false while the last of its processes linger. */
  remove(): boolean {
    return removeCgroup(this.#layout, this.#name);
  }
}

/** Removes the group of that name from all hierarchies; false when one still has processes. */
export const removeCgroup = (layout: CgroupLayout, name: string): boolean => {
  let removed = true;
  for (const parent of layout.parents.values()) {
    try {
      rmdirSync(`${parent}/${name}`);
    } catch (error) {
      if (!isGone(error)) removed = false;
    }
  }
  return removed;
};

/** Empty where it cannot be read: whoever asks looks again. */
const textOf = (file: string): string => {
  try {
    return readFileSync(file, "utf8");
  } catch {
    return "";
  }
};

/** Kills what is in the group of that name, as far as it can be read. Never throws. */
export const killCgroup = (layout: CgroupLayout, name: string): void => {
  for (const parent of layout.parents.values()) {
    const file = `${parent}/${name}/cgroup.procs`;
    if (!existsSync(file)) continue;
    const isMember = (pid: number): boolean =>
      readFileSync(`/proc/${String(pid)}/cgroup`, "utf8")
        .split("\n")
        .some((line) => line.endsWith(`/${name}`));
    for (const pid of textOf(file).split("\n").filter(Boolean).map(Number)) signalProcess(pid, "SIGKILL", isMember);
    return;
  }
};

/** Closes descriptors of `openMembership`. */
export const closeMembership = (descriptors: readonly number[]): void => {
  for (const fd of descriptors) closeSync(fd);
};
