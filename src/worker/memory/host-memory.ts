import { readFileSync } from "node:fs";
import { freemem, totalmem } from "node:os";
import { join } from "node:path";
import type { MemoryGroups } from "../../vmm/jail/memory-groups.ts";

/** Memory that a worker may use, in bytes. */
export interface MemoryReading {
  readonly totalBytes: number;
  /** What can be had without swapping. */
  readonly availableBytes: number;
}

const FILES = {
  1: { limit: "memory.limit_in_bytes", usage: "memory.usage_in_bytes", statPrefix: "total_" },
  2: { limit: "memory.max", usage: "memory.current", statPrefix: "" },
} as const;

/** At once: these files are made as they are read, which takes less than going to another thread and back. */
const readText = (path: string): string | null => {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return null;
  }
};

/**
 * How much memory there is: the host's (MemTotal and MemAvailable, proc_meminfo(5)), or less where a control group above
 * us has a limit, as in a container, where the host's figures say nothing.
 */
export class HostMemory {
  readonly #groups: MemoryGroups | null;
  readonly #meminfo: string;

  constructor(groups: MemoryGroups | null, meminfo = "/proc/meminfo") {
    this.#groups = groups;
    this.#meminfo = meminfo;
  }

  read(): MemoryReading {
    const host = this.#readHost();
    let { totalBytes, availableBytes } = host;
    for (const directory of this.#groups?.directories ?? []) {
      const group = this.#readGroup(directory, host);
      if (group === null) continue;
      totalBytes = Math.min(totalBytes, group.totalBytes);
      availableBytes = Math.min(availableBytes, group.availableBytes);
    }
    return { totalBytes, availableBytes };
  }

  /** The directory of the innermost group with a limit, or null: its stalls are ours, and not those of the whole host. */
  limitedGroup(): string | null {
    const host = this.#readHost();
    return this.#groups?.directories.find((directory) => this.#readGroup(directory, host) !== null) ?? null;
  }

  #readHost(): MemoryReading {
    const text = readText(this.#meminfo) ?? "";
    const bytes = (name: string, otherwise: number): number => {
      const kib = new RegExp(`^${name}:\\s+(\\d+) kB`, "m").exec(text)?.[1];
      return kib === undefined ? otherwise : Number(kib) * 1024;
    };
    return { totalBytes: bytes("MemTotal", totalmem()), availableBytes: bytes("MemAvailable", freemem()) };
  }

  /** null for a group without a limit below the host's memory. */
  #readGroup(directory: string, host: MemoryReading): MemoryReading | null {
    const { limit, usage, statPrefix } = FILES[this.#groups?.version ?? 2];
    // "max" in version 2, more than any host has in version 1.
    const totalBytes = Number(readText(join(directory, limit)) ?? "max");
    if (!(totalBytes < host.totalBytes)) return null;
    const used = Number(readText(join(directory, usage)) ?? 0);
    const stat = readText(join(directory, "memory.stat")) ?? "";
    const pages = (name: string): number =>
      Number(new RegExp(`^${statPrefix}${name} (\\d+)$`, "m").exec(stat)?.[1] ?? 0);
    // Files that nobody read lately can go; of those in use half, for whoever uses them would read them again.
    const droppable = pages("inactive_file") + pages("active_file") / 2;
    return { totalBytes, availableBytes: Math.max(0, totalBytes - used + droppable) };
  }
}
