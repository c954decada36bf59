import { execFileSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { zstdDecompressSync } from "node:zlib";
import type { Expected } from "../fixtures/data-directories/make.ts";

const FIXTURES = new URL("../fixtures/data-directories/", import.meta.url).pathname;

/** Names of the packed data directories. */
export const FIXTURE_NAMES: readonly string[] = readdirSync(FIXTURES)
  .filter((name) => name.endsWith(".tar.zst"))
  .map((name) => name.replace(/\.tar\.zst$/, ""));

export interface UnpackedDirectory extends Disposable {
  readonly path: string;
  readonly expected: Expected;
}

/** A packed data directory, unpacked in a place of its own that goes away with it. */
export const unpackFixture = (name: string): UnpackedDirectory => {
  const path = mkdtempSync(join(tmpdir(), "hearth-old-"));
  execFileSync("tar", ["-C", path, "-xf", "-"], {
    input: zstdDecompressSync(readFileSync(join(FIXTURES, `${name}.tar.zst`))),
  });
  const expected = JSON.parse(readFileSync(join(path, "expected.json"), "utf8")) as Expected;
  rmSync(join(path, "expected.json"));
  return { path, expected, [Symbol.dispose]: () => rmSync(path, { recursive: true, force: true }) };
};
