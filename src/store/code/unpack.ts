import { chmodSync, closeSync, fchmodSync, mkdirSync, openSync, symlinkSync, writeFileSync } from "node:fs";
import { join, posix } from "node:path";
import { crc32, inflateRawSync } from "node:zlib";
import { ServiceError } from "../../wire/errors.ts";
import { badArchive } from "./archive.ts";
import type { Archive, ArchiveFile } from "./archive.ts";

/** Entries up to this size are decompressed in one call; larger ones in pieces, so that memory stays bounded. */
const AT_ONCE_BYTES_MAX: number = 1024 * 1024;

/** The local header of an entry ("4.3.7 Local file header" of PKWARE's APPNOTE.TXT). */
const LOCAL_SIGNATURE = 0x04034b50;
const LOCAL_HEADER_BYTES = 30;
const LOCAL_NAME_LENGTH_AT = 26;
const LOCAL_EXTRA_LENGTH_AT = 28;
const METHOD_DEFLATE = 8;

/** The entry's bytes as they stand in the archive. */
const storedBytes = (archive: Archive, path: string, { entry }: ArchiveFile): Buffer => {
  const { bytes } = archive;
  const headerAt = entry.relativeOffsetOfLocalHeader;
  if (headerAt + LOCAL_HEADER_BYTES > bytes.length || bytes.readUInt32LE(headerAt) !== LOCAL_SIGNATURE) {
    throw badArchive(`the entry "${path}" has no header of its own`);
  }
  const nameBytes = bytes.readUInt16LE(headerAt + LOCAL_NAME_LENGTH_AT);
  const extraBytes = bytes.readUInt16LE(headerAt + LOCAL_EXTRA_LENGTH_AT);
  const start = headerAt + LOCAL_HEADER_BYTES + nameBytes + extraBytes;
  if (start + entry.compressedSize > bytes.length) throw badArchive(`the entry "${path}" is cut off`);
  return bytes.subarray(start, start + entry.compressedSize);
};

const atOnce = (archive: Archive, path: string, file: ArchiveFile): Buffer => {
  const stored = storedBytes(archive, path, file);
  const { compressionMethod, uncompressedSize } = file.entry;
  if (compressionMethod !== METHOD_DEFLATE) return stored;
  try {
    // One more than declared may come out, to tell that there was more; zlib wants at least 1.
    return inflateRawSync(stored, { maxOutputLength: uncompressedSize + 1 });
  } catch (error) {
    const tooMany = error instanceof Error && "code" in error && error.code === "ERR_BUFFER_TOO_LARGE";
    throw tooMany ? badSize(path, uncompressedSize) : error;
  }
};

const badSize = (path: string, declared: number): ServiceError =>
  badArchive(`the entry "${path}" holds too many bytes or too few: ${declared} are declared`);

/** The entry's bytes in pieces; throws when there are more or fewer than declared, or their checksum is another. */
async function* contents(archive: Archive, path: string, file: ArchiveFile): AsyncGenerator<Buffer> {
  const { uncompressedSize } = file.entry;
  const small = uncompressedSize <= AT_ONCE_BYTES_MAX && file.entry.compressedSize <= AT_ONCE_BYTES_MAX;
  const pieces = small ? [atOnce(archive, path, file)] : await archive.zip.openReadStreamPromise(file.entry);
  let checksum = 0;
  let size = 0;
  for await (const chunk of pieces) {
    if (!Buffer.isBuffer(chunk)) throw new TypeError("A zip entry's stream gave no bytes");
    checksum = crc32(chunk, checksum);
    size += chunk.length;
    yield chunk;
  }
  if (size !== uncompressedSize) throw badSize(path, uncompressedSize);
  if (checksum !== file.entry.crc32) throw badArchive(`the entry "${path}" is damaged: its checksum differs`);
}

const writeFile = async (archive: Archive, path: string, file: ArchiveFile, target: string): Promise<void> => {
  // wx: nothing exists there yet, so nothing that an archive holds can redirect the write.
  const descriptor = openSync(target, "wx", 0o600);
  try {
    for await (const chunk of contents(archive, path, file)) writeFileSync(descriptor, chunk);
    fchmodSync(descriptor, file.mode);
  } finally {
    closeSync(descriptor);
  }
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
  for (const path of archive.directories.keys()) mkdirSync(join(directory, path), { mode: 0o700 });
  for (const [path, file] of archive.files) {
    if (file.kind === "file") await writeFile(archive, path, file, join(directory, path));
  }
  // Links last: while files are written there is none that could lead elsewhere.
  for (const [path, file] of archive.files) {
    if (file.kind === "link") symlinkSync(await readLink(archive, path, file), join(directory, path));
  }
  // Children first: a directory may end up without the right to write.
  for (const [path, mode] of [...archive.directories].reverse()) chmodSync(join(directory, path), mode);
};

/**
 * Unpacks a checked archive into an empty directory that only its owner can enter. Symbolic links are kept when
 * they stay inside. Blocks its thread while it writes: it belongs on one of its own (`code-thread.ts`). Throws InvalidParameterValueException when an entry is damaged or leads outside.
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
