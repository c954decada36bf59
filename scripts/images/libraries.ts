import { open, readdir } from "node:fs/promises";
import { basename, join } from "node:path";
import { run } from "../support.ts";

const ELF_MAGIC = "\x7fELF";

/** Shared libraries that programs in `trees` need and that none of the trees has: `program: library`. */
export async function findMissingLibraries(trees: readonly string[]): Promise<string[]> {
  const programs: string[] = [];
  const present = new Set<string>();
  for (const tree of trees) {
    for (const entry of await readdir(tree, { recursive: true, withFileTypes: true })) {
      const path = join(entry.parentPath, entry.name);
      if (/\.so(\.|$)/.test(entry.name)) present.add(entry.name);
      if (entry.isFile() && (await isElf(path))) programs.push(path);
    }
  }
  const missing = new Set<string>();
  for (const program of programs) {
    const dynamic = await run("readelf", ["-dW", program]).catch(() => "");
    for (const [, library = ""] of dynamic.matchAll(/\(NEEDED\).*\[(.+)\]/g)) {
      if (!present.has(library)) missing.add(`${basename(program)}: ${library}`);
    }
  }
  return [...missing].toSorted();
}

async function isElf(path: string): Promise<boolean> {
  await using file = await open(path);
  const head = await file.read(Buffer.alloc(ELF_MAGIC.length), 0, ELF_MAGIC.length, 0);
  return head.buffer.toString("latin1") === ELF_MAGIC;
}
