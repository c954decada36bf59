import { createHash } from "node:crypto";
import { existsSync, rmSync, statSync } from "node:fs";
import { chmod, mkdir, mkdtemp, readdir, readFile, rm, stat, utimes, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { Clock } from "../../lib/clock.ts";
import type { Digest } from "../../wire/function.ts";
import { CODE_KEEP_MS } from "../../wire/limits.ts";
import type { CodeImage, CodeStore } from "../code.ts";
import { readArchive } from "./archive.ts";
import { moveIntoPlace } from "./durable-files.ts";
import { makeImage } from "./image.ts";
import { unpack } from "./unpack.ts";

const TEMPORARY = "making-";
const DIGEST = /^[0-9a-f]{64}$/;
const READ_ONLY = 0o444;
const MS_PER_S = 1000;

const isMissing = (error: unknown): boolean => error instanceof Error && "code" in error && error.code === "ENOENT";

/**
 * Code as files in one directory: `DIGEST.erofs` and `DIGEST.zip`, the zip last, so that a zip says both are there.
 * What was half made when the process ended is swept at the next opening.
 */
class FileCodeStore implements CodeStore {
  readonly #directory: string;
  /** Uploads of the same archive at the same time share one making. */
  readonly #making = new Map<Digest, Promise<CodeImage>>();
  readonly #known = new Map<Digest, CodeImage>();

  readonly #clock: Clock;

  constructor(directory: string, clock: Clock) {
    this.#directory = directory;
    this.#clock = clock;
  }

  async put(zip: Uint8Array): Promise<CodeImage> {
    const digest = createHash("sha256").update(zip).digest("hex");
    const running = this.#making.get(digest);
    if (running !== undefined) return running;
    const making = this.#putOnce(digest, zip).finally(() => this.#making.delete(digest));
    this.#making.set(digest, making);
    return making;
  }

  async get(digest: Digest): Promise<CodeImage | null> {
    if (!DIGEST.test(digest)) return null;
    const known = this.#known.get(digest);
    if (known !== undefined) return known;
    const { zipPath, imagePath } = this.#paths(digest);
    try {
      const zip = await readFile(zipPath);
      await stat(imagePath);
      const { unzippedBytes } = await readArchive(zip);
      return this.#remember({ digest, zipPath, zipBytes: zip.byteLength, imagePath, unzippedBytes });
    } catch (error) {
      if (isMissing(error)) return null;
      throw error;
    }
  }

  async collect(keep: ReadonlySet<Digest>): Promise<void> {
    for (const name of await readdir(this.#directory)) {
      const digest = name.replace(/\.zip$/, "");
      if (!name.endsWith(".zip") || !DIGEST.test(digest) || keep.has(digest) || this.#making.has(digest)) continue;
      const { zipPath, imagePath } = this.#paths(digest);
      // Fresh code may belong to a function whose record is about to be written. Looked at and removed in one go, so
      // that no upload of the same archive comes in between.
      if (this.#clock.wallMs() - statSync(zipPath).mtimeMs < CODE_KEEP_MS) continue;
      this.#known.delete(digest);
      rmSync(zipPath);
      rmSync(imagePath, { force: true });
    }
  }

  /** Removes what a crash left half made. */
  async sweep(): Promise<void> {
    const names = new Set(await readdir(this.#directory));
    for (const name of names) {
      const lonelyImage = name.endsWith(".erofs") && !names.has(name.replace(/erofs$/, "zip"));
      const lonelyZip = name.endsWith(".zip") && !names.has(name.replace(/zip$/, "erofs"));
      if (name.startsWith(TEMPORARY) || lonelyImage || lonelyZip) {
        await rm(join(this.#directory, name), { recursive: true, force: true });
      }
    }
  }

  async #putOnce(digest: Digest, zip: Uint8Array): Promise<CodeImage> {
    const present = await this.get(digest);
    if (present !== null) {
      const nowS = this.#clock.wallMs() / MS_PER_S;
      await utimes(present.zipPath, nowS, nowS);
      return present;
    }
    const archive = await readArchive(zip);
    const work = await mkdtemp(join(this.#directory, TEMPORARY));
    try {
      const tree = join(work, "tree");
      await mkdir(tree, { mode: 0o700 });
      await unpack(archive, tree);
      await chmod(tree, 0o755);
      const { zipPath, imagePath } = this.#paths(digest);
      await makeImage(tree, join(work, "image"));
      await chmod(join(work, "image"), READ_ONLY);
      await moveIntoPlace(join(work, "image"), imagePath);
      await writeFile(join(work, "zip"), zip, { mode: READ_ONLY });
      await moveIntoPlace(join(work, "zip"), zipPath);
      const { unzippedBytes } = archive;
      return this.#remember({ digest, zipPath, zipBytes: zip.byteLength, imagePath, unzippedBytes });
    } catch (error) {
      // An image without its archive would be nobody's until the next start.
      const { zipPath, imagePath } = this.#paths(digest);
      if (!existsSync(zipPath)) await rm(imagePath, { force: true });
      throw error;
    } finally {
      await rm(work, { recursive: true, force: true });
    }
  }

  #remember(image: CodeImage): CodeImage {
    this.#known.set(image.digest, image);
    return image;
  }

  #paths(digest: Digest): { readonly zipPath: string; readonly imagePath: string } {
    return {
      zipPath: join(this.#directory, `${digest}.zip`),
      imagePath: join(this.#directory, `${digest}.erofs`),
    };
  }
}

/** Opens (or makes) the code store in `<dataDir>/code`. */
export const openCodeStore = async (dataDir: string, clock: Clock): Promise<CodeStore> => {
  const directory = join(dataDir, "code");
  await mkdir(directory, { recursive: true, mode: 0o700 });
  const store = new FileCodeStore(directory, clock);
  await store.sweep();
  return store;
};
