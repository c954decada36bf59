import { chmod, mkdir, open, symlink } from "node:fs/promises";
import { join, posix } from "node:path";
import { crc32 } from "node:zlib";
import { ServiceError } from "../../wire/errors.ts";
import { badArchive } from "./archive.ts";
import type { Archive, ArchiveFile } from "./archive.ts";

/** The entry's bytes in pieces; throws when there are more or fewer than declared, or their checksum is another. */
async function* contents(archive: Archive, path: string, file: ArchiveFile): AsyncGenerator<Buffer> {
  const stream = await archive.zip.openReadStreamPromise(file.entry);
  let checksum = 0;
  for await (const chunk of stream) {
    if (!Buffer.isBuffer(chunk)) throw new TypeError("A zip entry's stream gave no bytes");
    checksum = crc32(chunk, checksum);
    yield chunk;
  }
  if (checksum !== file.entry.crc32) throw badArchive(`the entry "${path}" is damaged: its checksum differs`);
}

const writeFile = async (archive: Archive, path: string, file: ArchiveFile, target: string): Promise<void> => {
  // wx: nothing exists there yet, so nothing that an archive holds can redirect the write.
  await using handle = await open(target, "wx", 0o600);
  for await (const chunk of contents(archive, path, file)) await handle.writeFile(chunk);
  await handle.chmod(file.mode);
};

const readLink = async (archive: Archive, path: string, file: ArchiveFile): Promise<string> => {
  const chunks: Buffer[] = [];
  for await (const chunk of contents(archive, path, file)) chunks.push(chunk);
  const target = Buffer.concat(chunks).toString("utf8");
  const resolved = posix.normalize(posix.join(posix.dirname(path), target));
  const outside = posix.isAbsolute(target) || resolved === ".." || resolved.startsWith("../");
  if (target === "" || target.includes("\0") || outside) {
    throw badArchive(`the symbolic link "${path}" leads outside the archive, to ${JSON.stringify(target)}`);
  }
  return target;
};

const unpackAll = async (archive: Archive, directory: string): Promise<void> => {
  for (const path of archive.directories.keys()) await mkdir(join(directory, path), { mode: 0o700 });
  for (const [path, file] of archive.files) {
    if (file.kind === "file") await writeFile(archive, path, file, join(directory, path));
  }
  // Links last: while files are written there is none that could lead elsewhere.
  for (const [path, file] of archive.files) {
    if (file.kind === "link") await symlink(await readLink(archive, path, file), join(directory, path));
  }
  // Children first: a directory may end up without the right to write.
  for (const [path, mode] of [...archive.directories].reverse()) await chmod(join(directory, path), mode);
};

/**
 * Unpacks a checked archive into an empty directory that only its owner can enter. Symbolic links are kept when
 * they stay inside. Throws InvalidParameterValueException when an entry is damaged or leads outside.
 */
export const unpack = async (archive: Archive, directory: string): Promise<void> => {
  try {
    await unpackAll(archive, directory);
  } catch (error) {
    if (error instanceof ServiceError) throw error;
    // Errors of the file system are the host's; all others come from reading the archive.
    if (error instanceof Error && "syscall" in error) throw error;
    throw badArchive(error instanceof Error ? error.message : String(error), error);
  }
};
