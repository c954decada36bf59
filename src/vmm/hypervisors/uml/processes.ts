import { readdirSync, readFileSync } from "node:fs";
import { readdir, readFile } from "node:fs/promises";

import { nextTurn, type Clock } from "../../../lib/clock.ts";
import { native } from "../../native.ts";
import { parentOf, signalProcess } from "../../signal-process.ts";

const children = async (pid: number): Promise<number[]> => {
  try {
    const tasks = await readdir(`/proc/${String(pid)}/task`);
    const lists = await Promise.all(
      tasks.map((task) => readFile(`/proc/${String(pid)}/task/${task}/children`, "utf8")),
    );
    return lists.flatMap((list) => list.split(" ").filter(Boolean).map(Number));
  } catch {
    return []; // ended meanwhile
  }
};

/** A process and all below it, parents first: of a microVM bwrap, the guest's kernel, and its processes. */
export const processTree = async (pid: number): Promise<number[]> => {
  const below = await Promise.all((await children(pid)).map((child) => processTree(child)));
  return [pid, ...below.flat()];
};

/** Rounds of `moveTasks`: of a microVM only the kernel's process makes others, and the first round has moved that. */
const MOVE_ROUNDS_MAX = 4;

/**
 * Puts all tasks of a microVM on one CPU; false when the host refuses. A new task is where its maker is, so what was made
 * while this looked is found in the next round, until there is none.
 */
export const moveTasks = (list: () => readonly number[], cpu: number): boolean => {
  const moved = new Set<number>();
  for (let round = 0; round < MOVE_ROUNDS_MAX; round++) {
    const left = list().filter((task) => !moved.has(task));
    if (left.length === 0) break;
    if (native().setAffinity(Int32Array.from(left), cpu) < 0) return false;
    for (const task of left) moved.add(task);
  }
  return true;
};

/** Tasks of a process and of all below it: for a microVM without a cgroup. */
export const tasksBelow = (pid: number): number[] => {
  const found: number[] = [];
  try {
    for (const task of readdirSync(`/proc/${String(pid)}/task`)) {
      found.push(Number(task));
      const list = readFileSync(`/proc/${String(pid)}/task/${task}/children`, "utf8")
        .split(" ")
        .filter(Boolean);
      for (const child of list) found.push(...tasksBelow(Number(child)));
    }
  } catch {
    // It ended meanwhile.
  }
  return found;
};

/** CPU time in µs that tasks have used, those that have ended left out (/proc/TASK/schedstat, first field, ns). */
export const cpuTimeUsOf = (tasks: readonly number[]): number =>
  tasks.reduce((sum, task) => {
    try {
      return sum + Number(readFileSync(`/proc/${String(task)}/schedstat`, "utf8").split(" ")[0]) / 1000;
    } catch {
      return sum;
    }
  }, 0);

/**
 * How long tasks waited for a CPU although they could have run, in all (/proc/TASK/schedstat, second field, ns). A task
 * that has ended counts with what was last read of it.
 */
export class WaitedTime {
  #known: ReadonlyMap<number, number> = new Map();
  #endedNs = 0;

  /** Reads it for the tasks that there are now, in ms. */
  read(tasks: readonly number[]): number {
    const known = new Map<number, number>();
    let sumNs = 0;
    for (const task of tasks) {
      try {
        const waitedNs = Number(readFileSync(`/proc/${String(task)}/schedstat`, "utf8").split(" ")[1]);
        known.set(task, waitedNs);
        sumNs += waitedNs;
      } catch {
        // It ended since it was listed.
      }
    }
    for (const [task, waitedNs] of this.#known) if (!known.has(task)) this.#endedNs += waitedNs;
    this.#known = known;
    return (sumNs + this.#endedNs) / 1e6;
  }
}

/** Whether a process was stopped by a signal or by its tracer, or ended (proc(5): T, t, Z, X, or no such process). */
export const isStopped = (pid: number): boolean => {
  try {
    const stat = readFileSync(`/proc/${String(pid)}/stat`, "utf8");
    // The state follows the name, which is in parentheses and may hold anything.
    return /^[TtZX]/.test(stat.slice(stat.lastIndexOf(")") + 2));
  } catch {
    return true;
  }
};

/**
 * Kills a jail that has no cgroup by which it could be found: bwrap and its child. bwrap's end alone takes the child
 * along only once the child has asked for that, so bwrap is stopped first and then has no child we do not see.
 */
export const killJail = async (
  pid: number,
  clock: Clock,
  signal: (signal: "SIGSTOP" | "SIGKILL") => void,
): Promise<void> => {
  signal("SIGSTOP");
  while (!isStopped(pid)) await nextTurn(clock);
  for (const child of await children(pid)) signalProcess(child, "SIGKILL", (number) => parentOf(number) === pid);
  signal("SIGKILL");
};

/** Memory of processes in bytes, each shared page divided among those that map it. */
export const proportionalBytes = async (pids: readonly number[]): Promise<number> => {
  const sizes = await Promise.all(
    pids.map(async (pid) => {
      const text = await readFile(`/proc/${String(pid)}/smaps_rollup`, "utf8").catch(() => "");
      return Number(/^Pss:\s+(\d+)/m.exec(text)?.[1] ?? 0) * 1024;
    }),
  );
  return sizes.reduce((sum, size) => sum + size, 0);
};
