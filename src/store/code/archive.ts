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
/** Hearth's own: directories above a file. The kernel walks all of them for every file that is made. */
const DEPTH_MAX = 128;

export interface ArchiveFile {
  readonly kind: "file" | "link";
  readonly mode: number;
  readonly entry: yauzl.Entry;
}

/** What an archive unpacks to: paths are relative, without `.` and `..`, separated by single slashes. */
export interface Archive {
  readonly zip: yauzl.ZipFile;
  readonly bytes: Buffer;
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

/** As much of a path as a message shows. */
const shown = (path: string): string => (path.length > NAME_BYTES_MAX ? `${path.slice(0, NAME_BYTES_MAX)}…` : path);

/** Path of an entry without `.` and empty segments; yauzl has refused `..`, absolute paths and backslashes by now. */
const pathOf = (fileName: string): string => {
  const segments = fileName.split("/").filter((segment) => segment !== "" && segment !== ".");
  const path = segments.join("/");
  if (fileName.includes("\0")) throw badArchive(`the entry ${JSON.stringify(shown(fileName))} has a NUL in its name`);
  if (segments.some((segment) => Buffer.byteLength(segment) > NAME_BYTES_MAX)) {
    throw badArchive(`the entry "${path.slice(0, NAME_BYTES_MAX)}…" has a name longer than ${NAME_BYTES_MAX} bytes`);
  }
  if (Buffer.byteLength(path) > PATH_BYTES_MAX) {
    throw badArchive(`the entry "${path.slice(0, NAME_BYTES_MAX)}…" has a path longer than ${PATH_BYTES_MAX} bytes`);
  }
  if (segments.length > DEPTH_MAX) {
    throw badArchive(
      `the entry "${shown(path)}" lies ${segments.length} levels deep; at most ${DEPTH_MAX} are allowed`,
    );
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

/** Nobody looks at extra fields and comments again, and of small ones there may be millions in an archive. */
const withoutExtras = (entry: yauzl.Entry): yauzl.Entry => {
  entry.extraFields.length = 0;
  return entry;
};

const readEntries = async (
  zip: yauzl.ZipFile,
): Promise<{ files: Map<string, ArchiveFile>; listed: Map<string, number> }> => {
  const files = new Map<string, ArchiveFile>();
  const listed = new Map<string, number>();
  if (zip.entryCount > ZIP_ENTRIES_MAX) {
    throw badArchive(`the archive has ${zip.entryCount} entries; at most ${ZIP_ENTRIES_MAX} are allowed`);
  }
  let compressedBytes = 0;
  for await (const entry of zip.eachEntry()) {
    compressedBytes += entry.compressedSize;
    if (compressedBytes > zip.fileSize) {
      throw badArchive("its entries overlap: together they are larger than the archive");
    }
    const path = pathOf(entry.fileName);
    if (path === "") continue;
    const kind = kindOf(entry, path);
    checkEntry(entry, path, kind);
    const mode = modeOf(entry, kind);
    // Of entries with the same name the last one wins, as with unzip.
    files.delete(path);
    listed.delete(path);
    if (kind === "directory") listed.set(path, mode);
    else files.set(path, { kind, mode, entry: withoutExtras(entry) });
  }
  return { files, listed };
};

/** A name in the tree that an archive unpacks to. */
interface Node {
  /** The directory's permissions where the archive lists it. */
  mode: number | null;
  /** What stands here when it is no directory. */
  file: ArchiveFile | null;
  readonly below: Map<string, Node>;
}

const newNode = (): Node => ({ mode: null, file: null, below: new Map() });

/**
 * Puts every path into one tree, segment by segment: each byte of a name is looked at once, however deep the names are
 * and however much they have in common. Throws when a file stands where a directory is needed, and for too large a tree.
 */
const treeOf = (files: ReadonlyMap<string, ArchiveFile>, listed: ReadonlyMap<string, number>): Node => {
  const root = newNode();
  let nodes = 0;
  const place = (path: string): Node => {
    let at = root;
    const segments = path.split("/");
    for (const [depth, segment] of segments.entries()) {
      if (at.file !== null) throw belowFile(path, segments.slice(0, depth).join("/"));
      let next = at.below.get(segment);
      if (next === undefined) {
        nodes += 1;
        if (nodes > ZIP_ENTRIES_MAX) {
          throw badArchive(`the archive unpacks to more than ${ZIP_ENTRIES_MAX} files and directories`);
        }
        next = newNode();
        at.below.set(segment, next);
      }
      at = next;
    }
    return at;
  };
  for (const [path, mode] of listed) place(path).mode = mode;
  for (const [path, file] of files) {
    const node = place(path);
    const [child] = node.below.keys();
    if (child !== undefined) throw belowFile(`${path}/${child}`, path);
    node.file = file;
  }
  return root;
};

const belowFile = (path: string, file: string): ServiceError =>
  badArchive(`the entry "${shown(path)}" lies below "${shown(file)}", which is no directory`);

/** Every directory that files and directories stand in, with its permissions, parents first. */
const directoriesOf = (root: Node): Map<string, number> => {
  const directories = new Map<string, number>();
  const pending: { readonly path: string; readonly node: Node }[] = [{ path: "", node: root }];
  for (let next = pending.pop(); next !== undefined; next = pending.pop()) {
    const { path, node } = next;
    if (path !== "") directories.set(path, node.mode ?? DIRECTORY_MODE_DEFAULT);
    for (const [segment, below] of node.below) {
      if (below.file === null) pending.push({ path: path === "" ? segment : `${path}/${segment}`, node: below });
    }
  }
  return directories;
};

/** Throws for an archive that is empty or larger than Lambda takes. */
export const checkSize = (bytes: Uint8Array): void => {
  if (bytes.byteLength === 0) throw emptyArchive();
  if (bytes.byteLength > ZIP_BYTES_MAX) {
    throw new ServiceError(
      "RequestEntityTooLargeException",
      413,
      `Zipped size must be smaller than ${ZIP_BYTES_MAX} bytes`,
    );
  }
};

/**
 * Reads an archive's directory and checks all that can be checked without unpacking. Throws
 * InvalidParameterValueException (or RequestEntityTooLargeException) with Lambda's texts.
 */
export const readArchive = async (bytes: Uint8Array): Promise<Archive> => {
  checkSize(bytes);
  try {
    const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const zip = await yauzl.fromBufferPromise(buffer, { lazyEntries: true, strictFileNames: true });
    const { files, listed } = await readEntries(zip);
    if (files.size === 0) throw emptyArchive();
    let unzippedBytes = 0;
    for (const file of files.values()) unzippedBytes += file.entry.uncompressedSize;
    if (unzippedBytes > UNZIPPED_BYTES_MAX) throw tooLargeUnzipped();
    return { zip, bytes: buffer, files, directories: directoriesOf(treeOf(files, listed)), unzippedBytes };
  } catch (error) {
    if (error instanceof ServiceError) throw error;
    const message = error instanceof Error ? error.message : String(error);
    const notAZip = /end of central directory/i.test(message);
    throw badArchive(notAZip ? undefined : message, error);
  }
};
