import { constants, copyFileSync, linkSync } from "node:fs";

import type { Leftovers } from "./leftovers.ts";
import { checkReadable, OwnedDirectory } from "./run-directory.ts";

/** Where a jail sees its drive directory. */
export const DRIVES = "/drives";

/**
 * `DRIVESDIR/ID/`, images that one microVM was given while it runs, or whose own place it cannot reach: links named by
 * their number in the guest. Ours; the jail may only read. On the images' file system, unlike the run directory.
 */
export class DriveDirectory implements Disposable {
  readonly path: string;
  readonly #owned: OwnedDirectory;

  /** Makes the directory. `user` is the jail's, null when it is ours. */
  constructor(drivesDir: string, id: string, user: number | null, leftovers: Leftovers) {
    this.#owned = new OwnedDirectory(drivesDir, id, user, leftovers);
    this.path = this.#owned.path;
  }

  /** Makes an image appear in the jail; returns its path there. A link where it can be, a copy where it must. */
  add(image: string, index: number): string {
    checkReadable(image);
    const name = String(index);
    try {
      linkSync(image, `${this.path}/${name}`);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "EXDEV") throw error;
      copyFileSync(image, `${this.path}/${name}`, constants.COPYFILE_FICLONE);
    }
    return `${DRIVES}/${name}`;
  }

  [Symbol.dispose](): void {
    this.#owned[Symbol.dispose]();
  }
}
