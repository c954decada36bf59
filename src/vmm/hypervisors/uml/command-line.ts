import type { DrivePages } from "../../config.ts";
import { COMMAND_LINE_BYTES_MAX, UBD_DEVICES_MAX } from "../../limits.ts";

/**
 * Loops of `udelay` per jiffy. Given, the kernel skips measuring them, which takes 90 of 100 ms of its boot. Nothing
 * in the guest waits for hardware that way, so any large value does: too large only makes a delay longer.
 */
const LOOPS_PER_JIFFY = 10_000_000;

/** Buckets of the guest's name and inode caches: by itself it takes four times as many, and touches each at boot. */
const DENTRY_BUCKETS = 4_096;
const INODE_BUCKETS = 2_048;

export interface UmlCommand {
  /** Paths as seen in the jail. */
  readonly kernel: string;
  readonly memoryMib: number;
  readonly drives: readonly { readonly path: string; readonly readOnly: boolean }[];
  readonly init: string;
  readonly initArguments: readonly string[];
  /** vhost-user sockets by the virtio type served there. */
  readonly devices: readonly { readonly socket: string; readonly type: number }[];
  /** Directory in which the kernel makes `NAME/mconsole`. */
  readonly umlDir: string;
  readonly name: string;
  readonly consoleInput: boolean;
  readonly drivePages: DrivePages;
}

/** What would end or split a word of the command line, or be taken for UML's own syntax. */
const checkWord = (what: string, word: string, forbidden: RegExp): string => {
  if (forbidden.test(word))
    throw new Error(`${what} ${JSON.stringify(word)} has characters that the guest's command line cannot carry`);
  return word;
};

// eslint-disable-next-line no-control-regex
const PATH_FORBIDDEN = /[\s",:\u0000]/;
// eslint-disable-next-line no-control-regex
const ARGUMENT_FORBIDDEN = /[\s"\u0000]/;

/**
 * The kernel's command line: the boot recipe. Options are those of arch/um and of Documentation/admin-guide.
 * Drives get `d`: an image is never taken for one of UML's copy-on-write files, which name another file to open.
 */
export const umlCommandLine = (command: UmlCommand): [string, ...string[]] => {
  if (command.drives.length > UBD_DEVICES_MAX)
    throw new Error(`${String(command.drives.length)} drives; a UML guest can have ${String(UBD_DEVICES_MAX)}`);
  const words: [string, ...string[]] = [
    command.kernel,
    `mem=${String(command.memoryMib)}M`,
    ...command.drives.map(
      ({ path, readOnly }, i) => `ubd${String(i)}${readOnly ? "r" : ""}d=${checkWord("Drive", path, PATH_FORBIDDEN)}`,
    ),
    "root=/dev/ubda",
    "rootfstype=erofs",
    "ro",
    `init=${checkWord("Init", command.init, ARGUMENT_FORBIDDEN)}`,
    "con=null",
    `con0=${command.consoleInput ? "fd:0" : "null"},fd:1`,
    `lpj=${String(LOOPS_PER_JIFFY)}`,
    "seccomp=off",
    "panic=-1",
    // A reboot ends the microVM like a power-off.
    "noreboot",
    `dhash_entries=${String(DENTRY_BUCKETS)}`,
    `ihash_entries=${String(INODE_BUCKETS)}`,
    "quiet",
    ...(command.drivePages === "copied" ? ["drives=copied"] : []),
    `uml_dir=${command.umlDir}`,
    `umid=${command.name}`,
    ...command.devices.map(
      ({ socket, type }) => `virtio_uml.device=${checkWord("Socket", socket, PATH_FORBIDDEN)}:${String(type)}`,
    ),
    ...(command.initArguments.length > 0 ? ["--"] : []),
    ...command.initArguments.map((argument) => checkWord("Argument", argument, ARGUMENT_FORBIDDEN)),
  ];
  const bytes = Buffer.byteLength(words.slice(1).join(" "));
  if (bytes >= COMMAND_LINE_BYTES_MAX)
    throw new Error(
      `The guest's command line has ${String(bytes)} bytes; ${String(COMMAND_LINE_BYTES_MAX - 1)} may be`,
    );
  return words;
};

/** Guest path of ubd device n: /dev/ubda, /dev/ubdb, … */
export const ubdDevice = (index: number): string => `/dev/ubd${String.fromCodePoint(0x61 + index)}`;
