import { readdir, readFile } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";

/** A process, told apart from a later one with the same number by when it started. */
export interface ProcessIdentity {
  readonly pid: number;
  readonly parent: number;
  readonly started: string;
  readonly name: string;
}

/** null when there is no such process, or it is dead and only waits for its parent. */
const processOf = async (pid: number): Promise<ProcessIdentity | null> => {
  const text = await readFile(`/proc/${pid}/stat`, "utf8").catch(() => null);
  if (text === null) return null;
  const close = text.lastIndexOf(")");
  // proc_pid_stat(5), counted from behind the name: 0 state, 1 ppid, 19 starttime.
  const fields = text.slice(close + 2).split(" ");
  if (fields[0] === "Z" || fields[0] === "X") return null;
  return { pid, parent: Number(fields[1]), started: fields[19] ?? "", name: text.slice(text.indexOf("(") + 1, close) };
};

/** Every process below `pid`, itself left out. */
export const descendants = async (pid: number): Promise<ProcessIdentity[]> => {
  const pids = (await readdir("/proc")).filter((name) => /^\d+$/.test(name)).map(Number);
  const all = (await Promise.all(pids.map(processOf))).filter((each) => each !== null);
  const family = new Set([pid]);
  const found: ProcessIdentity[] = [];
  for (let grew = true; grew;) {
    grew = false;
    for (const each of all) {
      if (family.has(each.pid) || !family.has(each.parent)) continue;
      family.add(each.pid);
      found.push(each);
      grew = true;
    }
  }
  return found;
};

/** Waits for processes to end; resolves to those still there after `timeoutMs`. */
export const gone = async (family: readonly ProcessIdentity[], timeoutMs: number): Promise<ProcessIdentity[]> => {
  const until = Date.now() + timeoutMs;
  let left = [...family];
  for (;;) {
    const now = await Promise.all(left.map((each) => processOf(each.pid)));
    left = left.filter((each, index) => now[index]?.started === each.started);
    if (left.length === 0 || Date.now() > until) return left;
    await sleep(50);
  }
};
