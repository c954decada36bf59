import { JAIL_DIRECTORY_BYTES_MAX, JAIL_OPEN_FILES_MAX, JAIL_PIDS_MAX, JAIL_STACK_BYTES_MAX } from "../limits.ts";
import { native, ResourceLimit, spawnProcess } from "../native.ts";
import type { WatchOwner } from "../poller.ts";
import { jailCommand, type JailMount } from "./bubblewrap.ts";
import { closeMembership, type Cgroup } from "./cgroup.ts";
import { JailEntry } from "./entry.ts";
import type { Violation } from "./seccomp.ts";

const ENTER = "/enter";
/** Where a jail sees the directory that is its own. */
export const OWN_DIRECTORY = "/own";

/** One process in a jail, with all it may start. */
export interface JailOptions {
  readonly bwrap: string;
  /** native/jail, compiled, where the jail's user can reach it. */
  readonly enter: string;
  readonly mounts: readonly JailMount[];
  /** Symbolic links in the jail. */
  readonly links: readonly { readonly path: string; readonly target: string }[];
  /** As seen inside. */
  readonly command: readonly [string, ...string[]];
  /** Its standard input, output and error. It gets no other descriptor. */
  readonly console: readonly [number, number, number];
  /** What `assembleFilter` made; `onViolation` hears of every call it reports. */
  readonly filter: Uint8Array;
  readonly onViolation: (violation: Violation) => void;
  /** Does what follows when the jail says something. */
  readonly owner: WatchOwner;
  /** Longest file it may write, its memory among them. */
  readonly fileBytesMax: number;
  /** null: it is not limited as a group. */
  readonly cgroup: Cgroup | null;
  /** null: any. */
  readonly cpu: number | null;
  /** Host user, who is nobody else; null: us. */
  readonly user: number | null;
}

export interface Jail {
  readonly pid: number;
  readonly pidfd: number;
  /** See `JailEntry.entered`. */
  readonly entered: Promise<number | null>;
}

const limitsOf = ({ user, fileBytesMax }: JailOptions): (readonly [resource: number, value: number])[] => [
  [ResourceLimit.openFiles, JAIL_OPEN_FILES_MAX],
  [ResourceLimit.fileBytes, fileBytesMax],
  [ResourceLimit.stackBytes, JAIL_STACK_BYTES_MAX],
  [ResourceLimit.coreBytes, 0],
  [ResourceLimit.lockedBytes, 0],
  [ResourceLimit.messageQueueBytes, 0],
  // It counts all processes of the user: of a user that is not the jail's alone it would be somebody else's limit.
  ...(user === null ? [] : [[ResourceLimit.processes, JAIL_PIDS_MAX] as const]),
];

/** Starts a jail inside its cgroup, on its CPU and as its user. What it holds until its end is added to `setup`. */
export const startJail = async (options: JailOptions, setup: DisposableStack): Promise<Jail> => {
  const argv = jailCommand({
    bwrap: options.bwrap,
    mounts: [{ source: options.enter, target: ENTER, writable: false }, ...options.mounts],
    links: options.links,
    ownDirectory: { target: OWN_DIRECTORY, bytes: JAIL_DIRECTORY_BYTES_MAX },
    command: [ENTER, OWN_DIRECTORY, ...options.command],
  });
  const entry = setup.use(new JailEntry(options.filter, options.owner, options.onViolation));
  const cgroups = options.cgroup?.openMembership() ?? [];
  try {
    const { pid, pidfd } = await spawnProcess({
      argv,
      environment: [],
      descriptors: [...options.console, entry.descriptor],
      cgroups,
      limits: limitsOf(options),
      cpu: options.cpu,
      user: options.user,
    });
    setup.adopt(pidfd, (fd) => native().close(fd));
    entry.started();
    return { pid, pidfd, entered: entry.entered };
  } finally {
    closeMembership(cgroups);
  }
};
