import { execFile } from "node:child_process";
import { readFile } from "node:fs/promises";
import { availableParallelism, cpus, release, totalmem } from "node:os";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

/** What a figure was measured on; without it a figure says nothing. */
export interface MachineFacts {
  readonly cpu: string;
  readonly cpus: number;
  readonly memoryMb: number;
  readonly kernel: string;
  readonly node: string;
  readonly hypervisor: string;
  /** Abbreviated commit, with `+` when the tree was changed; null outside of a repository. */
  readonly commit: string | null;
  /** Load average of the last minute when the run began: what else the machine was doing. */
  readonly load: number;
}

const git = (...args: string[]): Promise<string> =>
  promisify(execFile)("git", args, { cwd: fileURLToPath(new URL("..", import.meta.url)) }).then(({ stdout }) =>
    stdout.trim(),
  );

const commit = async (): Promise<string | null> => {
  try {
    const changed = await git("status", "--porcelain", "--untracked-files=no");
    return (await git("rev-parse", "--short", "HEAD")) + (changed === "" ? "" : "+");
  } catch {
    return null;
  }
};

export const machineFacts = async (hypervisor: string): Promise<MachineFacts> => ({
  cpu: cpus()[0]?.model ?? "unknown",
  cpus: availableParallelism(),
  memoryMb: Math.round(totalmem() / 2 ** 20),
  kernel: release(),
  node: process.version,
  hypervisor,
  commit: await commit(),
  load: Number((await readFile("/proc/loadavg", "utf8")).split(" ")[0]),
});

/** Bytes of memory that could still be had, as the kernel sees it. */
export const memoryAvailable = async (): Promise<number> =>
  Number(/^MemAvailable:\s*(\d+) kB/m.exec(await readFile("/proc/meminfo", "utf8"))?.[1] ?? 0) * 1024;
