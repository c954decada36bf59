import { execFileSync } from "node:child_process";
import { chmodSync, mkdirSync, mkdtempSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const MIB = 1024 * 1024;

/**
 * A small disk for a data directory: an ext4 file system in a sparse file. Not in memory (tmpfs), whose pages count as those of the
 * guest that writes them. null where none may be mounted.
 */
export class SmallDisk implements Disposable {
  readonly path: string;
  readonly #directory: string;

  private constructor(directory: string) {
    this.#directory = directory;
    this.path = join(directory, "disk");
  }

  static mount(mb: number): SmallDisk | null {
    const directory = mkdtempSync(join(tmpdir(), "hearth-disk-"));
    const image = join(directory, "image");
    try {
      const disk = new SmallDisk(directory);
      // MicroVMs are users of their own and must get to what is below.
      chmodSync(directory, 0o711);
      mkdirSync(disk.path);
      writeFileSync(image, "");
      truncateSync(image, mb * MIB);
      execFileSync("mkfs.ext4", ["-q", "-m", "0", image], { stdio: "pipe" });
      execFileSync("mount", ["-o", "loop", image, disk.path], { stdio: "pipe" });
      chmodSync(disk.path, 0o711);
      return disk;
    } catch {
      rmSync(directory, { recursive: true });
      return null;
    }
  }

  [Symbol.dispose](): void {
    // Whoever had a file open there may be just ending.
    execFileSync("umount", ["--lazy", this.path]);
    rmSync(this.#directory, { recursive: true });
  }
}
