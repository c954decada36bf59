import { execFile } from "node:child_process";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import type { ImageManifest, RuntimeName } from "../../src/runtimes/catalog.ts";

const IMAGES = join(import.meta.dirname, "../../build/images");

/** The files of a runtime's image in a folder of its own, gone when disposed. */
export async function extractImage(name: RuntimeName): Promise<AsyncDisposable & { readonly path: string }> {
  const manifest = JSON.parse(await readFile(join(IMAGES, "manifest.json"), "utf8")) as ImageManifest;
  const { file } = manifest[name];
  if (file === undefined) throw new Error(`${name} has no image of its own`);
  const path = await mkdtemp(join(tmpdir(), "hearth-image-"));
  await promisify(execFile)("fsck.erofs", [`--extract=${path}`, join(IMAGES, file)]);
  return { path, [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true }) };
}
