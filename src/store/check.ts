import { copyFileSync, existsSync, mkdirSync } from "node:fs";
import { rm } from "node:fs/promises";
import { basename, join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import type { Clock } from "../lib/clock.ts";
import { stampOf, readFacts } from "./code/code-facts.ts";
import { CodeThreads } from "./code/code-threads.ts";
import { openCodeStore } from "./code/file-code-store.ts";
import { assertNotForgotten, markPath, StoreOpenError } from "./data-directory.ts";
import { openEnvironmentKeys } from "./environment-keys.ts";
import type { EnvironmentKeys } from "./environment-keys.ts";
import { Mark } from "./sqlite/mark.ts";
import { commitsOf, inspectDatabase, lostText } from "./sqlite/open.ts";
import { RecordCodec } from "./sqlite/records.ts";
import { MIGRATIONS, SEALED_SINCE } from "./sqlite/schema.ts";
import { ALL_TABLES, findDamage, sealTable } from "./sqlite/sealing.ts";
import type { DamagedRow } from "./sqlite/sealing.ts";

/** Something that is not as it should be. */
export interface CheckFinding {
  readonly area: "database" | "function" | "code" | "event" | "key" | "trash";
  /** Which one: a file, a function, a digest, an event. */
  readonly subject: string;
  readonly problem: string;
  /** What `--repair` does about it; null when it can do nothing. */
  readonly repair: string | null;
  readonly repaired: boolean;
}

export interface CheckResult {
  readonly findings: readonly CheckFinding[];
  readonly functions: number;
  readonly versions: number;
  readonly events: number;
  /** Archives and images that were read. */
  readonly code: number;
}

export interface CheckOptions {
  readonly dataDir: string;
  /** Only while no Hearth runs on it. */
  readonly repair: boolean;
  readonly clock: Clock;
  readonly credentialsDirectory: string | undefined;
}

interface Code {
  readonly digest: string;
  readonly functionName: string;
}

const finding = (
  area: CheckFinding["area"],
  subject: string,
  problem: string,
  repair: string | null = null,
  repaired = false,
): CheckFinding => ({ area, subject, problem, repair, repaired });

/** One look at all of a data directory. */
class Check {
  readonly #options: CheckOptions;
  readonly #database: string;
  readonly #findings: CheckFinding[] = [];
  #code = 0;

  constructor(options: CheckOptions) {
    this.#options = options;
    this.#database = join(options.dataDir, "hearth.db");
  }

  async run(): Promise<CheckResult> {
    const nothing = { findings: this.#findings, functions: 0, versions: 0, events: 0, code: 0 };
    if (!this.#checkDatabase()) return nothing;
    const { dataDir, clock, credentialsDirectory } = this.#options;
    const keys = openEnvironmentKeys(join(dataDir, "keys"), {
      nowMs: clock.wallMs(),
      credentials: credentialsDirectory,
      make: false,
    });
    for (const name of keys.damaged) this.#add(finding("key", name, "is damaged; put a copy of it back"));
    const used = this.#checkRows(keys);
    await this.#checkCode(used.code);
    return { ...used.counts, findings: this.#findings, code: this.#code };
  }

  #add(found: CheckFinding): void {
    this.#findings.push(found);
  }

  /** False when nothing more can be said. */
  #checkDatabase(): boolean {
    try {
      assertNotForgotten(this.#database);
      if (!existsSync(this.#database)) throw new StoreOpenError(`There is no database in ${this.#options.dataDir}.`);
      const { commitsLost, version } = inspectDatabase(this.#database);
      if (version < MIGRATIONS.length) return this.#tooOld(version);
      if (commitsLost > 0) this.#checkLost(commitsLost);
      return true;
    } catch (error) {
      const why = error instanceof Error ? error.message : String(error);
      const text = error instanceof StoreOpenError ? why : `cannot be read (${why}); restore a backup`;
      this.#add(finding("database", this.#database, text));
      return false;
    }
  }

  #tooOld(version: number): boolean {
    const text = `is of schema ${version}; start Hearth once, which brings it to ${MIGRATIONS.length}, then look again`;
    if (version > 0) this.#add(finding("database", this.#database, text));
    return false;
  }

  #checkLost(commitsLost: number): void {
    const repair = "goes on without them; what is there now is copied to the trash first";
    if (this.#options.repair) {
      const directory = join(this.#options.dataDir, "trash", `lost-${this.#options.clock.wallMs()}`);
      mkdirSync(directory, { recursive: true, mode: 0o700 });
      for (const path of [this.#database, `${this.#database}-wal`]) {
        if (existsSync(path)) copyFileSync(path, join(directory, basename(path)));
      }
      const database = new DatabaseSync(this.#database);
      using mark = new Mark(markPath(this.#database));
      mark.write(commitsOf(database, SEALED_SINCE) ?? 0);
      database.close();
    }
    this.#add(finding("database", this.#database, lostText(this.#database, commitsLost), repair, this.#options.repair));
  }

  #checkRows(keys: EnvironmentKeys): {
    readonly code: readonly Code[];
    readonly counts: Omit<CheckResult, "findings" | "code">;
  } {
    const database = new DatabaseSync(this.#database, { readOnly: !this.#options.repair });
    try {
      for (const row of findDamage(database, ALL_TABLES)) this.#checkRow(database, row);
      const codec = new RecordCodec(keys);
      const code: Code[] = [];
      for (const row of database.prepare("SELECT * FROM versions").iterate()) {
        const record = codec.decode(row);
        const { functionName, version, stateReason } = record;
        if (record.damage === "environment") {
          this.#add(finding("function", `${functionName}:${version}`, stateReason ?? "its variables cannot be read"));
        }
        if (record.damage === "record") continue;
        for (const { digest } of [record.code, ...record.layers]) code.push({ digest, functionName });
      }
      const count = (table: string): number =>
        Number(database.prepare(`SELECT count(*) AS n FROM ${table}`).get()?.["n"]);
      return {
        code,
        counts: { functions: count("functions"), versions: count("versions"), events: count("events") },
      };
    } finally {
      database.close();
    }
  }

  #checkRow(database: DatabaseSync, { table, functionName, item }: DamagedRow): void {
    const { repair } = this.#options;
    switch (table) {
      case "versions":
        return this.#add(
          finding("function", functionName, "has a damaged record; restore a backup, or delete it and create it again"),
        );
      case "events":
        return this.#add(finding("event", item ?? "", `for ${functionName} is damaged; it is kept, and never run`));
      case "deleted_functions":
        if (repair) sealTable(database, table);
        return this.#add(finding("trash", functionName, "is damaged", "takes what is there as it is", repair));
      case "version_counters":
        if (repair) raiseCounter(database);
        if (repair) sealTable(database, table);
        return this.#add(
          finding(
            "function",
            functionName,
            "the number of its last version is damaged",
            "takes the greatest that is known",
            repair,
          ),
        );
      case "functions":
      case "tags": {
        if (repair) sealTable(database, table);
        const what = table === "tags" ? `its tag ${item ?? ""} is damaged` : "its reserved concurrency is damaged";
        return this.#add(finding("function", functionName, what, "takes what is there as it is: look at it", repair));
      }
    }
  }

  async #checkCode(used: readonly Code[]): Promise<void> {
    const names = new Map<string, Set<string>>();
    for (const { digest, functionName } of used) {
      names.set(digest, (names.get(digest) ?? new Set()).add(functionName));
    }
    const { dataDir, clock } = this.#options;
    const threads = new CodeThreads(clock);
    using thread = await threads.take();
    const store = this.#options.repair ? await openCodeStore(dataDir, clock) : null;
    for (const [digest, functions] of names) {
      const path = (ending: string): string => join(dataDir, "code", `${digest}.${ending}`);
      const facts = await readFacts(path("json"));
      const zip = (await stampOf(path("zip"))) === null ? null : (await thread.digest(path("zip"))).sha256;
      const image = (await stampOf(path("erofs"))) === null ? null : (await thread.digest(path("erofs"))).sha256;
      this.#code += 1;
      const zipGood = zip === digest;
      const imageGood = image !== null && image === facts?.image.sha256;
      // An image that is not there, or of which nothing is known, is made at its first use.
      const imageBad = image !== null && facts !== null && !imageGood;
      if (zipGood && !imageBad) {
        if (!imageGood) await store?.get(digest);
        continue;
      }
      const problem = [
        ...(zipGood ? [] : [`its archive is ${zip === null ? "missing" : "damaged"}`]),
        ...(imageBad ? ["its image is damaged"] : []),
        ...(!zipGood && image === null ? ["its image is missing"] : []),
      ].join(", ");
      const subject = `${digest} (${[...functions].join(", ")})`;
      if (!zipGood) {
        const back = existsSync(join(dataDir, "trash", `${digest}.zip`)) ? "takes it back from the trash" : null;
        const remedy = imageGood || back !== null ? problem : `${problem}; put a copy back, or upload the code again`;
        const repaired = back !== null && store !== null && (await this.#mend(store, digest, path("json")));
        this.#add(finding("code", subject, remedy, back, repaired));
        continue;
      }
      const repaired = store !== null && (await this.#mend(store, digest, path("json")));
      this.#add(finding("code", subject, problem, "makes the image again from its archive", repaired));
    }
  }

  /** Makes the code store look at both files anew. */
  async #mend(store: Awaited<ReturnType<typeof openCodeStore>>, digest: string, facts: string): Promise<boolean> {
    await rm(facts, { force: true });
    return (await store.get(digest))?.zipPath !== null && store.problem(digest) === null;
  }
}

/** No version number may be given twice. */
const raiseCounter = (database: DatabaseSync): void => {
  database.exec(`UPDATE version_counters SET last_number = max(last_number, (SELECT coalesce(max(version_number), 0)
    FROM versions v WHERE v.account_id = version_counters.account_id AND v.function_name = version_counters.function_name))`);
};

/**
 * Reads everything in a data directory: the database's structure and every row, and every archive and image that a record
 * names. Changes nothing without `repair`.
 */
export const checkDataDirectory = (options: CheckOptions): Promise<CheckResult> => new Check(options).run();
