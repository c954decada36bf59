import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { cp, mkdir, mkdtemp, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { test } from "node:test";
import { promisify } from "node:util";

const ROOT = resolve(import.meta.dirname, "../..");
const run = promisify(execFile);

/** A copy of the launcher where nothing has been set up. */
async function emptyClone(): Promise<AsyncDisposable & { readonly path: string }> {
  const path = await mkdtemp(join(tmpdir(), "hearth-clone-"));
  for (const file of ["hearth", "package.json"]) await cp(join(ROOT, file), join(path, file));
  return { path, [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true }) };
}

test("version and help answer where nothing is set up, and set nothing up", async () => {
  await using clone = await emptyClone();
  const { version } = JSON.parse(await readFile(join(ROOT, "package.json"), "utf8")) as { version: string };
  const { stdout } = await run(join(clone.path, "hearth"), ["--version"]);
  assert.equal(stdout, `hearth ${version}\n`);
  assert.match((await run(join(clone.path, "hearth"), ["help"])).stdout, /hearth setup/);
  assert.equal((await run("ls", [clone.path])).stdout, "hearth\npackage.json\n");
});

test("it says what is missing when there is no npm", async () => {
  await using clone = await emptyClone();
  const tools = join(clone.path, "tools");
  await mkdir(tools);
  for (const tool of ["bash", "uname", "mkdir", "flock"]) await symlink(`/usr/bin/${tool}`, join(tools, tool));
  const failing = run(join(clone.path, "hearth"), ["up"], { env: { PATH: tools } });
  await assert.rejects(failing, (error: { code: number; stderr: string }) => {
    assert.equal(error.code, 1);
    assert.match(error.stderr, /npm is missing\. On Debian: apt-get install npm/);
    return true;
  });
});

test("it works through a link from elsewhere, and from another folder", async () => {
  await using clone = await emptyClone();
  await mkdir(join(clone.path, "bin"));
  await symlink("../hearth", join(clone.path, "bin", "h"));
  assert.match((await run(join(clone.path, "bin", "h"), ["version"], { cwd: "/" })).stdout, /^hearth \d/);
});

test("set-up builds nothing twice", async () => {
  await run(join(ROOT, "hearth"), ["setup"]);
  const before = await readFile(join(ROOT, "build/images/manifest.json"), "utf8");
  const { stderr } = await run(join(ROOT, "hearth"), ["setup"]);
  assert.equal(stderr, "hearth: everything is in place\n");
  assert.equal(await readFile(join(ROOT, "build/images/manifest.json"), "utf8"), before);
});

test("a damaged kernel is not unpacked", async () => {
  await using clone = await emptyClone();
  await cp(join(ROOT, "scripts"), join(clone.path, "scripts"), { recursive: true });
  await cp(join(ROOT, "images/kernel"), join(clone.path, "images/kernel"), { recursive: true });
  const unpack = (): Promise<unknown> => run(process.execPath, [join(clone.path, "scripts/unpack-kernels.ts")]);
  await unpack();
  const manifest = join(clone.path, "images/kernel/manifest.json");
  const text = await readFile(manifest, "utf8");
  await writeFile(manifest, text.replace(/"sha256": "\w+"/, `"sha256": "${"0".repeat(64)}"`));
  await assert.rejects(unpack(), /is damaged/);
});
