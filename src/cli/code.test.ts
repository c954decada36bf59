import assert from "node:assert/strict";
import { chmod, mkdir, mkdtemp, rm, symlink, utimes, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import yauzl from "yauzl";
import { readCode } from "./code.ts";

const folder = async (
  files: Readonly<Record<string, string>>,
): Promise<{ readonly path: string } & AsyncDisposable> => {
  const path = await mkdtemp(join(tmpdir(), "hearth-code-"));
  for (const [name, text] of Object.entries(files)) {
    await mkdir(join(path, name, ".."), { recursive: true });
    await writeFile(join(path, name), text);
  }
  return { path, [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true }) };
};

/** Names of the entries with their modes. */
const entriesOf = (zip: Uint8Array): Promise<Record<string, number>> =>
  new Promise((resolve, reject) => {
    yauzl.fromBuffer(Buffer.from(zip), (error, file) => {
      if (error !== null) return reject(error);
      const found: Record<string, number> = {};
      file.on("entry", (entry: yauzl.Entry) => (found[entry.fileName] = entry.externalFileAttributes >>> 16));
      file.on("end", () => resolve(found));
    });
  });

test("the same files make the same bytes, whenever they were written", async () => {
  await using one = await folder({ "index.mjs": "a", "lib/b.mjs": "b" });
  await using two = await folder({ "lib/b.mjs": "b", "index.mjs": "a" });
  await utimes(join(two.path, "index.mjs"), 1e9, 1e9);
  const [first, second] = [await readCode(one.path), await readCode(two.path)];
  assert.deepEqual(Buffer.from(first.zip), Buffer.from(second.zip));
  assert.deepEqual(first.guess, { runtime: "nodejs24.x", handler: "index.handler" });
});

test("modes and links are kept, .git is not", async () => {
  await using code = await folder({ bootstrap: "#!/bin/sh", "data.txt": "x", ".git/config": "secret" });
  await chmod(join(code.path, "bootstrap"), 0o755);
  await chmod(join(code.path, "data.txt"), 0o640);
  await symlink("data.txt", join(code.path, "link"));
  const { zip, guess } = await readCode(code.path);
  assert.deepEqual(await entriesOf(zip), { bootstrap: 0o100755, "data.txt": 0o100640, link: 0o120777 });
  assert.deepEqual(guess, { runtime: "provided.al2023", handler: "bootstrap" });
});

test("Python's handler is read from the file", async () => {
  await using app = await folder({ "app.py": "import os\n\ndef handler(event, context):\n    pass\n" });
  assert.deepEqual((await readCode(app.path)).guess, { runtime: "python3.11", handler: "app.handler" });
  await using usual = await folder({ "lambda_function.py": "def lambda_handler(e, c): pass\n" });
  assert.equal((await readCode(usual.path)).guess?.handler, "lambda_function.lambda_handler");
});

test("a single file", async () => {
  await using code = await folder({ "hello.mjs": "x", tool: "#!/bin/bash\n", "notes.txt": "just text" });
  assert.deepEqual((await readCode(join(code.path, "hello.mjs"))).guess, {
    runtime: "nodejs24.x",
    handler: "hello.handler",
  });
  const tool = await readCode(join(code.path, "tool"));
  assert.deepEqual(await entriesOf(tool.zip), { bootstrap: 0o100755 });
  await assert.rejects(readCode(join(code.path, "notes.txt")), /not clear how to run/);
  await assert.rejects(readCode(join(code.path, "missing")), /There is no/);
});

test("a zip is taken as it is, and must be one", async () => {
  await using code = await folder({ "index.js": "x" });
  const { zip } = await readCode(code.path);
  const file = join(code.path, "code.zip");
  await writeFile(file, zip);
  const again = await readCode(file);
  assert.deepEqual(Buffer.from(again.zip), Buffer.from(zip));
  assert.equal(again.guess?.runtime, "nodejs24.x");
  await writeFile(file, "no zip");
  await assert.rejects(readCode(file), /is no zip archive/);
});
