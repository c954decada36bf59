import { existsSync } from "node:fs";
import { mkdir, mkdtemp, readdir, rm, stat, statfs, utimes, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { Clock } from "../../lib/clock.ts";
import { isMissing } from "../../lib/files.ts";
import type { Digest } from "../../wire/function.ts";
import { CODE_KEEP_MS } from "../../wire/limits.ts";
import type { CodeImage, CodeStore, UploadedCode } from "../code.ts";
import { checkSize } from "./archive.ts";
import { isSame, readFacts, stampOf, writeFacts } from "./code-facts.ts";
import type { Stamp } from "./code-facts.ts";
import { CodeThreads } from "./code-threads.ts";
import type { CodeThread } from "./code-threads.ts";
import { moveIntoPlace } from "./durable-files.ts";
import { Trash } from "./trash.ts";

const TEMPORARY = "making-";
const DIGEST = /^[0-9a-f]{64}$/;
/** What belongs to one digest: archive, image, and what is known of both (`code-facts.ts`). */
const CODE_FILE = /^(?<digest>[0-9a-f]{64})\.(?:zip|erofs|json)$/;
const READ_ONLY = 0o444;
const MS_PER_S = 1000;

/** Hearth's own: with less room than this, or than this share of a small disk, what is deleted is freed at once. */
const SPACE_SHORT_BYTES: number = 1024 * 1024 * 1024;
const SPACE_SHORT_SHARE = 0.05;

/** Told of damage that was found, and of what was done about it. */
export type OnDamage = (message: string) => void;

interface Paths {
  readonly zip: string;
  readonly image: string;
  readonly facts: string;
}

/** Code that was found right in this process, and how its files looked. */
interface Known {
  readonly code: CodeImage;
  readonly zip: Stamp | null;
  readonly image: Stamp | null;
}

/** Code that cannot be used, and how its files looked: nothing is read again before they look otherwise. */
interface Problem {
  readonly why: string;
  readonly zip: Stamp | null;
  readonly image: Stamp | null;
}

/**
 * Code as files in one directory: `DIGEST.zip`, `DIGEST.erofs`, and `DIGEST.json` with the checksum of the image and how
 * both looked when they were last found right. An archive is known by its name, which is its SHA-256; an image by that
 * checksum, which is looked at again whenever the file is not the one that was seen last. Nothing of a function's code is
 * removed here but what nothing names, and that goes to the trash first.
 */
class FileCodeStore implements CodeStore {
  readonly #directory: string;
  readonly #trash: Trash;
  readonly #threads: CodeThreads;
  readonly #clock: Clock;
  readonly #onDamage: OnDamage;
  /** What is done with one digest happens once, however many ask for it at the same time. */
  readonly #making = new Map<Digest, Promise<CodeImage | null>>();
  readonly #known = new Map<Digest, Known>();
  readonly #problems = new Map<Digest, Problem>();
  /** Uploads whose record is about to be written. */
  readonly #pins = new Map<Digest, number>();

  constructor(dataDir: string, clock: Clock, onDamage: OnDamage) {
    this.#directory = join(dataDir, "code");
    this.#clock = clock;
    this.#threads = new CodeThreads(this.#clock);
    this.#onDamage = onDamage;
    this.#trash = new Trash(join(dataDir, "trash"), () => this.#clock.wallMs());
  }

  async put(zip: Uint8Array): Promise<UploadedCode> {
    checkSize(zip);
    const work = await mkdtemp(join(this.#directory, TEMPORARY));
    try {
      const zipPath = join(work, "zip");
      await writeFile(zipPath, zip, { mode: READ_ONLY });
      const { sha256 } = await this.#onThread((thread) => thread.digest(zipPath));
      const pin = this.#pin(sha256);
      try {
        const image = await this.#putDigest(sha256, work);
        return { ...image, zipPath: this.#paths(sha256).zip, ...pin };
      } catch (error) {
        pin[Symbol.dispose]();
        throw error;
      }
    } finally {
      await rm(work, { recursive: true, force: true });
    }
  }

  async get(digest: Digest): Promise<CodeImage | null> {
    if (!DIGEST.test(digest)) return null;
    const known = this.#known.get(digest) ?? this.#problems.get(digest);
    // Somebody may have removed or written a file since; then it is looked at again.
    if (known !== undefined && (await this.#isUntouched(digest, known))) return "code" in known ? known.code : null;
    return this.#once(digest, () => this.#find(digest));
  }

  problem(digest: Digest): string | null {
    if (this.#known.has(digest)) return null;
    return this.#problems.get(digest)?.why ?? (this.#isThere(digest) ? null : lost(digest));
  }

  async collect(keep: ReadonlySet<Digest>): Promise<void> {
    const short = await this.isShort();
    const digests = new Set<Digest>();
    for (const name of await readdir(this.#directory)) {
      const digest = CODE_FILE.exec(name)?.groups?.["digest"];
      if (digest !== undefined && !keep.has(digest)) digests.add(digest);
    }
    for (const digest of digests) {
      // Code that was just uploaded may belong to a function whose record is about to be written, by another process even.
      const fresh = this.#clock.wallMs() - (await this.#usedAtMs(digest)) < CODE_KEEP_MS;
      if (this.#making.has(digest) || this.#pins.has(digest) || (fresh && !short)) continue;
      await this.#once(digest, () => this.#remove(digest));
    }
    await this.#trash.empty(short ? 0 : undefined);
  }

  async isShort(): Promise<boolean> {
    const { bavail, blocks, bsize } = await statfs(this.#directory);
    return bavail * bsize < Math.min(SPACE_SHORT_BYTES, blocks * bsize * SPACE_SHORT_SHARE);
  }

  /** Removes what a crash left half made. What is not known here is let lie. */
  async sweep(): Promise<void> {
    for (const name of await readdir(this.#directory)) {
      if (name.startsWith(TEMPORARY) || name.endsWith(".json.new")) {
        await rm(join(this.#directory, name), { recursive: true, force: true });
      }
    }
  }

  #pin(digest: Digest): Disposable {
    this.#pins.set(digest, (this.#pins.get(digest) ?? 0) + 1);
    let held = true;
    return {
      [Symbol.dispose]: () => {
        const left = (this.#pins.get(digest) ?? 1) - 1;
        if (held && left === 0) this.#pins.delete(digest);
        else if (held) this.#pins.set(digest, left);
        held = false;
      },
    };
  }

  async #once(digest: Digest, make: () => Promise<CodeImage | null>): Promise<CodeImage | null> {
    const running = this.#making.get(digest);
    if (running !== undefined) return running;
    const making = make().finally(() => this.#making.delete(digest));
    this.#making.set(digest, making);
    return making;
  }

  /** Runs something on a thread of its own. Whoever waits for one must not hold another: they are few. */
  async #onThread<T>(run: (thread: CodeThread) => Promise<T>): Promise<T> {
    using thread = await this.#threads.take();
    return await run(thread);
  }

  async #putDigest(digest: Digest, work: string): Promise<CodeImage> {
    for (;;) {
      const image = await this.#once(digest, () => this.#putOnce(digest, work));
      // null is what others were doing with the same digest: a look that found nothing, or its removal.
      if (image !== null) return image;
    }
  }

  async #putOnce(digest: Digest, work: string): Promise<CodeImage> {
    const paths = this.#paths(digest);
    const present = this.#isThere(digest) ? await this.#find(digest) : null;
    if (present !== null && present.zipPath !== null) {
      const nowS = this.#clock.wallMs() / MS_PER_S;
      await utimes(paths.facts, nowS, nowS);
      return present;
    }
    const made = await this.#onThread((thread) => thread.make(join(work, "zip"), work));
    try {
      // Over a damaged one, if there is one.
      await moveIntoPlace(join(work, "zip"), paths.zip);
      return await this.#keep(digest, made);
    } catch (error) {
      // Nothing names it yet, so it would only take room that was lacking just now.
      if (present === null) for (const path of Object.values(paths)) await rm(path, { force: true });
      throw error;
    }
  }

  /** Looks at what is there, and mends what can be mended. null when there is nothing to be used. */
  async #find(digest: Digest): Promise<CodeImage | null> {
    const paths = this.#paths(digest);
    const facts = await readFacts(paths.facts);
    await this.#takeBack(digest);
    const [zip, image] = await Promise.all([stampOf(paths.zip), stampOf(paths.image)]);
    if (zip === null && image === null) return this.#lose(digest, lost(digest), zip, image);
    if (facts !== null && isSame(zip, facts.zip) && isSame(image, facts.image)) {
      return this.#remember(digest, zip, image);
    }
    const digests = await this.#onThread(async (thread) => ({
      zip: zip === null ? null : await thread.digest(paths.zip),
      image: image === null || facts === null ? null : await thread.digest(paths.image),
    }));
    const zipGood = digests.zip?.sha256 === digest;
    const imageGood = digests.image !== null && digests.image.sha256 === facts?.image.sha256;
    if (zipGood && imageGood) return this.#rewriteFacts(digest, facts.image.sha256);
    if (zipGood) return this.#remake(digest);
    const archive = `The archive ${digest}.zip is ${zip === null ? "missing" : "damaged"}`;
    // Without facts nothing speaks against the image, as in a data directory of a Hearth that wrote none.
    if (!imageGood && (image === null || facts !== null)) {
      const state = image === null ? "missing" : "damaged";
      return this.#lose(digest, `${archive}, and its image is ${state}. Upload the function's code again.`, zip, image);
    }
    this.#onDamage(`${archive}; its image is served${imageGood ? "" : " as it was found"}.`);
    return this.#remember(digest, zip, image, null);
  }

  async #isUntouched(digest: Digest, { zip, image }: Pick<Known, "zip" | "image">): Promise<boolean> {
    const paths = this.#paths(digest);
    const [zipNow, imageNow] = await Promise.all([stampOf(paths.zip), stampOf(paths.image)]);
    return isSame(zip, zipNow) && isSame(image, imageNow);
  }

  #isThere(digest: Digest): boolean {
    const paths = this.#paths(digest);
    if (existsSync(paths.zip) || existsSync(paths.image)) return true;
    return this.#trash.has(`${digest}.zip`) || this.#trash.has(`${digest}.erofs`);
  }

  /** What was thrown away and is named again comes back. */
  async #takeBack(digest: Digest): Promise<void> {
    const paths = this.#paths(digest);
    if (existsSync(paths.zip) || existsSync(paths.image)) return;
    if (!(await this.#trash.takeBack(`${digest}.zip`, paths.zip))) {
      await this.#trash.takeBack(`${digest}.erofs`, paths.image);
    }
  }

  async #remake(digest: Digest): Promise<CodeImage> {
    const paths = this.#paths(digest);
    const work = await mkdtemp(join(this.#directory, TEMPORARY));
    try {
      const why = existsSync(paths.image) ? "could not be proven right" : "was missing";
      const image = await this.#keep(digest, await this.#onThread((thread) => thread.make(paths.zip, work)));
      this.#onDamage(`The image ${digest}.erofs ${why}; it was made again from its archive.`);
      return image;
    } finally {
      await rm(work, { recursive: true, force: true });
    }
  }

  /** Puts an image that was made into its place, with what is then known of it and of its archive. */
  async #keep(digest: Digest, made: { readonly imagePath: string; readonly sha256: string }): Promise<CodeImage> {
    await moveIntoPlace(made.imagePath, this.#paths(digest).image);
    return this.#rewriteFacts(digest, made.sha256);
  }

  async #rewriteFacts(digest: Digest, sha256: string): Promise<CodeImage> {
    const paths = this.#paths(digest);
    const [zip, image] = await Promise.all([stampOf(paths.zip), stampOf(paths.image)]);
    if (zip === null || image === null) throw new Error(`The code ${digest} was taken away while it was looked at`);
    await writeFacts(paths.facts, { zip, image: { ...image, sha256 } });
    return this.#remember(digest, zip, image);
  }

  async #remove(digest: Digest): Promise<null> {
    const paths = this.#paths(digest);
    this.#known.delete(digest);
    const left = existsSync(paths.zip) ? paths.zip : paths.image;
    if (existsSync(left)) await this.#trash.throwAway(left, left === paths.zip ? `${digest}.zip` : `${digest}.erofs`);
    // The image can be made again.
    for (const path of [paths.image, paths.facts]) await rm(path, { force: true });
    return null;
  }

  /** Unix ms of the last upload of a digest. */
  async #usedAtMs(digest: Digest): Promise<number> {
    const paths = this.#paths(digest);
    for (const path of [paths.facts, paths.zip, paths.image]) {
      try {
        return (await stat(path)).mtimeMs;
      } catch (error) {
        if (!isMissing(error)) throw error;
      }
    }
    return 0;
  }

  #remember(
    digest: Digest,
    zip: Stamp | null,
    image: Stamp | null,
    zipPath: string | null = this.#paths(digest).zip,
  ): CodeImage {
    const code = { digest, zipPath, zipBytes: zip?.bytes ?? 0, imagePath: this.#paths(digest).image };
    this.#known.set(digest, { code, zip, image });
    this.#problems.delete(digest);
    return code;
  }

  #lose(digest: Digest, why: string, zip: Stamp | null, image: Stamp | null): null {
    this.#known.delete(digest);
    if (this.#problems.get(digest)?.why !== why) this.#onDamage(why);
    this.#problems.set(digest, { why, zip, image });
    return null;
  }

  #paths(digest: Digest): Paths {
    const base = join(this.#directory, digest);
    return { zip: `${base}.zip`, image: `${base}.erofs`, facts: `${base}.json` };
  }
}

const lost = (digest: Digest): string =>
  `The function's code is lost: neither its archive ${digest}.zip nor its image is in the code store. Upload the code again, or put the files back.`;

/** Opens (or makes) the code store in `<dataDir>/code`, with its trash in `<dataDir>/trash`. */
export const openCodeStore = async (
  dataDir: string,
  clock: Clock,
  onDamage: OnDamage = () => undefined,
): Promise<CodeStore> => {
  await mkdir(join(dataDir, "code"), { recursive: true, mode: 0o700 });
  const store = new FileCodeStore(dataDir, clock, onDamage);
  await store.sweep();
  return store;
};
