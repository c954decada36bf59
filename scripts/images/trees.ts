import { chmod, copyFile, mkdir, readdir, readFile, rename, rm, symlink, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { BUILD, filesBelow, readTextIfThere, ROOT, run, writeWhole } from "../support.ts";
import { readPackageList, unpackPackages } from "./debian.ts";
import { findMissingLibraries } from "./libraries.ts";

/** Where the shim mounts things, or where Lambda has a folder. */
const MOUNT_POINTS = ["proc", "sys", "dev", "tmp", "run", "mnt", "opt", "root", "home/sbx_user1051"].concat([
  "var/task",
  "var/runtime",
  "var/lang",
  "var/tmp",
]);
const PYTHON = "python3.11";
/** Parts of Debian's Python that Lambda's has not either: they only cost space and time. */
const PYTHON_EXCLUDED = ["test", "idlelib", "turtledemo", "ensurepip", "lib2to3/tests"];

/** Folder with the Debian packages that this image is made of. */
export function packageListOf(image: string): string {
  return join(ROOT, "images", "rootfs", image, "packages");
}

/** Files of ours that lie over the packages' in this image. */
export function overlayOf(image: string): string {
  return join(ROOT, "images", "rootfs", image, "overlay");
}

/** Copies our own files of an image over a tree. */
export async function applyOverlay(image: string, tree: string): Promise<void> {
  for (const file of await filesBelow(overlayOf(image))) {
    await mkdir(dirname(join(tree, file)), { recursive: true });
    await copyFile(join(overlayOf(image), file), join(tree, file));
  }
}

/** A tree of unpacked packages, kept from build to build under the digest of all that it is made from. */
export interface PackageTree {
  readonly path: string;
  /** File names of the packages, with their versions. */
  readonly packages: readonly string[];
}

/** Gives the tree of an image's packages, finished by `finish`; makes it when `digest` has none yet. */
export async function packageTree(
  image: string,
  digest: string,
  finish: (tree: string) => Promise<void>,
): Promise<PackageTree> {
  const folder = join(BUILD, "images", "trees");
  const path = join(folder, `${image}-${digest.slice(0, 16)}`);
  const listed = await readTextIfThere(`${path}.json`);
  if (listed !== undefined) return { path, packages: JSON.parse(listed) as string[] };
  const temporary = `${path}.tmp`;
  for (const name of await readdir(folder).catch(() => [])) {
    if (name.startsWith(`${image}-`)) await rm(join(folder, name), { recursive: true, force: true });
  }
  await mkdir(temporary, { recursive: true });
  const packages = await unpackPackages(await readPackageList(packageListOf(image)), temporary);
  await finish(temporary);
  await rename(temporary, path);
  await writeWhole(`${path}.json`, JSON.stringify(packages));
  return { path, packages };
}

/** What the maintainer scripts of the base's packages would have done, and Lambda's folders. */
export async function finishBase(tree: string): Promise<void> {
  for (const folder of MOUNT_POINTS) await mkdir(join(tree, folder), { recursive: true });
  await chmod(join(tree, "tmp"), 0o1777);
  await chmod(join(tree, "var/tmp"), 0o1777);
  await bundleCertificates(tree);
  await makeLocale(tree);
  await symlink("dash", join(tree, "usr/bin/sh")).catch(ignoreExisting);
  await symlink("mawk", join(tree, "usr/bin/awk")).catch(ignoreExisting);
  await symlink("/usr/share/zoneinfo/UTC", join(tree, "etc/localtime")).catch(ignoreExisting);
  // Its own configuration says where libraries lie; the cache saves the loader a search.
  await run("ldconfig", ["-r", tree]);
  await rm(join(tree, "var/cache/ldconfig"), { recursive: true, force: true });
  const missing = await findMissingLibraries([tree]);
  if (missing.length > 0) throw new Error(`the base image lacks libraries:\n${missing.join("\n")}`);
}

function ignoreExisting(error: NodeJS.ErrnoException): void {
  if (error.code !== "EEXIST") throw error;
}

/** As update-ca-certificates does: all of Mozilla's certificates in one file, where every TLS library looks. */
async function bundleCertificates(tree: string): Promise<void> {
  const source = join(tree, "usr/share/ca-certificates");
  const certificates: string[] = [];
  for (const file of await filesBelow(source)) {
    if (file.endsWith(".crt")) certificates.push((await readFile(join(source, file), "utf8")).trimEnd());
  }
  await mkdir(join(tree, "etc/ssl/certs"), { recursive: true });
  await writeFile(join(tree, "etc/ssl/certs/ca-certificates.crt"), `${certificates.join("\n")}\n`);
  await symlink("certs/ca-certificates.crt", join(tree, "etc/ssl/cert.pem")).catch(ignoreExisting);
  await mkdir(join(tree, "etc/pki/tls/certs"), { recursive: true });
  // Where Amazon Linux has it.
  await symlink("/etc/ssl/certs/ca-certificates.crt", join(tree, "etc/pki/tls/certs/ca-bundle.crt"));
}

/** en_US.UTF-8, which Lambda sets, is C.UTF-8 here but for collation and messages: the C locale's files under its name. */
async function makeLocale(tree: string): Promise<void> {
  await symlink("C.utf8", join(tree, "usr/lib/locale/en_US.utf8"));
}

/** Moves Debian's Python to Lambda's place, with the AWS SDK, and compiles it ahead. */
export async function finishPython(tree: string, base: string): Promise<void> {
  const lang = join(tree, "var/lang");
  const library = join(lang, "lib", PYTHON);
  await mkdir(join(lang, "bin"), { recursive: true });
  await rename(join(tree, "usr/bin", PYTHON), join(lang, "bin", PYTHON));
  await mkdir(dirname(library), { recursive: true });
  await rename(join(tree, "usr/lib", PYTHON), library);
  await rename(join(tree, "usr/lib/python3/dist-packages"), join(library, "site-packages"));
  // Debian's Python looks for modules in "dist-packages", pip and Lambda's layers use the usual name.
  await symlink("site-packages", join(library, "dist-packages"));
  for (const name of ["python3", "python"]) await symlink(PYTHON, join(lang, "bin", name));
  await symlink(`/var/lang/bin/${PYTHON}`, join(tree, "usr/bin", PYTHON));
  await symlink(`/var/lang/bin/${PYTHON}`, join(tree, "usr/bin/python3"));
  for (const part of PYTHON_EXCLUDED) await rm(join(library, part), { recursive: true, force: true });
  await rm(join(tree, "usr/share"), { recursive: true, force: true });
  await rm(join(tree, "usr/lib/python3"), { recursive: true, force: true });
  await rm(join(tree, "etc"), { recursive: true, force: true });
  for (const folder of ["bin", "sbin", "lib", "lib64"]) await rm(join(tree, folder));
  for (const folder of ["sbin", "lib64"]) await rm(join(tree, "usr", folder), { recursive: true, force: true });
  const missing = await findMissingLibraries([tree, base]);
  if (missing.length > 0) throw new Error(`the Python image lacks libraries:\n${missing.join("\n")}`);
  await compilePython(tree, base, "/var/lang/lib");
}

/**
 * Compiles modules with the image's own Python, so that the host needs none. "unchecked-hash": the
 * interpreter then takes the compiled file without a look at the source's date.
 */
export async function compilePython(
  tree: string,
  base: string,
  folder: string,
  options: readonly string[] = [],
): Promise<void> {
  const libraries = ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"];
  const path = [tree, base].flatMap((root) => libraries.map((folder) => join(root, folder))).join(":");
  const loader = join(base, "usr/lib64/ld-linux-x86-64.so.2");
  const python = ["--library-path", path, join(tree, "var/lang/bin", PYTHON)];
  const compile = ["-m", "compileall", "-q", "-f", "--invalidation-mode", "unchecked-hash", "-s", tree, "-p", "/"];
  await run(loader, [...python, ...compile, ...options, join(tree, folder)], {
    env: { PYTHONHOME: join(tree, "var/lang"), PYTHONHASHSEED: "0" },
  });
}

