import { execFileSync } from "node:child_process";
import { chmodSync, mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** A root image with the tests' guest program as /init, and a run directory. Disposing removes them. */
export class TestGuest implements Disposable {
  readonly directory: string;
  readonly image: string;
  readonly runDir: string;

  constructor() {
    this.directory = mkdtempSync(join(tmpdir(), "hv-"));
    chmodSync(this.directory, 0o755);
    this.image = join(this.directory, "root.erofs");
    this.runDir = join(this.directory, "r");
    const root = join(this.directory, "root");
    for (const name of ["dev", "proc", "tmp"]) mkdirSync(join(root, name), { recursive: true });
    const source = new URL("guest-init.c", import.meta.url).pathname;
    execFileSync("cc", ["-O2", "-static", "-Wall", "-Wextra", "-Werror", "-o", join(root, "init"), source]);
    execFileSync("mkfs.erofs", ["--quiet", this.image, root]);
  }

  [Symbol.dispose](): void {
    rmSync(this.directory, { recursive: true, force: true });
  }
}
