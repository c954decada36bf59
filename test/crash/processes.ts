import { readdirSync, readFileSync } from "node:fs";

/** How a process stands in the names of what it owns: `START-PID` (src/vmm/hypervisors/uml/run-directory.ts). */
export const ownerName = (pid: number): string => {
  const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
  return `${stat.slice(stat.lastIndexOf(")") + 2).split(" ")[19]}-${pid}`;
};

/** Processes (number and command line) that were told of a directory, and so belong to a Hearth or a microVM there. */
export const processesIn = (directory: string): string[] =>
  readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .flatMap((pid) => {
      try {
        const text = readFileSync(`/proc/${pid}/cmdline`, "utf8").replaceAll("\0", " ");
        return text.includes(`${directory}/`) || text.includes(`${directory} `) ? [`${pid} ${text}`] : [];
      } catch {
        return []; // ended meanwhile
      }
    });
