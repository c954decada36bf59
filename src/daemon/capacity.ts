import { CONNECTIONS_MAX_DEFAULT } from "../frontend/http/limits.ts";
import type { ProcessLimits } from "../vmm/jail/process-limits.ts";
import { LOG_OPEN_FILES_MAX, POOL_MAX } from "../wire/limits.ts";

/**
 * Descriptors of this process for one microVM: 18 were counted on a slot that works (its vsock and network devices with two
 * for each of their five rings, its process, jail, console, tap and log), some more for the moment of its start.
 */
export const DESCRIPTORS_PER_MICROVM = 20;
/** Processes of one microVM on the host: 5 were counted for a function that starts none; some do. */
export const PROCESSES_PER_MICROVM = 8;
/** What the service itself holds: database, logs, listeners, what uploads and starts need for a moment. */
export const DESCRIPTORS_RESERVED: number = LOG_OPEN_FILES_MAX + 128;
/** Threads of this process, tools for images, and what the administrator of a small group may want to start there. */
export const PROCESSES_RESERVED = 32;
/** Of what is left, connections have such a part, at least so many and at most as many as the Frontend has use for. */
const CONNECTIONS_SHARE = 1 / 4;
const CONNECTIONS_MIN = 64;
/** Of the microVMs, the pool has at most such a part. */
const POOL_SHARE = 1 / 4;

/** How far this process goes with what the host lets it have. */
export interface Capacity {
  readonly slotsMax: number;
  readonly poolMax: number;
  readonly connectionsMax: number;
  /** In a sentence each: what is less than was wanted, by which limit, and how that is raised. Empty where nothing is. */
  readonly lowered: readonly string[];
}

/**
 * Reckons at the start what could otherwise run out in the midst of a request: as many slots, pooled microVMs and
 * connections as there are descriptors and processes for, with a reserve for the service. Pure.
 */
export const reckonCapacity = (limits: ProcessLimits, slotsWanted: number): Capacity => {
  const files = Math.max(0, limits.openFilesMax - DESCRIPTORS_RESERVED);
  const connectionsMax = Math.min(
    CONNECTIONS_MAX_DEFAULT,
    Math.max(CONNECTIONS_MIN, Math.floor(files * CONNECTIONS_SHARE)),
  );
  const byFiles = Math.floor(Math.max(0, files - connectionsMax) / DESCRIPTORS_PER_MICROVM);
  const byProcesses = Math.floor(Math.max(0, limits.processesLeft - PROCESSES_RESERVED) / PROCESSES_PER_MICROVM);
  const microVmsMax = Math.max(1, Math.min(byFiles, byProcesses));
  const poolMax = Math.min(POOL_MAX, Math.floor(microVmsMax * POOL_SHARE));
  const slotsMax = Math.min(slotsWanted, microVmsMax - poolMax);
  const lowered: string[] = [];
  if (slotsMax < slotsWanted && byFiles <= byProcesses)
    lowered.push(
      `${slotsMax} slots instead of ${slotsWanted}: this process may open ${limits.openFilesMax} files and needs ${DESCRIPTORS_PER_MICROVM} for each (raise it with \`ulimit -n\` before it starts, or LimitNOFILE= of the service)`,
    );
  if (slotsMax < slotsWanted && byProcesses < byFiles)
    lowered.push(
      `${slotsMax} slots instead of ${slotsWanted}: ${limits.processesLeft} more processes may be made here and each needs ${PROCESSES_PER_MICROVM} (raise pids.max of the control group, or TasksMax= of the service)`,
    );
  if (connectionsMax < CONNECTIONS_MAX_DEFAULT)
    lowered.push(
      `${connectionsMax} connections instead of ${CONNECTIONS_MAX_DEFAULT}: this process may open ${limits.openFilesMax} files`,
    );
  return { slotsMax, poolMax, connectionsMax, lowered };
};
