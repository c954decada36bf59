import { readdirSync, readFileSync, readlinkSync } from "node:fs";

/** What one microVM is on the host: bwrap, which made its jail, the guest's kernel, and the guest's own processes. */
export interface GuestProcesses {
  readonly jail: number;
  readonly kernel: number;
  /** The guest's first process. */
  readonly init: number;
}

const childrenOf = (pid: number): number[] =>
  readdirSync(`/proc/${pid}/task`).flatMap((task) => {
    try {
      return readFileSync(`/proc/${pid}/task/${task}/children`, "utf8")
        .split(" ")
        .filter((text) => text !== "")
        .map(Number);
    } catch {
      return []; // the thread has ended meanwhile
    }
  });

const commandOf = (pid: number): string => {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, "utf8").split("\0")[0] ?? "";
  } catch {
    return ""; // ended meanwhile
  }
};

/** The first process of every microVM. */
export const jailsOf = (hearthPid: number): number[] =>
  childrenOf(hearthPid).filter((pid) => commandOf(pid).endsWith("bwrap"));

/** The only microVM of a Hearth without a pool. Throws when there is none or several. */
export const onlyGuest = (hearthPid: number): GuestProcesses => {
  const jails = jailsOf(hearthPid);
  const [jail] = jails;
  if (jail === undefined || jails.length !== 1) throw new Error(`${jails.length} microVMs, not one`);
  const kernel = childrenOf(jail).find((pid) => commandOf(pid) === "/kernel");
  const init = kernel === undefined ? undefined : Math.min(...childrenOf(kernel));
  if (kernel === undefined || init === undefined) throw new Error("a microVM without a kernel or an init");
  return { jail, kernel, init };
};

/** TCP sockets as they stand among open files. proc_net(5): the tenth word is the inode. */
const connectionsOf = (pid: number): string[] =>
  readFileSync(`/proc/${pid}/net/tcp`, "utf8")
    .split("\n")
    .map((line) => `socket:[${line.trim().split(/\s+/)[9]}]`);

/** What a Hearth holds for its microVMs: processes, and open files by kind. Equal again when all is given back. */
export const heldBy = (hearthPid: number): Readonly<Record<string, number>> => {
  const kinds: Record<string, number> = { children: childrenOf(hearthPid).length };
  const connections = new Set(connectionsOf(hearthPid));
  for (const fd of readdirSync(`/proc/${hearthPid}/fd`)) {
    try {
      const target = readlinkSync(`/proc/${hearthPid}/fd/${fd}`);
      const kind = target.replaceAll(/\d+/g, "N");
      // Its clients' own business.
      if (connections.has(target)) continue;
      // A log is closed when it was quiet for a moment; pressure is read now and then.
      if (!kind.endsWith(".jsonl") && !kind.startsWith("/proc/pressure/")) kinds[kind] = (kinds[kind] ?? 0) + 1;
    } catch {
      // Closed meanwhile.
    }
  }
  return kinds;
};
