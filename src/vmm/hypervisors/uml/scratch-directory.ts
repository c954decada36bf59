import { randomBytes } from "node:crypto";
import { closeSync, ftruncateSync, openSync, writeSync } from "node:fs";
import { rm, stat } from "node:fs/promises";

import type { Clock } from "../../../lib/clock.ts";
import { emptyExt2, type EmptyFileSystem } from "../../ext2.ts";
import { SCRATCH_MIB_MAX, SCRATCH_TEMPLATES_MAX } from "../../limits.ts";
import type { Leftovers } from "./leftovers.ts";
import { giveToJail, OwnedDirectory } from "./run-directory.ts";

const MIB = 1024 * 1024;
/** Unit of st_blocks (inode(7)), whatever the file system's own is. */
const STAT_BLOCK_BYTES = 512;
/** Where a jail sees its scratch directory. */
export const SCRATCH = "/scratch";

const messageOf = (error: unknown): string => (error instanceof Error ? error.message : String(error));

const writeSparse = (path: string, content: EmptyFileSystem): void => {
  const file = openSync(path, "wx", 0o600);
  try {
    ftruncateSync(file, content.bytes);
    for (const { offset, bytes } of content.extents) writeSync(file, bytes, 0, bytes.length, offset);
  } finally {
    closeSync(file);
  }
};

/** Empty file systems of the sizes asked for last. All drives of a size have the same UUID: no guest sees two of them. */
export class ScratchTemplates {
  readonly #uuid: Uint8Array = randomBytes(16);
  readonly #clock: Clock;
  readonly #bySize: Map<number, EmptyFileSystem> = new Map();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  get(mib: number): EmptyFileSystem {
    let template = this.#bySize.get(mib);
    if (template === undefined) {
      template = emptyExt2(mib * MIB, this.#uuid, Math.floor(this.#clock.wallMs() / 1000));
      const [oldest] = this.#bySize.keys();
      if (oldest !== undefined && this.#bySize.size >= SCRATCH_TEMPLATES_MAX) this.#bySize.delete(oldest);
      this.#bySize.set(mib, template);
    }
    return template;
  }
}

/** What all scratch directories of a monitor have in common. */
export interface ScratchServices {
  readonly templates: ScratchTemplates;
  readonly leftovers: Leftovers;
}

/**
 * `SCRATCHDIR/ID/`, the drives that one microVM may write to, each named by its number in the guest: sparse files that
 * belong to us and that the jail's group may write. The directory itself is ours, so the jail cannot put other files there.
 */
export class ScratchDirectory implements Disposable {
  readonly path: string;
  readonly #owned: OwnedDirectory;
  readonly #templates: ScratchTemplates;
  readonly #user: number | null;
  readonly #drives: string[] = [];
  /** Length of its longest drive. */
  #driveBytesMax = 0;

  /** Makes the directory. `user` is the jail's, null when it is ours. Throws, with nothing left, when the disk is full. */
  constructor(scratchDir: string, id: string, user: number | null, { templates, leftovers }: ScratchServices) {
    this.#templates = templates;
    this.#user = user;
    try {
      this.#owned = new OwnedDirectory(scratchDir, id, user, leftovers);
    } catch (error) {
      throw new Error(`No scratch directory can be made in ${scratchDir}: ${messageOf(error)}`, { cause: error });
    }
    this.path = this.#owned.path;
  }

  /** Makes an empty drive of so many MiB and returns its path in the jail. Throws when the host's disk has no room for it. */
  add(mib: number, index: number): string {
    if (!Number.isInteger(mib) || mib < 1 || mib > SCRATCH_MIB_MAX)
      throw new Error(`A scratch drive of ${String(mib)} MiB; 1 to ${String(SCRATCH_MIB_MAX)} may be`);
    const name = String(index);
    try {
      const content = this.#templates.get(mib);
      writeSparse(`${this.path}/${name}`, content);
      this.#drives.push(`${this.path}/${name}`);
      this.#driveBytesMax = Math.max(this.#driveBytesMax, content.bytes);
      if (this.#user !== null) giveToJail(`${this.path}/${name}`, this.#user, 0o660);
    } catch (error) {
      throw new Error(`No scratch drive can be made in ${this.path}: ${messageOf(error)}`, { cause: error });
    }
    return `${SCRATCH}/${name}`;
  }

  /** Length of its longest drive: nothing in it is to be longer. */
  get driveBytesMax(): number {
    return this.#driveBytesMax;
  }

  /** Bytes of the disk that its drives take; 0 when they are gone. */
  async bytes(): Promise<number> {
    const taken = this.#drives.map((drive) =>
      stat(drive).then(
        ({ blocks }) => blocks * STAT_BLOCK_BYTES,
        () => 0,
      ),
    );
    return (await Promise.all(taken)).reduce((sum, bytes) => sum + bytes, 0);
  }

  /** As disposing, but without holding up others while the disk frees what may be gigabytes. */
  async remove(): Promise<void> {
    await rm(this.path, { recursive: true, force: true });
    this[Symbol.dispose]();
  }

  [Symbol.dispose](): void {
    this.#owned[Symbol.dispose]();
  }
}
