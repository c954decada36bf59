import { createHash } from "node:crypto";
import { createReadStream, existsSync } from "node:fs";
import { mkdtemp, open, readdir, rename, rm, stat } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { createZstdCompress } from "node:zlib";
import { syncPath } from "../code/durable-files.ts";
import { assertNotForgotten, StoreOpenError } from "../data-directory.ts";
import type { FunctionRecord } from "../store.ts";
import { inspectDatabase, lostText } from "../sqlite/open.ts";
import { packTar } from "./tar.ts";
import type { Packed } from "./tar.ts";

export const MANIFEST = "manifest.json";
export const BACKUP_FORMAT = 1;

/** What a backup says of itself, as the last file in it. */
export interface Manifest {
  readonly format: number;
  /** Hearth's version. */
  readonly hearth: string;
  /** ISO 8601. */
  readonly madeAt: string;
  /** Schema version of the database. */
  readonly schema: number;
  readonly functions: number;
  readonly versions: number;
  readonly events: number;
  /** Whether the keys of environment variables and of the API are inside: then the file is as secret as they are. */
  readonly keys: boolean;
  /** Code that records name and that could not be found, or not in the form it was uploaded in. */
  readonly missing: readonly string[];
  readonly files: readonly { readonly name: string; readonly bytes: number; readonly sha256: string }[];
}

export interface BackupOptions {
  readonly dataDir: string;
  readonly file: string;
  readonly keys: boolean;
  readonly hearth: string;
  /** Unix ms. */
  readonly nowMs: number;
}

/** Reads a file and writes down what it read. */
class Ledger {
  readonly files: Manifest["files"][number][] = [];

  async pack(name: string, path: string): Promise<Packed> {
    const { size } = await stat(path);
    return { name, bytes: size, content: this.#read(name, path) };
  }

  async *#read(name: string, path: string): AsyncGenerator<Buffer> {
    const hash = createHash("sha256");
    let bytes = 0;
    for await (const chunk of createReadStream(path) as AsyncIterable<Buffer>) {
      hash.update(chunk);
      bytes += chunk.length;
      yield chunk;
    }
    const sha256 = hash.digest("hex");
    const digest = /^code\/(?<digest>[0-9a-f]{64})\.zip$/.exec(name)?.groups?.["digest"];
    if (digest !== undefined && digest !== sha256) {
      throw new StoreOpenError(`The archive ${path} is damaged. Run \`hearth check\`; no backup was made.`);
    }
    this.files.push({ name, bytes, sha256 });
  }
}

/** Digests of the code and layers that records name. */
const digestsIn = (database: DatabaseSync): Set<string> => {
  const digests = new Set<string>();
  for (const { record } of database.prepare("SELECT record FROM versions").iterate()) {
    for (const digest of digestsOf(String(record))) digests.add(digest);
  }
  return digests;
};

const digestsOf = (record: string): readonly string[] => {
  try {
    const { code, layers } = JSON.parse(record) as Pick<FunctionRecord, "code" | "layers">;
    return [code, ...layers].map(({ digest }) => digest);
  } catch {
    // A damaged record may name whatever stands in it.
    return record.match(/\b[0-9a-f]{64}\b/g) ?? [];
  }
};

const count = (database: DatabaseSync, table: string): number =>
  Number(database.prepare(`SELECT count(*) AS n FROM ${table}`).get()?.["n"]);

/** Where code lies, as archive or, when only that is left, as image; null when it is nowhere. */
const findCode = (dataDir: string, digest: string): { readonly name: string; readonly path: string } | null => {
  // The trash last: what is named has been thrown away only if its function was deleted meanwhile.
  for (const [folder, ending] of [
    ["code", "zip"],
    ["trash", "zip"],
    ["code", "erofs"],
  ] as const) {
    const path = join(dataDir, folder, `${digest}.${ending}`);
    if (existsSync(path)) return { name: `code/${digest}.${ending}`, path };
  }
  return null;
};

