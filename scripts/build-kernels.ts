/**
 * Builds the guest kernels from Debian's kernel source, our configuration fragment and our patches, and puts
 * them into images/kernel/ with a manifest of all that went in. Set-up never needs this: it unpacks what is
 * there. `--keep` leaves the source tree in build/kernel-source/ for a look.
 */
import { mkdir, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { availableParallelism } from "node:os";
import { basename, join } from "node:path";
import { promisify } from "node:util";
import { constants, zstdCompress } from "node:zlib";
import { downloadPackages } from "./images/debian.ts";
import { type KernelRecord, KERNELS } from "./kernels/manifest.ts";
import { BUILD, digestOf, readTextIfThere, run, runMain, say, writeWhole } from "./support.ts";

const SOURCE_PACKAGE = "linux-source-7.2";
/** Debian's suite that has this source. */
const SUITE = "sid";
const KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg";
const WORK = join(BUILD, "kernel-source");
const COMPRESSION_LEVEL = 19;
/** What would else put the moment and the place of the build into the kernel. */
const REPRODUCIBLE = {
  KBUILD_BUILD_TIMESTAMP: "2026-01-01T00:00:00Z",
  KBUILD_BUILD_USER: "hearth",
  KBUILD_BUILD_HOST: "hearth",
  KBUILD_BUILD_VERSION: "1",
};

const compress = promisify(zstdCompress);

async function main(): Promise<void> {
  await rm(WORK, { recursive: true, force: true });
  await mkdir(WORK, { recursive: true });
  const source = await fetchSource();
  say(`unpacking ${basename(source.file)}`);
  const tree = await unpackSource(source.file);
  const patches = await applyPatches(tree);
  const fragment = join(KERNELS, "uml.fragment");
  await configure(tree, fragment);
  say("compiling (a few minutes)");
  await make(tree, ["linux", `-j${availableParallelism()}`]);
  await run("strip", ["linux"], { cwd: tree });

  const name = `uml-${source.upstream}`;
  const kernel = await readFile(join(tree, "linux"));
  const options = { params: { [constants.ZSTD_c_compressionLevel]: COMPRESSION_LEVEL } };
  await writeFile(join(KERNELS, `${name}.zst`), await compress(kernel, options));
  await writeFile(join(KERNELS, `${name}.config`), await readFile(join(tree, ".config")));
  const record: KernelRecord = {
    file: `${name}.zst`,
    sha256: await digestOf(join(tree, "linux")),
    bytes: kernel.length,
    config: `${name}.config`,
    configSha256: await digestOf(join(tree, ".config")),
    fragmentSha256: await digestOf(fragment),
    patches,
    source: { package: SOURCE_PACKAGE, version: source.version, sha256: await digestOf(source.file) },
    compiler: (await run("gcc", ["--version"])).split("\n", 1)[0] ?? "",
  };
  await writeWhole(join(KERNELS, "manifest.json"), `${JSON.stringify({ uml: record }, null, 2)}\n`);
  if (!process.argv.includes("--keep")) await rm(WORK, { recursive: true, force: true });
  say(`images/kernel/${record.file}: ${record.sha256}`);
}

interface Source {
  readonly file: string;
  /** Of the Debian package, e.g. 7.2.13-1. */
  readonly version: string;
  /** Of the kernel, e.g. 7.2.13. */
  readonly upstream: string;
}

/** Gets the source package with apt folders of our own, so that the machine's own lists stay as they are. */
async function fetchSource(): Promise<Source> {
  say(`fetching ${SOURCE_PACKAGE} from Debian ${SUITE}`);
  const apt = join(WORK, "apt");
  for (const folder of ["lists/partial", "cache/archives/partial"]) {
    await mkdir(join(apt, folder), { recursive: true });
  }
  const list = join(apt, "sources.list");
  await writeFile(list, `deb [signed-by=${KEYRING}] ${await findMirror()} ${SUITE} main\n`);
  const folders = { "Dir::Etc::sourcelist": list, "Dir::Etc::sourceparts": "/dev/null" };
  const state = { "Dir::State::lists": join(apt, "lists"), "Dir::Cache": join(apt, "cache") };
  const options = Object.entries({ ...folders, ...state }).flatMap(([key, value]) => ["-o", `${key}=${value}`]);
  await downloadPackages([SOURCE_PACKAGE], WORK, options);
  const file = (await readdir(WORK)).find((name) => name.endsWith(".deb"));
  const version = file?.split("_")[1];
  if (file === undefined || version === undefined) throw new Error(`apt brought no ${SOURCE_PACKAGE}`);
  return { file: join(WORK, file), version, upstream: version.replace(/-[^-]*$/, "") };
}

/** The Debian mirror that this machine uses. */
async function findMirror(): Promise<string> {
  const parts = await readdir("/etc/apt/sources.list.d").catch((): string[] => []);
  const files = ["/etc/apt/sources.list", ...parts.map((name) => join("/etc/apt/sources.list.d", name))];
  for (const file of files) {
    const text = (await readTextIfThere(file)) ?? "";
    const found = /^(?:URIs:|deb(?: \[[^\]]*\])?)\s+(\S+\/debian)\/?(?:\s|$)/m.exec(text);
    if (found?.[1] !== undefined) return found[1];
  }
  throw new Error("no Debian mirror in /etc/apt/sources.list nor in /etc/apt/sources.list.d");
}

async function unpackSource(file: string): Promise<string> {
  await run("dpkg-deb", ["-x", file, join(WORK, "package")]);
  const archive = join(WORK, "package", "usr", "src", `${SOURCE_PACKAGE}.tar.xz`);
  await run("tar", ["-x", "-C", WORK, "-f", archive]);
  return join(WORK, SOURCE_PACKAGE);
}

async function applyPatches(tree: string): Promise<Record<string, string>> {
  const applied: Record<string, string> = {};
  const folder = join(KERNELS, "patches");
  for (const name of (await readdir(folder)).filter((file) => file.endsWith(".patch")).toSorted()) {
    await run("patch", ["-p1", "--no-backup-if-mismatch", "-i", join(folder, name)], { cwd: tree });
    applied[name] = await digestOf(join(folder, name));
  }
  return applied;
}

async function make(tree: string, targets: readonly string[]): Promise<void> {
  await run("make", ["ARCH=um", ...targets], { cwd: tree, env: REPRODUCIBLE });
}

/** tinyconfig and our fragment. An option that did not come out as the fragment says is an error. */
async function configure(tree: string, fragment: string): Promise<void> {
  await make(tree, ["tinyconfig"]);
  await run("scripts/kconfig/merge_config.sh", ["-m", ".config", fragment], { cwd: tree });
  await make(tree, ["olddefconfig"]);
  const config = new Set((await readFile(join(tree, ".config"), "utf8")).split("\n"));
  const wanted = (await readFile(fragment, "utf8")).split("\n").filter((line) => line.startsWith("CONFIG_"));
  const lost = wanted.filter((line) => {
    const name = line.slice(0, line.indexOf("="));
    if (!line.endsWith("=n")) return !config.has(line);
    return [...config].some((entry) => entry.startsWith(`${name}=`));
  });
  if (lost.length > 0) throw new Error(`the kernel's configuration did not take:\n${lost.join("\n")}`);
}

await runMain(main);
