import { mkdir, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { availableParallelism } from "node:os";
import { basename, join } from "node:path";
import { downloadPackages } from "../images/debian.ts";
import { digestOf, readTextIfThere, run, say } from "../support.ts";
import { type KernelRecord, KERNELS } from "./manifest.ts";

const SOURCE_PACKAGE = "linux-source-7.2";
/** Debian's suite that has this source. */
const SUITE = "sid";
const KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg";
/** What would else put the moment and the place of the build into the kernel. */
const REPRODUCIBLE = {
  KBUILD_BUILD_TIMESTAMP: "2026-01-01T00:00:00Z",
  KBUILD_BUILD_USER: "hearth",
  KBUILD_BUILD_HOST: "hearth",
  KBUILD_BUILD_VERSION: "1",
};

/** The suite has another version of the source by now. */
export class SourceGoneError extends Error {
  override readonly name = "SourceGoneError";
}

/** A kernel that was built: where it is and what it was made of. */
export interface BuiltKernel {
  /** The kernel, stripped, and its whole configuration: paths below the folder that it was built in. */
  readonly kernel: string;
  readonly config: string;
  /** Name of the kernel's files in images/kernel/. */
  readonly name: string;
  readonly record: KernelRecord;
}

/**
 * Builds the UML kernel in a folder (emptied first) from the version of the source that is wanted, or from the newest. The
 * same source, compiler, configuration and patches give the same bytes, wherever the folder is.
 */
export async function buildKernel(work: string, wanted: string | null): Promise<BuiltKernel> {
  await rm(work, { recursive: true, force: true });
  await mkdir(work, { recursive: true });
  const source = await fetchSource(work, wanted);
  say(`unpacking ${basename(source.file)}`);
  const tree = await unpackSource(source.file, work);
  const patches = await applyPatches(tree);
  const fragment = join(KERNELS, "uml.fragment");
  await configure(tree, fragment);
  say("compiling (a few minutes)");
  await make(tree, ["linux", `-j${availableParallelism()}`]);
  await run("strip", ["linux"], { cwd: tree });
  const [kernel, config, name] = [join(tree, "linux"), join(tree, ".config"), `uml-${source.upstream}`];
  const record: KernelRecord = {
    file: `${name}.zst`,
    sha256: await digestOf(kernel),
    bytes: (await readFile(kernel)).length,
    config: `${name}.config`,
    configSha256: await digestOf(config),
    fragmentSha256: await digestOf(fragment),
    patches,
    source: { package: SOURCE_PACKAGE, version: source.version, sha256: await digestOf(source.file) },
    compiler: await compilerVersion(),
  };
  return { kernel, config, name, record };
}

/** What compiles here: another version gives other bytes. */
export const compilerVersion = async (): Promise<string> => (await run("gcc", ["--version"])).split("\n", 1)[0] ?? "";

interface Source {
  readonly file: string;
  /** Of the Debian package, e.g. 7.2.13-1. */
  readonly version: string;
  /** Of the kernel, e.g. 7.2.13. */
  readonly upstream: string;
}

/**
 * Gets the source package, in the version wanted or the newest, with apt folders of our own, so that the machine's own
 * lists stay as they are. Rejects with a `SourceGoneError` when the version wanted is not served.
 */
async function fetchSource(work: string, wanted: string | null): Promise<Source> {
  say(`fetching ${SOURCE_PACKAGE} from Debian ${SUITE}`);
  const apt = join(work, "apt");
  for (const folder of ["lists/partial", "cache/archives/partial"]) {
    await mkdir(join(apt, folder), { recursive: true });
  }
  const list = join(apt, "sources.list");
  await writeFile(list, `deb [signed-by=${KEYRING}] ${await findMirror()} ${SUITE} main\n`);
  const folders = { "Dir::Etc::sourcelist": list, "Dir::Etc::sourceparts": "/dev/null" };
  const state = { "Dir::State::lists": join(apt, "lists"), "Dir::Cache": join(apt, "cache") };
  const options = Object.entries({ ...folders, ...state }).flatMap(([key, value]) => ["-o", `${key}=${value}`]);
  const asked = wanted === null ? SOURCE_PACKAGE : `${SOURCE_PACKAGE}=${wanted}`;
  await downloadPackages([asked], work, options).catch((cause: unknown) => {
    if (wanted === null) throw cause;
    throw new SourceGoneError(`Debian ${SUITE} does not serve ${SOURCE_PACKAGE} ${wanted} (any more)`, { cause });
  });
  const file = (await readdir(work)).find((name) => name.endsWith(".deb"));
  const version = file?.split("_")[1];
  if (file === undefined || version === undefined) throw new Error(`apt brought no ${SOURCE_PACKAGE}`);
  return { file: join(work, file), version, upstream: version.replace(/-[^-]*$/, "") };
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

async function unpackSource(file: string, work: string): Promise<string> {
  const unpacked = join(work, "package");
  await run("dpkg-deb", ["-x", file, unpacked]);
  await run("tar", ["-x", "-C", work, "-f", join(unpacked, "usr", "src", `${SOURCE_PACKAGE}.tar.xz`)]);
  await rm(unpacked, { recursive: true });
  return join(work, SOURCE_PACKAGE);
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
