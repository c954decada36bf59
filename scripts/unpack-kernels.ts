/** Unpacks the kernels kept in images/kernel/ to build/kernel/, their checksums verified. */
import { createHash } from "node:crypto";
import { chmod, mkdir, readFile, rename, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { zstdDecompress } from "node:zlib";
import { type KernelRecord, KERNELS, readKernelManifest } from "./kernels/manifest.ts";
import { BUILD, digestOf, runMain, say } from "./support.ts";

const decompress = promisify(zstdDecompress);

async function main(): Promise<void> {
  for (const [name, kernel] of Object.entries(await readKernelManifest())) await unpack(name, kernel);
}

async function unpack(name: string, kernel: KernelRecord): Promise<void> {
  const path = join(BUILD, "kernel", name);
  if ((await digestOf(path).catch(() => "")) === kernel.sha256) return;
  say(`unpacking the kernel ${name} (${kernel.source.version})`);
  const content = await decompress(await readFile(join(KERNELS, kernel.file)));
  const digest = createHash("sha256").update(content).digest("hex");
  if (digest !== kernel.sha256) {
    throw new Error(`images/kernel/${kernel.file} is damaged: its kernel has SHA-256 ${digest}, not ${kernel.sha256}`);
  }
  await mkdir(join(BUILD, "kernel"), { recursive: true });
  const temporary = `${path}.${process.pid}.tmp`;
  await writeFile(temporary, content);
  await chmod(temporary, 0o755);
  await rename(temporary, path);
}

await runMain(main);
