import { readFileSync } from "node:fs";
import { constants } from "node:os";
import { native } from "./native.ts";

/**
 * Sends a signal to the process that has a number, if `isMeant` still says so once the process is held by a pidfd. A
 * number alone may be another process's by the time the signal is sent: whoever ended in between is not hit, nor is its
 * successor, whether the check saw the one or the other. A process that is gone, or of which `isMeant` throws, gets none.
 */
export const signalProcess = (pid: number, signal: NodeJS.Signals, isMeant: (pid: number) => boolean): void => {
  const pidfd = native().openProcess(pid);
  if (pidfd < 0) return;
  try {
    if (isMeant(pid)) native().sendSignal(pidfd, constants.signals[signal]);
  } catch {
    // It ended while it was looked at.
  } finally {
    native().close(pidfd);
  }
};

/** The process that made this one, by the fourth field of /proc/PID/stat; throws when there is no such process. */
export const parentOf = (pid: number): number => {
  const stat = readFileSync(`/proc/${String(pid)}/stat`, "utf8");
  // The second field is the name, in parentheses, and may hold anything.
  return Number(stat.slice(stat.lastIndexOf(")") + 2).split(" ")[1]);
};
