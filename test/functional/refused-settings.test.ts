import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { MAIN } from "./hearth.ts";

const END_MS_MAX = 60_000;

const run = (args: readonly string[]): { readonly status: number | null; readonly stderr: string } =>
  spawnSync(process.execPath, [MAIN, ...args], { encoding: "utf8", timeout: END_MS_MAX, killSignal: "SIGKILL" });

test("a setting that cannot be is refused by name, and none of them is waited for", async (t) => {
  const directory = await mkdtemp(join(tmpdir(), "hearth-refused-"));
  try {
    const fifo = join(directory, "fifo");
    assert.equal(spawnSync("mkfifo", [fifo]).status, 0);
    const backup = join(directory, "backup");
    await writeFile(backup, "not looked into");
    const up = ["up", "--listen", "127.0.0.1:0", "--data-dir", join(directory, "data")];
    const cases: readonly (readonly [readonly string[], RegExp])[] = [
      // A file system that says ENOENT where the directory above is there.
      [["up", "--data-dir", "/proc/hearth"], /data directory \/proc\/hearth cannot be made: ENOENT/],
      [["up", "--data-dir", "/proc"], /data directory \/proc cannot be made: ENOENT/],
      [["restore", backup, "--data-dir", "/proc/hearth/data"], /ENOENT.*\/proc\/hearth/],
      [["up", "--data-dir", ""], /--data-dir.*A directory is expected/],
      [["restore", backup, "--data-dir", ""], /--data-dir.*A directory is expected/],
      [[...up, "--region", ""], /--region.*A region's name is expected/],
      [[...up, "--region", "here\nPATH=/tmp"], /--region.*A region's name is expected/s],
      // Files without an end, and one without a beginning.
      [[...up, "--tls-cert", "/dev/zero", "--tls-key", "/dev/zero"], /\/dev\/zero must hold .*no regular file/],
      [[...up, "--tls-cert", fifo, "--tls-key", fifo], /fifo must hold .*no regular file/],
      [["backup", join(directory, "none", "file.tar")], /There is no directory .*none to write the backup to/],
      [["invoke", "any", "--client-context", "[1]"], /--client-context must be a JSON object, got \[1\]/],
      // What to look at next is a command that there is.
      [["keys", "add"], /see `hearth keys add --help`/],
      [["backup"], /see `hearth help backup`/],
    ];
    for (const [args, says] of cases) {
      const { status, stderr } = run(args);
      await t.test(args.join(" "), () => {
        assert.ok(status === 1 || status === 2, `ended with ${String(status)}: ${stderr}`);
        assert.match(stderr, says);
      });
    }
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
});
