import { closeSync, ftruncateSync, openSync, readSync, writeSync } from "node:fs";
import { constants } from "node:os";
import type { Random } from "./random.ts";

/** Fields of `struct control` in fail-at.c, by their offsets. */
const LEFT = 0;
const ERROR = 4;
const HITS = 8;
const FUNCTION = 12;
const FUNCTION_BYTES = 32;
const BYTES = FUNCTION + FUNCTION_BYTES;

/** A call of libc's that is to fail: the n-th from now on, with an error that says what has run out. */
export interface Failure {
  readonly name: string;
  readonly number: number;
  readonly error: "EMFILE" | "ENFILE" | "ENOMEM" | "EAGAIN" | "EIO" | "ENOSPC";
}

/** What a client, or a start, does. */
export const ACTS = ["cold", "warm", "event", "create", "delete"] as const;
export type Act = (typeof ACTS)[number];

/** With what a host refuses a call when it has run out of something. */
const ERRORS: Readonly<Record<string, readonly Failure["error"][]>> = {
  open: ["EMFILE", "ENFILE", "ENOMEM"],
  accept: ["EMFILE", "ENFILE", "ENOMEM"],
  socket: ["EMFILE", "ENFILE"],
  socketpair: ["EMFILE", "ENFILE"],
  pipe: ["EMFILE", "ENFILE"],
  epoll_ctl: ["ENOSPC", "ENOMEM"],
  mmap: ["ENOMEM"],
  clone: ["EAGAIN", "ENOMEM"],
  unshare: ["ENOMEM"],
  mkdir: ["ENOSPC", "ENOMEM"],
  opendir: ["EMFILE", "ENFILE"],
  link: ["ENOSPC", "EIO"],
  rename: ["ENOSPC", "EIO"],
  ftruncate: ["ENOSPC", "EIO"],
  write: ["ENOSPC", "EIO"],
  pwrite: ["ENOSPC", "EIO"],
  fsync: ["EIO", "ENOSPC"],
};

/** How many calls were counted in an act: those after it, of what it left to do, are among them. */
const COUNTED: Readonly<Record<Act, Readonly<Record<string, number>>>> = {
  cold: {
    open: 34,
    accept: 2,
    socket: 5,
    socketpair: 1,
    pipe: 1,
    epoll_ctl: 28,
    mmap: 6,
    clone: 1,
    unshare: 1,
    mkdir: 11,
    opendir: 1,
    link: 1,
    ftruncate: 1,
    write: 13,
    pwrite: 2,
  },
  warm: { accept: 1, open: 8, opendir: 1, write: 1 },
  event: { accept: 1, open: 8, opendir: 2, write: 1, pwrite: 20, fsync: 3 },
  create: { accept: 1, open: 21, opendir: 4, link: 1, rename: 2, write: 1, pwrite: 12, fsync: 6, mkdir: 2 },
  delete: { accept: 1, pwrite: 12, fsync: 1 },
};

/** All of them: the act, and the call that is to fail in it. */
export const allFailures: readonly (readonly [Act, Failure])[] = ACTS.flatMap((act) =>
  Object.entries(COUNTED[act]).flatMap(([name, count]) =>
    (ERRORS[name] ?? []).flatMap((error) =>
      Array.from({ length: count }, (_, i) => [act, { name, number: i + 1, error }] as const),
    ),
  ),
);

/** Some of them, of which every call that can fail has an equal part. */
export const drawFailure = (random: Random): readonly [Act, Failure] => {
  const act = random.pick(ACTS);
  const [name, count] = random.pick(Object.entries(COUNTED[act]));
  return [act, { name, number: 1 + random.below(count), error: random.pick(ERRORS[name] ?? []) }];
};

/** The file by which a running Hearth is told which of its calls fails. */
export class FailureControl implements Disposable {
  readonly path: string;
  readonly #fd: number;

  constructor(path: string) {
    this.path = path;
    this.#fd = openSync(path, "w+", 0o600);
    ftruncateSync(this.#fd, BYTES);
  }

  arm({ name, number, error }: Failure): void {
    this.disarm();
    const bytes = Buffer.alloc(BYTES);
    bytes.writeInt32LE(constants.errno[error], ERROR);
    bytes.write(name, FUNCTION, FUNCTION_BYTES - 1);
    // First what fails, then when.
    writeSync(this.#fd, bytes, ERROR, BYTES - ERROR, ERROR);
    bytes.writeInt32LE(number, LEFT);
    writeSync(this.#fd, bytes, LEFT, 4, LEFT);
  }

  /** No call fails any more. Returns whether one did. */
  disarm(): boolean {
    const hits = Buffer.alloc(4);
    writeSync(this.#fd, Buffer.alloc(4), 0, 4, LEFT);
    readSync(this.#fd, hits, 0, 4, HITS);
    return hits.readInt32LE() > 0;
  }

  [Symbol.dispose](): void {
    closeSync(this.#fd);
  }
}
