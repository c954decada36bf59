/**
 * Builds the guest kernels from Debian's kernel source, our configuration fragment and our patches, and puts
 * them into images/kernel/ with a manifest of all that went in. Set-up never needs this: it unpacks what is
 * there. `--keep` leaves the source tree in build/kernel-source/ for a look.
 */
import { readdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { constants, zstdCompress } from "node:zlib";
import { buildKernel } from "./kernels/build.ts";
import { KERNELS } from "./kernels/manifest.ts";
import { BUILD, runMain, say, writeWhole } from "./support.ts";

const WORK = join(BUILD, "kernel-source");
const COMPRESSION_LEVEL = 19;

const compress = promisify(zstdCompress);

async function main(): Promise<void> {
  const { kernel, config, record } = await buildKernel(WORK, null);
  const options = { params: { [constants.ZSTD_c_compressionLevel]: COMPRESSION_LEVEL } };
  const compressed = await compress(await readFile(kernel), options);
  for (const old of (await readdir(KERNELS)).filter((file) => /^uml-.*\.(zst|config)$/.test(file)))
    await rm(join(KERNELS, old));
  await writeFile(join(KERNELS, record.file), compressed);
  await writeFile(join(KERNELS, record.config), await readFile(config));
  await writeWhole(join(KERNELS, "manifest.json"), `${JSON.stringify({ uml: record }, null, 2)}\n`);
  if (!process.argv.includes("--keep")) await rm(WORK, { recursive: true, force: true });
  say(`images/kernel/${record.file}: ${record.sha256}`);
}

await runMain(main);
