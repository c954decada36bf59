import { readFileSync, statSync, writeFileSync } from "node:fs";
import type { Clock, Timer } from "../lib/clock.ts";
import type { Logger } from "../telemetry/index.ts";
import { parseKeys } from "./key-file.ts";
import { dataFiles } from "./settings.ts";

/** How often the file is looked at, and how often what was used is written down. */
const LOOK_MS = 1_000;
const WRITE_USED_MS = 10_000;

/** Unix ms of the last use, by key id. */
export type KeyUses = Readonly<Record<string, number>>;

/** When keys were last used, as a running Hearth wrote it down; nothing when none did. */
export const readKeyUses = (dataDir: string): KeyUses => {
  try {
    return JSON.parse(readFileSync(dataFiles(dataDir).keyUses, "utf8")) as KeyUses;
  } catch {
    return {};
  }
};

/**
 * The keys that a running Hearth knows: those in the data directory's file, read again when it changes. A file that has
 * none, or cannot be read, changes nothing: that is told, and nobody is locked out by a slip.
 */
export class KeyRing implements Disposable {
  readonly #dataDir: string;
  readonly #clock: Clock;
  readonly #log: Logger;
  readonly #timers: readonly Timer[];
  #secrets: ReadonlyMap<string, string> = new Map();
  #seen = "";
  readonly #uses: Map<string, number>;
  #dirty = false;

  constructor(dataDir: string, clock: Clock, log: Logger) {
    this.#dataDir = dataDir;
    this.#clock = clock;
    this.#log = log;
    this.#uses = new Map(Object.entries(readKeyUses(dataDir)));
    this.#look();
    this.#timers = [clock.every(LOOK_MS, () => this.#look()), clock.every(WRITE_USED_MS, () => this.#writeUses())];
  }

  secretOf(accessKeyId: string): string | undefined {
    return this.#secrets.get(accessKeyId);
  }

  used(accessKeyId: string): void {
    this.#uses.set(accessKeyId, this.#clock.wallMs());
    this.#dirty = true;
  }

  #look(): void {
    const { credentials: file } = dataFiles(this.#dataDir);
    try {
      const { mtimeMs, size, ino } = statSync(file);
      const seen = `${mtimeMs} ${size} ${ino}`;
      if (seen === this.#seen) return;
      this.#seen = seen;
      const keys = parseKeys(readFileSync(file, "utf8"));
      if (keys.length === 0) throw new Error("there are no keys in it");
      if (this.#secrets.size > 0) this.#log.info({ keys: keys.map(({ name }) => name) }, "the keys have changed");
      this.#secrets = new Map(keys.map(({ accessKeyId, secretAccessKey }) => [accessKeyId, secretAccessKey]));
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      if (this.#seen !== reason)
        this.#log.error({ file, reason }, "the keys cannot be read; those known so far stay good");
      this.#seen = reason;
    }
  }

  #writeUses(): void {
    if (!this.#dirty) return;
    this.#dirty = false;
    const uses = [...this.#uses].filter(([accessKeyId]) => this.#secrets.has(accessKeyId));
    try {
      writeFileSync(dataFiles(this.#dataDir).keyUses, JSON.stringify(Object.fromEntries(uses)), { mode: 0o600 });
    } catch (error) {
      this.#log.warn({ err: error }, "when keys were last used could not be written down");
    }
  }

  [Symbol.dispose](): void {
    for (const timer of this.#timers) timer[Symbol.dispose]();
    this.#writeUses();
  }
}
