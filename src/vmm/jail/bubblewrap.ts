/** One file or directory of the host made visible in a jail. bwrap runs as the jail's user, who must reach its path. */
export interface JailMount {
  readonly source: string;
  readonly target: string;
  readonly writable: boolean;
}

export interface JailOptions {
  readonly bwrap: string;
  readonly mounts: readonly JailMount[];
  /** Absolute paths as seen inside. */
  readonly command: readonly [string, ...string[]];
}

/**
 * Command line of a jail: its own user, PID, mount, network, IPC, UTS and cgroup namespaces, no capabilities, no
 * environment, and of the host's files only what `mounts` names. It ends with the process that started it.
 */
export const jailCommand = ({ bwrap, mounts, command }: JailOptions): string[] => [
  bwrap,
  "--unshare-user",
  "--unshare-pid",
  "--unshare-net",
  "--unshare-ipc",
  "--unshare-uts",
  "--unshare-cgroup-try",
  // Nothing of bwrap stays inside: a process there without the filter could be made to do what the filter forbids.
  "--as-pid-1",
  "--disable-userns",
  "--die-with-parent",
  "--new-session",
  "--clearenv",
  "--hostname",
  "microvm",
  "--proc",
  "/proc",
  "--dev-bind",
  "/dev/null",
  "/dev/null",
  ...mounts.flatMap(({ source, target, writable }) => [writable ? "--bind" : "--ro-bind", source, target]),
  "--chdir",
  "/",
  "--",
  ...command,
];
