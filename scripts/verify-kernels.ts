/**
 * Rebuilds the guest kernel from source and compares it with the one in images/kernel/, byte for byte: that nothing is in
 * that kernel but Debian's source, the patches and the configuration that lie beside it. Changes nothing there.
 * `--work FOLDER` builds there instead of in a temporary folder (two gigabytes, removed afterwards).
 *
 * Exit codes: 0 it is the same; 1 it is not, or the build failed; 2 it cannot be compared, because Debian does not serve the
 * source's version any more or because the compiler here is another one.
 */
import { join } from "node:path";
import { parseArgs } from "node:util";
import { rm } from "node:fs/promises";
import { buildKernel, compilerVersion, SourceGoneError } from "./kernels/build.ts";
import { type KernelRecord, readKernelManifest } from "./kernels/manifest.ts";
import { BUILD, runMain, say } from "./support.ts";

const EXIT_INCOMPARABLE = 2;

/** What of the record a rebuilt kernel must have in common with the one that is here; each difference in a line. */
function differences(kept: KernelRecord, built: KernelRecord): string[] {
  const patches = new Set([...Object.keys(kept.patches), ...Object.keys(built.patches)]);
  const compared: (readonly [what: string, kept: string | undefined, built: string | undefined])[] = [
    ["the source package", kept.source.sha256, built.source.sha256],
    ["uml.fragment", kept.fragmentSha256, built.fragmentSha256],
    ...[...patches].map((name) => [name, kept.patches[name], built.patches[name]] as const),
    ["the configuration", kept.configSha256, built.configSha256],
    ["the kernel", kept.sha256, built.sha256],
  ];
  return compared
    .filter(([, before, after]) => before !== after)
    .map(([what, before = "none", after = "none"]) => `${what}: ${before} in the manifest, ${after} here`);
}

async function main(): Promise<void> {
  const { values } = parseArgs({ options: { work: { type: "string" } } });
  const { uml: kept } = await readKernelManifest();
  if (kept === undefined) throw new Error("images/kernel/manifest.json names no kernel uml");
  const compiler = await compilerVersion();
  if (compiler !== kept.compiler) {
    say(`not comparable: ${kept.compiler} compiled the kernel that is here, and this machine has ${compiler}`);
    process.exitCode = EXIT_INCOMPARABLE;
    return;
  }
  const work = values.work ?? join(BUILD, "tmp", `verify-kernels-${process.pid}`);
  try {
    const { record } = await buildKernel(work, kept.source.version);
    const wrong = differences(kept, record);
    if (wrong.length > 0)
      throw new Error(`images/kernel/${kept.file} is not what its sources build:\n${wrong.join("\n")}`);
    say(`images/kernel/${kept.file} is what its sources build: ${kept.sha256}`);
  } catch (error) {
    if (!(error instanceof SourceGoneError)) throw error;
    say(`not comparable: ${error.message}; Debian's snapshot archive keeps it (SHA-256 ${kept.source.sha256})`);
    process.exitCode = EXIT_INCOMPARABLE;
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

await runMain(main);
