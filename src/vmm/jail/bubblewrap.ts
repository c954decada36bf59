/** One file or directory of the host made visible in a jail. bwrap runs as the jail's user, who must reach its path. */
export interface JailMount {
  readonly source: string;
  readonly target: string;
  readonly writable: boolean;
}

export interface JailOptions {
  readonly bwrap: string;
  readonly mounts: readonly JailMount[];
  /** Symbolic links in the jail. */
  readonly links: readonly { readonly path: string; readonly target: string }[];
  /** A directory in the jail's own memory, where its program may make files; so many bytes of them. */
  readonly ownDirectory: { readonly target: string; readonly bytes: number };
  /** Absolute paths as seen inside. */
  readonly command: readonly [string, ...string[]];
}

/**
 * Command line of a jail: its own user, PID, mount, network, IPC, UTS and cgroup namespaces, no capabilities, no
 * environment, and of the host's files only what `mounts` names: no /proc, no /sys, no device but /dev/null. It ends
 * with the process that started it.
 */
export const jailCommand = ({ bwrap, mounts, links, ownDirectory, command }: JailOptions): string[] => [
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
  "--dev-bind",
  "/dev/null",
  "/dev/null",
  ...mounts.flatMap(({ source, target, writable }) => [writable ? "--bind" : "--ro-bind", source, target]),
  ...links.flatMap(({ path, target }) => ["--symlink", target, path]),
  "--size",
  String(ownDirectory.bytes),
  "--tmpfs",
  ownDirectory.target,
  // The places of all these are made: nothing else may be.
  "--remount-ro",
  "/",
  "--chdir",
  "/",
  "--",
  ...command,
];
