import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { ROOT } from "../support.ts";

/** Fragments, patches, and the kernels built from them. */
export const KERNELS: string = join(ROOT, "images", "kernel");

/** One kernel kept in the repository, and all that it was made from. */
export interface KernelRecord {
  /** File beside the manifest: the kernel, compressed with zstd. */
  readonly file: string;
  /** SHA-256 of the kernel when unpacked, hex. */
  readonly sha256: string;
  readonly bytes: number;
  /** Configuration as built, beside the manifest. */
  readonly config: string;
  readonly configSha256: string;
  readonly fragmentSha256: string;
  /** File name → SHA-256 of each patch, in the order of application. */
  readonly patches: Readonly<Record<string, string>>;
  readonly source: { readonly package: string; readonly version: string; readonly sha256: string };
  readonly compiler: string;
}

/** Kernel's name (`uml`) → its record. */
export type KernelManifest = Readonly<Record<string, KernelRecord>>;

/** Reads images/kernel/manifest.json. */
export async function readKernelManifest(): Promise<KernelManifest> {
  return JSON.parse(await readFile(join(KERNELS, "manifest.json"), "utf8")) as KernelManifest;
}
