import * as yauzl from "yauzl";
import { invalidParameter, ServiceError } from "../../wire/errors.ts";
import { UNZIPPED_BYTES_MAX, ZIP_BYTES_MAX, ZIP_ENTRIES_MAX } from "../../wire/limits.ts";

/** Unix file types and permissions, in the upper half of an entry's external attributes (stat(2)). */
const TYPE_MASK = 0o170000;
const TYPE_FILE = 0o100000;
const TYPE_DIRECTORY = 0o040000;
const TYPE_LINK = 0o120000;
const PERMISSIONS_MASK = 0o777;
const FILE_MODE_DEFAULT = 0o644;
const DIRECTORY_MODE_DEFAULT = 0o755;
/** Linux's limits of one name and of a path, less room for the directory it is unpacked in. */
const NAME_BYTES_MAX = 255;
const PATH_BYTES_MAX = 3_072;
const LINK_BYTES_MAX = 4_095;

export interface ArchiveFile {
  readonly kind: "file" | "link";
  readonly mode: number;
  readonly entry: yauzl.Entry;
}

/** What an archive unpacks to: paths are relative, without `.` and `..`, separated by single slashes. */
export interface Archive {
  readonly zip: yauzl.ZipFile;
  /** Permissions by path, parents before children. */
  readonly directories: ReadonlyMap<string, number>;
  readonly files: ReadonlyMap<string, ArchiveFile>;
  readonly unzippedBytes: number;
}

/** Lambda's sentence for every archive it cannot unpack, with the reason where there is more to say. */
export const badArchive = (why?: string, cause?: unknown): ServiceError =>
  new ServiceError(
    "InvalidParameterValueException",
    400,
    `Could not unzip uploaded file. Please check your file, then try to upload again.${why === undefined ? "" : ` (${why})`}`,
    { Type: "User" },
    cause,
  );

const emptyArchive = (): ServiceError => invalidParameter("Uploaded file must be a non-empty zip");

const tooLargeUnzipped = (): ServiceError =>
  invalidParameter(`Unzipped size must be smaller than ${UNZIPPED_BYTES_MAX} bytes`);

/** Path of an entry without `.` and empty segments; yauzl has refused `..`, absolute paths and backslashes by now. */
const pathOf = (fileName: string): string => {
  const segments = fileName.split("/").filter((segment) => segment !== "" && segment !== ".");
  const path = segments.join("/");
  if (fileName.includes("\0")) throw badArchive(`the entry ${JSON.stringify(fileName)} has a NUL in its name`);
  if (segments.some((segment) => Buffer.byteLength(segment) > NAME_BYTES_MAX)) {
    throw badArchive(`the entry "${path.slice(0, NAME_BYTES_MAX)}…" has a name longer than ${NAME_BYTES_MAX} bytes`);
  }
  if (Buffer.byteLength(path) > PATH_BYTES_MAX) {
    throw badArchive(`the entry "${path.slice(0, NAME_BYTES_MAX)}…" has a path longer than ${PATH_BYTES_MAX} bytes`);
  }
  return path;
};

const kindOf = (entry: yauzl.Entry, path: string): "file" | "link" | "directory" => {
  const type = (entry.externalFileAttributes >>> 16) & TYPE_MASK;
  if (entry.fileName.endsWith("/")) return "directory";
  if (type === 0 || type === TYPE_FILE) return "file";
  if (type === TYPE_DIRECTORY) return "directory";
  if (type === TYPE_LINK) return "link";
  throw badArchive(`the entry "${path}" is a device, pipe or socket`);
};

/** As stored, and readable at least for root, who owns everything. */
const modeOf = (entry: yauzl.Entry, kind: "file" | "link" | "directory"): number => {
  const stored = (entry.externalFileAttributes >>> 16) & PERMISSIONS_MASK;
  if (kind === "directory") return stored === 0 ? DIRECTORY_MODE_DEFAULT : stored | 0o500;
  return stored === 0 ? FILE_MODE_DEFAULT : stored | 0o400;
};

