import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { mkdir, readdir, readFile, readlink, rename, rm, stat, writeFile } from "node:fs/promises";
import { dirname, join, relative, resolve } from "node:path";
import { pipeline } from "node:stream/promises";

/** The repository. */
export const ROOT: string = resolve(import.meta.dirname, "..");
/** Everything that is built lies here. */
export const BUILD: string = join(ROOT, "build");

/** What a tool's output must not depend on, over the caller's environment (which has proxies and certificates). */
const TOOL_ENVIRONMENT = { LC_ALL: "C.UTF-8", TZ: "UTC", DEBIAN_FRONTEND: "noninteractive" };

export interface RunOptions {
  readonly cwd?: string;
  readonly env?: Readonly<Record<string, string>>;
}

/** Runs a program to its end. Resolves to its standard output; rejects with its command line and its last words. */
export async function run(command: string, args: readonly string[], options: RunOptions = {}): Promise<string> {
  const child = spawn(command, args, {
    cwd: options.cwd ?? ROOT,
    env: { ...process.env, ...TOOL_ENVIRONMENT, ...options.env },
    stdio: ["ignore", "pipe", "pipe"],
  });
  const stdout: Buffer[] = [];
  const all: Buffer[] = [];
  child.stdout.on("data", (chunk: Buffer) => void (stdout.push(chunk), all.push(chunk)));
  child.stderr.on("data", (chunk: Buffer) => void all.push(chunk));
  const code = await new Promise<number | string>((settle, reject) => {
    child.once("error", (error) => reject(new Error(`cannot run ${command}: ${error.message}`)));
    child.once("close", (exitCode, signal) => settle(exitCode ?? String(signal)));
  });
  if (code !== 0) {
    const tail = Buffer.concat(all).toString().trimEnd().split("\n").slice(-25).join("\n");
    throw new Error(`${command} ${args.join(" ")}\nended with ${code}:\n${tail}`);
  }
  return Buffer.concat(stdout).toString();
}

/** SHA-256 of a file, hex. */
export async function digestOf(path: string): Promise<string> {
  const hash = createHash("sha256");
  await pipeline(createReadStream(path), hash);
  return hash.digest("hex");
}

/** Every file and link below a folder, sorted, as paths relative to it; nothing when there is no such folder. */
export async function filesBelow(folder: string): Promise<string[]> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true }).catch(() => []);
  return entries
    .filter((entry) => !entry.isDirectory())
    .map((entry) => relative(folder, join(entry.parentPath, entry.name)))
    .toSorted();
}

/** One SHA-256 over names, modes and contents of files and folders (given absolute) and over further texts. */
export async function digestOfInputs(paths: readonly string[], texts: readonly string[] = []): Promise<string> {
  const hash = createHash("sha256");
  for (const text of texts) hash.update(`${text.length} ${text}\n`);
  for (const path of paths) {
    const info = await stat(path).catch(() => undefined);
    // What is not there counts as much as an empty folder: git keeps neither.
    if (info?.isDirectory() === true) {
      for (const file of await filesBelow(path)) hash.update(await describeFile(join(path, file)));
    } else if (info !== undefined) hash.update(await describeFile(path));
  }
  return hash.digest("hex");
}

async function describeFile(path: string): Promise<string> {
  const name = relative(ROOT, path);
  const target = await readlink(path).catch(() => undefined);
  if (target !== undefined) return `link ${name} ${target}\n`;
  const executable = ((await stat(path)).mode & 0o111) !== 0;
  return `file ${name} ${executable ? "x" : "-"} ${await digestOf(path)}\n`;
}

/** Text of a file, or undefined when there is none. */
export async function readTextIfThere(path: string): Promise<string | undefined> {
  return await readFile(path, "utf8").catch(() => undefined);
}

/** Writes a file so that it is there whole or not at all. */
export async function writeWhole(path: string, text: string): Promise<void> {
  await mkdir(dirname(path), { recursive: true });
  const temporary = `${path}.${process.pid}.tmp`;
  await writeFile(temporary, text);
  await rename(temporary, path);
}

/** An empty folder of its own that is gone when its owner is done, whatever happened. */
export async function temporaryFolder(name: string): Promise<AsyncDisposable & { readonly path: string }> {
  const path = join(BUILD, "tmp", `${name}-${process.pid}`);
  await rm(path, { recursive: true, force: true });
  await mkdir(path, { recursive: true });
  return { path, [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true }) };
}

/** One calm line of progress on standard error. */
export function say(text: string): void {
  process.stderr.write(`hearth: ${text}\n`);
}

/** Runs a script's main function; an error ends it with its message and exit code 1. */
export async function runMain(main: () => Promise<void>): Promise<void> {
  try {
    await main();
  } catch (error) {
    process.stderr.write(`hearth: ${error instanceof Error ? error.message : String(error)}\n`);
    process.exitCode = 1;
  }
}
