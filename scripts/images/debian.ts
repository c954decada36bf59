import { mkdir, readdir, readFile, symlink } from "node:fs/promises";
import { join } from "node:path";
import { run, temporaryFolder } from "../support.ts";

/** Parts of a package that no function needs. */
const EXCLUDED = [
  "usr/share/doc",
  "usr/share/doc-base",
  "usr/share/info",
  "usr/share/lintian",
  "usr/share/man",
  "usr/share/locale",
  "usr/share/bug",
  "usr/share/menu",
];

/** Top-level folders that are links into /usr ("merged /usr", as Debian 12 and Amazon Linux have it). */
const MERGED_FOLDERS = ["bin", "sbin", "lib", "lib64"];

/** One line of a package list: names, `#` begins a comment. */
export async function readPackageList(path: string): Promise<string[]> {
  const text = await readFile(path, "utf8");
  return text
    .split("\n")
    .map((line) => line.replace(/#.*/, "").trim())
    .filter((line) => line !== "");
}

/**
 * Downloads packages and unpacks them into one tree; nothing is installed, no maintainer script runs.
 * Resolves to the packages' file names, which carry their versions.
 */
export async function unpackPackages(packages: readonly string[], tree: string): Promise<string[]> {
  await mkMergedUsr(tree);
  await using download = await temporaryFolder("debs");
  await downloadPackages(packages, download.path);
  const files = (await readdir(download.path)).filter((name) => name.endsWith(".deb")).toSorted();
  const excludes = EXCLUDED.map((path) => `--exclude=./${path}`);
  for (const file of files) {
    // dpkg-deb's own extraction would replace the links of the merged /usr by folders.
    const archive = join(download.path, `${file}.tar`);
    await run("sh", ["-c", 'dpkg-deb --fsys-tarfile "$1" > "$2"', "sh", join(download.path, file), archive]);
    await run("tar", ["-x", "--keep-directory-symlink", "--no-same-owner", ...excludes, "-C", tree, "-f", archive]);
    await run("rm", [archive]);
  }
  return files;
}

async function mkMergedUsr(tree: string): Promise<void> {
  for (const folder of MERGED_FOLDERS) {
    await mkdir(join(tree, "usr", folder), { recursive: true });
    await symlink(`usr/${folder}`, join(tree, folder));
  }
}

/** Downloads into a folder. A machine whose package lists are stale or empty gets them once. */
export async function downloadPackages(
  packages: readonly string[],
  folder: string,
  aptOptions: readonly string[] = [],
): Promise<void> {
  const options = ["-q", "-o", "APT::Sandbox::User=root", ...aptOptions];
  const download = (): Promise<string> => run("apt-get", [...options, "download", ...packages], { cwd: folder });
  try {
    await download();
  } catch (error) {
    if (process.getuid?.() !== 0) {
      throw new Error(`${String(error)}\nRun "apt-get update" as root and try again.`, { cause: error });
    }
    await run("apt-get", [...options, "update"]);
    await download();
  }
}
