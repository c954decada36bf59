import { createHash } from "node:crypto";
import { createReadStream, existsSync, readdirSync } from "node:fs";
import { mkdir, open, readFile, rename, rm, rmdir } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { createZstdDecompress } from "node:zlib";
import { makeDirectory } from "../../lib/files.ts";
import { syncPath } from "../code/durable-files.ts";
import { StoreOpenError } from "../data-directory.ts";
import { inspectDatabase } from "../sqlite/open.ts";
import { BACKUP_FORMAT, MANIFEST } from "./backup.ts";
import type { Manifest } from "./backup.ts";
import { TarError, unpackTar } from "./tar.ts";

/** Names that a backup may hold: nothing else is written, wherever it came from. */
const NAMES =
  /^(?:hearth\.db|credentials|manifest\.json|keys\/environment-[0-9a-f]{8}\.key|code\/[0-9a-f]{64}\.(?:zip|erofs))$/;
const ZSTD_MAGIC: Buffer = Buffer.from([0x28, 0xb5, 0x2f, 0xfd]);
const READ_ONLY = 0o444;
const OWNER_ONLY = 0o600;

const isCompressed = async (file: string): Promise<boolean> => {
  await using handle = await open(file, "r");
  const { buffer, bytesRead } = await handle.read(Buffer.alloc(ZSTD_MAGIC.length), 0, ZSTD_MAGIC.length, 0);
  return buffer.subarray(0, bytesRead).equals(ZSTD_MAGIC);
};

const chunksOf = async (file: string): Promise<AsyncIterable<Buffer>> => {
  const stored = createReadStream(file);
  if (!(await isCompressed(file))) return stored;
  const chunks = createZstdDecompress();
  stored.on("error", (error) => chunks.destroy(error)).pipe(chunks);
  // Whoever reads hears of it; when nobody reads any more, nobody needs to.
  chunks.on("error", () => undefined);
  return chunks;
};

const bad = (file: string, why: string, cause?: unknown): StoreOpenError =>
  new StoreOpenError(`${file} is no whole backup: ${why}. Nothing was restored.`, { cause });

/** Unpacks a backup into an empty directory, and returns the SHA-256 of every file by its name. */
const unpack = async (file: string, directory: string): Promise<Map<string, string>> => {
  const sums = new Map<string, string>();
  for (const folder of ["code", "keys"]) await mkdir(join(directory, folder), { recursive: true, mode: 0o700 });
  await unpackTar(await chunksOf(file), async (name, _bytes, content) => {
    if (!NAMES.test(name) || sums.has(name)) throw new TarError(`it holds ${JSON.stringify(name)}`);
    const hash = createHash("sha256");
    await using handle = await open(join(directory, name), "wx", name.startsWith("code/") ? READ_ONLY : OWNER_ONLY);
    for await (const chunk of content) {
      hash.update(chunk);
      await handle.writeFile(chunk);
    }
    await handle.sync();
    sums.set(name, hash.digest("hex"));
  });
  return sums;
};

const readManifest = async (path: string): Promise<Manifest> => JSON.parse(await readFile(path, "utf8")) as Manifest;

/** Throws when what was unpacked is not what the manifest says. */
const verify = (file: string, manifest: Manifest, sums: ReadonlyMap<string, string>): void => {
  if (manifest.format !== BACKUP_FORMAT) {
    throw bad(file, `its format is ${String(manifest.format)}, and this Hearth reads ${BACKUP_FORMAT}`);
  }
  if (manifest.files.length !== sums.size - 1) {
    throw bad(file, `it names ${manifest.files.length} files and holds ${sums.size - 1}`);
  }
  for (const { name, sha256 } of manifest.files) {
    if (sums.get(name) !== sha256) throw bad(file, `${name} in it is ${sums.has(name) ? "damaged" : "missing"}`);
  }
};

/**
 * Restores a backup into a data directory that does not exist yet, or is empty. All of it is unpacked and compared with
 * its checksums in a directory beside, which then becomes the data directory in one step. Throws StoreOpenError.
 */
export const restoreBackup = async (file: string, dataDir: string): Promise<Manifest> => {
  const target = resolve(dataDir);
  if (existsSync(target) && readdirSync(target).length > 0) {
    throw new StoreOpenError(
      `The data directory ${target} is not empty. Restore into an empty one (--data-dir), or move it away first.`,
    );
  }
  const work = `${target}.restoring`;
  makeDirectory(dirname(work), 0o711);
  // Not looked for first: of two restores at the same moment only one makes it.
  await mkdir(work, { mode: 0o711 }).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== "EEXIST") throw error;
    throw new StoreOpenError(
      `${work} is left over from another restore, or one is under way. Remove it, then try again.`,
    );
  });
  try {
    const sums = await unpack(file, work).catch((error: unknown) => {
      const foreign =
        error instanceof TarError || (error instanceof Error && "code" in error && String(error.code).startsWith("Z"));
      throw foreign ? bad(file, error instanceof Error ? error.message : String(error), error) : error;
    });
    if (!sums.has(MANIFEST)) throw bad(file, "it has no manifest");
    const manifest = await readManifest(join(work, MANIFEST)).catch((error: unknown) => {
      throw bad(file, "its manifest is damaged", error);
    });
    verify(file, manifest, sums);
    inspectDatabase(join(work, "hearth.db"));
    await rm(join(work, MANIFEST));
    if (existsSync(target)) await rmdir(target);
    await rename(work, target);
    await syncPath(dirname(target));
    return manifest;
  } finally {
    await rm(work, { recursive: true, force: true });
  }
};
