import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { readFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { test } from "node:test";
import { promisify } from "node:util";

const ROOT = resolve(import.meta.dirname, "../..");
const LINES_MAX = 600;

/** Files that belong to the repository, with those not committed yet. */
const { stdout } = await promisify(execFile)("git", ["ls-files", "-z", "--cached", "--others", "--exclude-standard"], {
  cwd: ROOT,
  maxBuffer: 64 * 1024 * 1024,
});
const files = stdout.split("\0").filter((file) => file !== "");
const textOf = (file: string): Promise<string> => readFile(join(ROOT, file), "utf8").catch(() => "");
const texts = new Map(
  await Promise.all(
    files
      .filter((file) => !/\.(zst|xz|png|zip)$|(^|\/)package-lock\.json$/.test(file))
      .map(async (file) => [file, await textOf(file)] as const),
  ),
);
const linesOf = (text: string): number => text.split("\n").length - 1;
const code = [...texts].filter(([file]) => /^(src|scripts|test|bench|native)\/.*\.(ts|mjs|py|c|h)$/.test(file));

/** Names of files, and what in them is wrong. */
function findAll(entries: readonly (readonly [string, string])[], pattern: RegExp): string[] {
  return entries.flatMap(([file, text]) => {
    const found = pattern.exec(text);
    return found === null ? [] : [`${file}: ${found[0]}`];
  });
}

test("no file is longer than can be held in the head", () => {
  const long = code.filter(([, text]) => linesOf(text) > LINES_MAX);
  assert.deepEqual(
    long.map(([file, text]) => `${file}: ${linesOf(text)} lines`),
    [],
  );
});

test("exports have names", () => {
  assert.deepEqual(
    findAll(
      code.filter(([file]) => /\.(ts|mjs)$/.test(file)),
      /^export default .*$/m,
    ),
    [],
  );
});

test("no registry's host and no build machine's path is written down", () => {
  // Put together here, for this file is looked through as well.
  const hosts = ["registry.npmjs", "deb.debian", "snapshot.debian", "security.debian"].map((name) =>
    [name, "org"].join("."),
  );
  const paths = [
    ["work", "main"],
    ["tmp", "kb"],
    ["root", "."],
  ].map((parts) => `/${parts.join("/")}`);
  const pattern = new RegExp([...hosts, ...paths].map((text) => text.replaceAll(".", "\\.")).join("|"));
  assert.deepEqual(findAll([...texts], pattern), []);
});

test("a process of the host is signalled through a pidfd, not by its number", () => {
  const product = code.filter(([file]) => /^src\/vmm\/.*\.ts$/.test(file) && !file.endsWith(".test.ts"));
  assert.deepEqual(findAll(product, /\bprocess\.kill\(/), []);
});

test("lock files name no registry", async () => {
  for (const file of files.filter((name) => name.endsWith("package-lock.json"))) {
    assert.doesNotMatch(await textOf(file), /"resolved"/, file);
  }
});

test("every TypeScript file is imported with its ending, and only erasable syntax is used", () => {
  const typescript = code.filter(([file]) => file.endsWith(".ts"));
  assert.deepEqual(
    findAll(typescript, /^(?:import|export)\b[^"']* from "\.{1,2}\/(?![^"]*\.(?:ts|mjs|json)")[^"]*"/m),
    [],
  );
  assert.deepEqual(findAll(typescript, /^(?:export )?(?:const )?enum \w+|^(?:export )?namespace \w+/m), []);
});