const secretFiles = async (dataDir: string): Promise<{ readonly name: string; readonly path: string }[]> => {
  const keys = existsSync(join(dataDir, "keys")) ? await readdir(join(dataDir, "keys")) : [];
  const names = ["credentials", ...keys.filter((name) => name.endsWith(".key")).map((name) => `keys/${name}`)];
  return names.map((name) => ({ name, path: join(dataDir, name) })).filter(({ path }) => existsSync(path));
};

/** Copies the database as it is at one moment, whoever writes to it meanwhile. */
const copyDatabase = (dataDir: string, copy: string): void => {
  const path = join(dataDir, "hearth.db");
  assertNotForgotten(path);
  if (!existsSync(path)) throw new StoreOpenError(`There is no database in ${dataDir}.`);
  const { commitsLost } = inspectDatabase(path);
  if (commitsLost > 0)
    throw new StoreOpenError(`${lostText(path, commitsLost)} No backup was made; run \`hearth check\`.`);
  const database = new DatabaseSync(path, { readOnly: true });
  try {
    database.exec("PRAGMA busy_timeout = 5000");
    database.prepare("VACUUM INTO ?").run(copy);
  } finally {
    database.close();
  }
};

/**
 * Writes a backup of a data directory, which may be in use: records, events and tags as they are at one moment, and the
 * code that they name. The file is whole or not there at all. Throws StoreOpenError for a directory that is damaged: a
 * backup of that would be taken for a good one.
 */
export const writeBackup = async (options: BackupOptions): Promise<Manifest> => {
  const { dataDir, file, nowMs } = options;
  const work = await mkdtemp(join(dirname(file), ".hearth-backup-"));
  try {
    const copy = join(work, "hearth.db");
    copyDatabase(dataDir, copy);
    using stack = new DisposableStack();
    const database = stack.adopt(new DatabaseSync(copy, { readOnly: true }), (opened) => opened.close());
    const ledger = new Ledger();
    const missing: string[] = [];
    let manifest: Manifest | null = null;
    const files = async function* files(): AsyncGenerator<Packed> {
      yield await ledger.pack("hearth.db", copy);
      for (const digest of digestsIn(database)) {
        const found = findCode(dataDir, digest);
        if (found === null || !found.name.endsWith(".zip")) missing.push(digest);
        if (found !== null) yield await ledger.pack(found.name, found.path);
      }
      if (options.keys) for (const { name, path } of await secretFiles(dataDir)) yield await ledger.pack(name, path);
      manifest = manifestOf(options, database, ledger, missing);
      const text = Buffer.from(`${JSON.stringify(manifest, null, 1)}\n`);
      yield {
        name: MANIFEST,
        bytes: text.length,
        content: (async function* content() {
          yield text;
        })(),
      };
    };
    const partial = join(work, basename(file));
    await writeWhole(partial, packTar(files(), nowMs), file.endsWith(".zst"));
    await rename(partial, file);
    await syncPath(dirname(file));
    if (manifest === null) throw new Error("A backup without a manifest was written");
    return manifest;
  } finally {
    await rm(work, { recursive: true, force: true });
  }
};

const manifestOf = (
  { hearth, nowMs, keys }: BackupOptions,
  database: DatabaseSync,
  ledger: Ledger,
  missing: readonly string[],
): Manifest => ({
  format: BACKUP_FORMAT,
  hearth,
  madeAt: new Date(nowMs).toISOString(),
  schema: Number(database.prepare("PRAGMA user_version").get()?.["user_version"]),
  functions: count(database, "functions"),
  versions: count(database, "versions"),
  events: count(database, "events"),
  keys,
  missing,
  files: [...ledger.files],
});

const writeWhole = async (path: string, chunks: AsyncIterable<Buffer>, compressed: boolean): Promise<void> => {
  await using handle = await open(path, "wx", 0o600);
  const stream = compressed ? compress(chunks) : chunks;
  for await (const chunk of stream) await handle.writeFile(chunk);
  await handle.sync();
};

async function* compress(chunks: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
  const { Readable } = await import("node:stream");
  yield* Readable.from(chunks).compose(createZstdCompress()) as AsyncIterable<Buffer>;
}
