import assert from "node:assert/strict";
import { readdir, readFile } from "node:fs/promises";
import { dirname, join, relative, resolve } from "node:path";
import { test } from "node:test";

const ROOT = resolve(import.meta.dirname, "../..");
const SOURCES = join(ROOT, "src");

/**
 * Which folder of src/ may import from which. A role (worker, worker-manager, placement, frontend) never imports
 * another role's folder: they meet in wire/. An entry with a slash allows that file or folder only.
 */
const ALLOWED: Readonly<Record<string, readonly string[]>> = {
  lib: [],
  wire: ["lib"],
  // Its one native boundary is the compiled binding.
  vmm: ["lib", "wire", "../build/native/binding.node"],
  store: ["lib", "wire"],
  placement: ["lib", "wire"],
  telemetry: ["lib", "wire"],
  runtimes: [],
  worker: ["lib", "wire", "vmm", "telemetry", "store/code", "runtimes/catalog.ts"],
  "worker-manager": ["lib", "wire", "telemetry"],
  frontend: ["lib", "wire", "store", "telemetry", "runtimes/catalog.ts"],
  daemon: ["lib", "wire", "vmm", "store", "telemetry", "placement", "runtimes", "worker", "worker-manager", "frontend"]
    // Its images and its version.
    .concat("../build/images", "../package.json"),
  cli: ["*"],
};

interface Import {
  readonly file: string;
  /** Relative to src/, or starting with ../ when it lies outside. */
  readonly target: string;
}

async function importsOf(file: string): Promise<Import[]> {
  const text = await readFile(join(SOURCES, file), "utf8");
  const specifiers = text.matchAll(/(?:^|\n)\s*(?:import|export)\b[^"';]*?["'](\.{1,2}\/[^"']+)["']/g);
  const dynamic = text.matchAll(/\bimport\(\s*["'](\.{1,2}\/[^"']+)["']/g);
  return [...specifiers, ...dynamic].map(([, specifier = ""]) => ({
    file,
    target: relative(SOURCES, join(SOURCES, dirname(file), specifier)),
  }));
}

function isAllowed({ file, target }: Import): boolean {
  const from = file.split("/", 1)[0] ?? "";
  const allowed = ALLOWED[from] ?? [];
  if (target.startsWith(`${from}/`) || allowed.includes("*")) return true;
  return allowed.some((entry) => target === entry || target.startsWith(`${entry}/`) || target === `${entry}.ts`);
}

const everything = (await readdir(SOURCES, { recursive: true })).filter((file) => /\.(ts|mjs)$/.test(file));
const imports = (await Promise.all(everything.map(importsOf))).flat();

test("every folder of src/ has its place in the order of imports", () => {
  const folders = new Set(everything.map((file) => file.split("/", 1)[0] ?? ""));
  assert.deepEqual(
    [...folders].filter((folder) => !Object.hasOwn(ALLOWED, folder)),
    [],
  );
});

test("imports go in the allowed directions only", () => {
  const wrong = imports.filter((entry) => !entry.file.endsWith(".test.ts") && !isAllowed(entry));
  assert.deepEqual(
    wrong.map(({ file, target }) => `${file} imports ${target}`),
    [],
  );
});

test("the check sees imports at all, and refuses what it should", () => {
  assert.ok(imports.length > 20);
  assert.equal(isAllowed({ file: "lib/a.ts", target: "wire/limits.ts" }), false);
  assert.equal(isAllowed({ file: "frontend/a.ts", target: "worker/slot.ts" }), false);
  assert.equal(isAllowed({ file: "worker/a.ts", target: "store/store.ts" }), false);
  assert.equal(isAllowed({ file: "worker/a.ts", target: "store/code.ts" }), true);
  assert.equal(isAllowed({ file: "daemon/a.ts", target: "cli/main.ts" }), false);
  assert.equal(isAllowed({ file: "wire/a.ts", target: "lib/b.ts" }), true);
});
