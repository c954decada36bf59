import { readFile } from "node:fs/promises";
import { freemem, totalmem } from "node:os";
import { join } from "node:path";
import type { MemoryGroups } from "../vmm/jail/memory-groups.ts";

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

const readText = (path: string): Promise<string | null> => readFile(path, "utf8").catch(() => null);

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

  /** Never rejects. */
  async read(): Promise<MemoryReading> {
    const host = await this.#readHost();
    const groups = await Promise.all(
      (this.#groups?.directories ?? []).map((directory) => this.#readGroup(directory, host)),
    );
    const all = [host, ...groups.filter((group) => group !== null)];
    return {
      totalBytes: Math.min(...all.map((each) => each.totalBytes)),
      availableBytes: Math.min(...all.map((each) => each.availableBytes)),
    };
  }

  /** The directory of the innermost group with a limit, or null: its stalls are ours, and not those of the whole host. */
  async limitedGroup(): Promise<string | null> {
    const host = await this.#readHost();
    for (const directory of this.#groups?.directories ?? []) {
      if ((await this.#readGroup(directory, host)) !== null) return directory;
    }
    return null;
  }

  async #readHost(): Promise<MemoryReading> {
    const text = (await readText(this.#meminfo)) ?? "";
    const bytes = (name: string, otherwise: number): number => {
      const kib = new RegExp(`^${name}:\\s+(\\d+) kB`, "m").exec(text)?.[1];
      return kib === undefined ? otherwise : Number(kib) * 1024;
    };
    return { totalBytes: bytes("MemTotal", totalmem()), availableBytes: bytes("MemAvailable", freemem()) };
  }

  /** null for a group without a limit below the host's memory. */
  async #readGroup(directory: string, host: MemoryReading): Promise<MemoryReading | null> {
    const { limit, usage, statPrefix } = FILES[this.#groups?.version ?? 2];
    // "max" in version 2, more than any host has in version 1.
    const totalBytes = Number((await readText(join(directory, limit))) ?? "max");
    if (!(totalBytes < host.totalBytes)) return null;
    const [used, stat] = await Promise.all([
      readText(join(directory, usage)),
      readText(join(directory, "memory.stat")).then((text) => text ?? ""),
    ]);
    const pages = (name: string): number =>
      Number(new RegExp(`^${statPrefix}${name} (\\d+)$`, "m").exec(stat)?.[1] ?? 0);
    // Files that nobody read lately can go; of those in use half, for whoever uses them would read them again.
    const droppable = pages("inactive_file") + pages("active_file") / 2;
    return { totalBytes, availableBytes: Math.max(0, totalBytes - Number(used ?? 0) + droppable) };
  }
}
