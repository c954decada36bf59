import { readdir, readFile } from "node:fs/promises";

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

/** A process and all below it, parents first: of a microVM bwrap, bwrap's init, the guest's kernel, and its processes. */
export const processTree = async (pid: number): Promise<number[]> => {
  const below = await Promise.all((await children(pid)).map((child) => processTree(child)));
  return [pid, ...below.flat()];
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
