import { createReadStream } from "node:fs";
import type { Stats } from "node:fs";
import { lstat, open, readdir, readFile, readlink, stat } from "node:fs/promises";
import { basename, extname, join } from "node:path";
import { buffer } from "node:stream/consumers";
import yauzl from "yauzl";
import { ZipFile } from "yazl";
import { UNZIPPED_BYTES_MAX, ZIP_BYTES_MAX, ZIP_ENTRIES_MAX } from "../wire/limits.ts";
import { CliError, usageError } from "../daemon/errors.ts";
import { bytes } from "./output.ts";

/** Code ready for upload, and what its contents say of runtime and handler (null: they say nothing). */
export interface CodeArchive {
  readonly zip: Uint8Array;
  readonly guess: RuntimeGuess | null;
}

export interface RuntimeGuess {
  readonly runtime: string;
  readonly handler: string;
}

interface SourceFile {
  /** Path in the archive, with slashes. */
  readonly name: string;
  readonly path: string;
  readonly stats: Stats;
}

/** Not part of any function's code. */
const SKIPPED = new Set([".git", ".DS_Store"]);
const NODE_EXTENSIONS = new Set([".mjs", ".js", ".cjs"]);
const NODE_RUNTIME = "nodejs24.x";
const PYTHON_RUNTIME = "python3.11";
const NATIVE_RUNTIME = "provided.al2023";
/** So that the same files make the same bytes, and so the same digest. The first moment a zip can tell. */
const ZIP_TIME = new Date(1980, 0, 1);

/** Reads the code to deploy: a directory (its contents), a .zip as it is, or a single file. Throws a usage error. */
export const readCode = async (path: string): Promise<CodeArchive> => {
  const stats = await stat(path).catch(() => null);
  if (stats === null) throw usageError(`There is no ${path}.`, "Name a directory, a .zip or a single source file.");
  if (stats.isDirectory()) return fromDirectory(path);
  if (!stats.isFile()) throw usageError(`${path} is neither a file nor a directory.`);
  return extname(path) === ".zip" ? fromZip(path) : fromFile(path, stats);
};

const fromDirectory = async (directory: string): Promise<CodeArchive> => {
  const files = await listFiles(directory, "");
  if (files.length === 0) throw usageError(`${directory} is empty.`, "A function needs at least one file of code.");
  const texts = async (name: string): Promise<string> => readFile(join(directory, name), "utf8");
  return {
    zip: await zipOf(files),
    guess: await guessRuntime(
      files.map((file) => file.name),
      texts,
    ),
  };
};

const fromZip = async (path: string): Promise<CodeArchive> => {
  const zip = await readFile(path);
  checkZipSize(zip.length);
  const names = await zipNames(zip).catch((error: unknown) => {
    throw new CliError(`${path} is no zip archive: ${error instanceof Error ? error.message : String(error)}.`);
  });
  return { zip, guess: await guessRuntime(names, async () => "") };
};

const fromFile = async (path: string, stats: Stats): Promise<CodeArchive> => {
  const name = basename(path);
  if (NODE_EXTENSIONS.has(extname(path)) || extname(path) === ".py") {
    const text = await readFile(path, "utf8");
    const module = name.slice(0, -extname(name).length);
    const guess =
      extname(path) === ".py"
        ? { runtime: PYTHON_RUNTIME, handler: `${module}.${pythonHandler(text)}` }
        : { runtime: NODE_RUNTIME, handler: `${module}.handler` };
    return { zip: await zipOf([{ name, path, stats }]), guess };
  }
  if (!(await isProgram(path))) {
    throw usageError(
      `It is not clear how to run ${path}.`,
      "Deploy a .js, .mjs, .py, a program, a directory or a .zip.",
    );
  }
  return {
    zip: await zipOf([{ name: "bootstrap", path, stats: executable(stats) }]),
    guess: { runtime: NATIVE_RUNTIME, handler: "bootstrap" },
  };
};

const executable = (stats: Stats): Stats => Object.assign(stats, { mode: stats.mode | 0o755 });