const checkEntry = (entry: yauzl.Entry, path: string, kind: "file" | "link" | "directory"): void => {
  if (entry.isEncrypted()) throw badArchive(`the entry "${path}" is encrypted`);
  if (kind !== "directory" && !entry.canDecodeFileData()) {
    throw badArchive(`the entry "${path}" uses compression method ${entry.compressionMethod}; use deflate or none`);
  }
  if (kind === "link" && entry.uncompressedSize > LINK_BYTES_MAX) {
    throw badArchive(`the symbolic link "${path}" has a target longer than ${LINK_BYTES_MAX} bytes`);
  }
};

const readEntries = async (
  zip: yauzl.ZipFile,
): Promise<{ files: Map<string, ArchiveFile>; listed: Map<string, number> }> => {
  const files = new Map<string, ArchiveFile>();
  const listed = new Map<string, number>();
  if (zip.entryCount > ZIP_ENTRIES_MAX) {
    throw badArchive(`the archive has ${zip.entryCount} entries; at most ${ZIP_ENTRIES_MAX} are allowed`);
  }
  for await (const entry of zip.eachEntry()) {
    const path = pathOf(entry.fileName);
    if (path === "") continue;
    const kind = kindOf(entry, path);
    checkEntry(entry, path, kind);
    const mode = modeOf(entry, kind);
    // Of entries with the same name the last one wins, as with unzip.
    files.delete(path);
    listed.delete(path);
    if (kind === "directory") listed.set(path, mode);
    else files.set(path, { kind, mode, entry });
  }
  return { files, listed };
};

/** Every directory that files and directories stand in, parents first. Throws when a file stands where one is needed. */
const directoriesOf = (
  files: ReadonlyMap<string, ArchiveFile>,
  listed: ReadonlyMap<string, number>,
): Map<string, number> => {
  const all = new Set(listed.keys());
  for (const path of [...files.keys(), ...listed.keys()]) {
    for (let at = path.lastIndexOf("/"); at > 0; at = path.lastIndexOf("/", at - 1)) {
      const parent = path.slice(0, at);
      if (files.has(parent)) throw badArchive(`the entry "${path}" lies below "${parent}", which is no directory`);
      if (all.has(parent) && !listed.has(parent)) break;
      all.add(parent);
    }
  }
  // A parent is a prefix of its children, so plain order puts it first.
  return new Map(
    [...all].sort((a, b) => (a < b ? -1 : 1)).map((path) => [path, listed.get(path) ?? DIRECTORY_MODE_DEFAULT]),
  );
};

/**
 * Reads an archive's directory and checks all that can be checked without unpacking. Throws
 * InvalidParameterValueException (or RequestEntityTooLargeException) with Lambda's texts.
 */
export const readArchive = async (bytes: Uint8Array): Promise<Archive> => {
  if (bytes.byteLength === 0) throw emptyArchive();
  if (bytes.byteLength > ZIP_BYTES_MAX) {
    throw new ServiceError(
      "RequestEntityTooLargeException",
      413,
      `Zipped size must be smaller than ${ZIP_BYTES_MAX} bytes`,
    );
  }
  try {
    const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const zip = await yauzl.fromBufferPromise(buffer, { lazyEntries: true, strictFileNames: true });
    const { files, listed } = await readEntries(zip);
    if (files.size === 0) throw emptyArchive();
    let unzippedBytes = 0;
    for (const file of files.values()) unzippedBytes += file.entry.uncompressedSize;
    if (unzippedBytes > UNZIPPED_BYTES_MAX) throw tooLargeUnzipped();
    return { zip, files, directories: directoriesOf(files, listed), unzippedBytes };
  } catch (error) {
    if (error instanceof ServiceError) throw error;
    const message = error instanceof Error ? error.message : String(error);
    const notAZip = /end of central directory/i.test(message);
    throw badArchive(notAZip ? undefined : message, error);
  }
};