/** An ELF program or a script that names its interpreter. */
const isProgram = async (path: string): Promise<boolean> => {
  await using file = await open(path);
  const { buffer: start } = await file.read(Buffer.alloc(4), 0, 4, 0);
  return start.toString("latin1") === "\u007fELF" || start.subarray(0, 2).toString() === "#!";
};

/** Every file and symbolic link below, sorted, so that the archive is the same each time. */
const listFiles = async (root: string, prefix: string): Promise<SourceFile[]> => {
  const found: SourceFile[] = [];
  const names = (await readdir(join(root, prefix))).filter((name) => !SKIPPED.has(name)).sort();
  for (const entry of names) {
    const name = prefix === "" ? entry : `${prefix}/${entry}`;
    const path = join(root, name);
    const stats = await lstat(path);
    if (stats.isDirectory()) found.push(...(await listFiles(root, name)));
    else if (stats.isFile() || stats.isSymbolicLink()) found.push({ name, path, stats });
    if (found.length > ZIP_ENTRIES_MAX) throw new CliError(`${root} has more than ${ZIP_ENTRIES_MAX} files.`);
  }
  return found;
};

const zipOf = async (files: readonly SourceFile[]): Promise<Uint8Array> => {
  const unzipped = files.reduce((sum, file) => sum + file.stats.size, 0);
  if (unzipped > UNZIPPED_BYTES_MAX) {
    throw new CliError(`The code is ${bytes(unzipped)}; a function may have ${bytes(UNZIPPED_BYTES_MAX)} unzipped.`);
  }
  const archive = new ZipFile();
  const options = { mtime: ZIP_TIME, forceDosTimestamp: true };
  for (const { name, path, stats } of files) {
    if (stats.isSymbolicLink())
      archive.addBuffer(Buffer.from(await readlink(path)), name, { ...options, mode: 0o120777 });
    else {
      const made = { ...options, mode: stats.mode, size: stats.size };
      archive.addReadStreamLazy(name, made, (done) => done(null, createReadStream(path)));
    }
  }
  archive.end();
  const zip = await buffer(archive.outputStream);
  checkZipSize(zip.length);
  return zip;
};

const checkZipSize = (zipBytes: number): void => {
  if (zipBytes > ZIP_BYTES_MAX) {
    throw new CliError(`The archive is ${bytes(zipBytes)}; at most ${bytes(ZIP_BYTES_MAX)} may be uploaded.`);
  }
};

const zipNames = (zip: Buffer): Promise<string[]> =>
  new Promise((resolve, reject) => {
    yauzl.fromBuffer(zip, { lazyEntries: true }, (error, file) => {
      if (error !== null || file === undefined) {
        reject(error ?? new Error("it cannot be read"));
        return;
      }
      const names: string[] = [];
      file.on("entry", (entry: { fileName: string }) => {
        names.push(entry.fileName);
        file.readEntry();
      });
      file.on("end", () => resolve(names));
      file.on("error", reject);
      file.readEntry();
    });
  });

/** What the files at the top say: a `bootstrap` wins, then Node's index, then Python's usual names. */
const guessRuntime = async (
  names: readonly string[],
  textOf: (name: string) => Promise<string>,
): Promise<RuntimeGuess | null> => {
  const top = new Set(names);
  if (top.has("bootstrap")) return { runtime: NATIVE_RUNTIME, handler: "bootstrap" };
  for (const extension of NODE_EXTENSIONS) {
    if (top.has(`index${extension}`)) return { runtime: NODE_RUNTIME, handler: "index.handler" };
  }
  for (const module of ["lambda_function", "app", "main", "handler"]) {
    if (!top.has(`${module}.py`)) continue;
    return { runtime: PYTHON_RUNTIME, handler: `${module}.${pythonHandler(await textOf(`${module}.py`))}` };
  }
  return null;
};

const pythonHandler = (text: string): string =>
  /^(?:async\s+)?def\s+(lambda_handler|handler)\s*\(/m.exec(text)?.[1] ?? "lambda_handler";
