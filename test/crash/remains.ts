import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { copyFileSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { dataFiles } from "../../src/daemon/settings.ts";
import { vmmOptions } from "../../src/vmm/config.ts";
import { detectCgroups } from "../../src/vmm/jail/cgroup.ts";
import { eventually } from "../functional/hearth.ts";
import type { MarkedCodes } from "./code.ts";
import { processesIn } from "./processes.ts";

/** An event that is still in the queue. */
export interface QueuedEvent {
  readonly eventId: string;
  readonly claimed: boolean;
}

/** Less than a guest takes to find out by itself that it has no host. */
const END_MS_MAX = 3_000;
const NETWORKS_END_MS_MAX = 20_000;
/** What may lie in a data directory; every other name is something left over. */
const DATA_FILES =
  /^(?:credentials|key-uses\.json|keys|endpoint|hearth\.(?:pid|db|db-wal|db-shm|mark|reserve)|lock|\.ready|control\.sock|logs|code|trash|drives|scratch)$/;

/** Processes of a Hearth and its microVMs: they were told of its data, or of the run directory of one that has drives there. */
const processesOf = (dataDir: string): string[] => {
  const { drives } = dataFiles(dataDir);
  const ids = (existsSync(drives) ? readdirSync(drives) : []).flatMap(
    (name) => /^\.owner\.\d+-\d+\.(.+)$/.exec(name)?.[1] ?? [],
  );
  return [dataDir, ...ids.map((id) => join(vmmOptions().runDir, id))].flatMap(processesIn);
};

/** Nobody has cleaned up yet: every process of the dead Hearth has ended by itself. */
export const assertProcessesEnd = async (dataDir: string): Promise<void> => {
  await eventually(
    "every process of the killed Hearth and of its microVMs ends",
    async () => (processesOf(dataDir).length === 0 ? true : null),
    END_MS_MAX,
  ).catch((error: unknown) => {
    throw new Error(`${String(error)}: ${processesOf(dataDir).join("\n")}`);
  });
};

/** The networks of a Hearth's slots: what their links are called (`hth0-*`), and the kernel's number of its table of rules. */
export interface Networks {
  readonly links: string;
  readonly handle: number | null;
}

/** Null for a Hearth without networks. */
export const networksOf = (links: string | null): Networks | null =>
  links === null ? null : { links, handle: handleOf(links) };

/** null when there is no such table. */
const handleOf = (links: string): number | null => {
  const name = `hearth${links.replaceAll(/\D/g, "")}`;
  const { stdout } = spawnSync("nft", ["-a", "list", "table", "ip", name], { encoding: "utf8" });
  const handle = /^table .*# handle (\d+)/m.exec(stdout)?.[1];
  return handle === undefined ? null : Number(handle);
};

/** They are gone from the host. Another Hearth may have the same names by now, with a table of its own. */
export const assertNetworksEnd = async (networks: Networks | null): Promise<void> => {
  if (networks === null) return;
  const prefix = networks.links.slice(0, -1);
  const held = (): string[] => {
    const handle = handleOf(networks.links);
    if (handle !== null && handle !== networks.handle) return [];
    return [
      ...readdirSync("/sys/class/net").filter((name) => name.startsWith(prefix)),
      ...(handle === null ? [] : [`table ${handle}`]),
      ...run("ip", "netns", "list").filter((line) => line.includes("hearth")),
    ];
  };
  // The kernel takes namespaces down one after the other, when it comes to it.
  await eventually("its networks end", async () => (held().length === 0 ? true : null), NETWORKS_END_MS_MAX).catch(
    (error: unknown) => {
      throw new Error(`${String(error)}: ${held().join(", ")}`);
    },
  );
};

const run = (file: string, ...args: string[]): string[] => execFileSync(file, args, { encoding: "utf8" }).split("\n");

/** The database as the kill left it, looked at in a copy: sound, with the events that are still queued. */
export const assertDatabaseSound = (dataDir: string, codes: MarkedCodes): QueuedEvent[] => {
  const { database: file, code } = dataFiles(dataDir);
  const copy = mkdtempSync(join(tmpdir(), "hearth-crash-"));
  try {
    for (const end of ["", "-wal"]) if (existsSync(file + end)) copyFileSync(file + end, join(copy, `db${end}`));
    using database = new DatabaseSync(join(copy, "db"));
    if (Number(database.prepare("PRAGMA user_version").get()?.["user_version"]) === 0) return [];
    assert.deepEqual({ ...database.prepare("PRAGMA integrity_check").get() }, { integrity_check: "ok" });
    assert.deepEqual(database.prepare("PRAGMA foreign_key_check").all(), []);
    for (const { record } of database.prepare("SELECT record FROM versions").all()) {
      const { digest } = (JSON.parse(String(record)) as { readonly code: { readonly digest: string } }).code;
      assertCode(code, digest, codes);
    }
    const events = database.prepare("SELECT event_id, claimed_instance FROM events").all();
    return events.map((row) => ({ eventId: String(row["event_id"]), claimed: row["claimed_instance"] !== null }));
  } finally {
    rmSync(copy, { recursive: true });
  }
};

const checked = new Set<string>();

/** A function's code is there in both its forms, and right. */
const assertCode = (directory: string, digest: string, codes: MarkedCodes): void => {
  const image = join(directory, `${digest}.erofs`);
  assert.ok(existsSync(image), `image of ${digest}`);
  const zip = readFileSync(join(directory, `${digest}.zip`));
  assert.equal(createHash("sha256").update(zip).digest("hex"), digest);
  if (checked.has(image)) return;
  const tree = mkdtempSync(join(tmpdir(), "hearth-crash-"));
  try {
    execFileSync("fsck.erofs", [`--extract=${tree}`, image], { stdio: "ignore" });
    const sha256 = createHash("sha256").update(zip).digest("base64");
    assert.equal(readFileSync(join(tree, "mark"), "utf8"), codes.markOf(sha256));
  } finally {
    rmSync(tree, { recursive: true });
  }
  checked.add(image);
};

/** Control groups of microVMs of these owners. */
const groupsOf = (owners: readonly string[]): string[] =>
  [...detectCgroups().parents.values()]
    .flatMap((parent) => readdirSync(parent))
    .filter((name) => owners.some((owner) => name.endsWith(`.${owner}`)));

/** After a start: of Hearths that were killed (`dead`, as they stand in names) nothing is left, and all there is has its owner. */
export const assertNothingLeft = async (dataDir: string, dead: readonly string[]): Promise<void> => {
  const files = dataFiles(dataDir);
  const ofDead = (name: string): boolean => dead.some((owner) => name.includes(`.${owner}.`));
  // What was killed takes its time to end.
  await eventually("their cgroups are gone", async () => (groupsOf(dead).length === 0 ? true : null));
  for (const directory of [vmmOptions().runDir, files.drives, files.scratch].filter((path) => existsSync(path))) {
    const names = readdirSync(directory);
    const marks = names.filter((name) => name.startsWith(".owner."));
    assert.deepEqual(marks.filter(ofDead), [], "marks of the dead");
    const owned = new Set(marks.map((mark) => mark.replace(/^\.owner\.\d+-\d+\./, "")));
    const others = names.filter((name) => !name.startsWith(".") && !owned.has(name));
    // Between the look at the list and now a microVM may have ended.
    assert.deepEqual(
      others.filter((name) => existsSync(join(directory, name))),
      [],
      "directories of nobody",
    );
    assert.deepEqual(
      names.filter((name) => /^\.kernel-.*\./.test(name)),
      [],
      "kernels copied by half",
    );
  }
  assert.deepEqual(
    readdirSync(dataDir).filter((name) => !DATA_FILES.test(name)),
    [],
    "files of no known use",
  );
  assert.ok(!readFileSync("/proc/mounts", "utf8").includes(dataDir), "mounts");
  assertCodeTidy(files.code);
};

/**
 * Every file in the code store is one that its collector finds by the digest (file-code-store.ts): an upload that was cut
 * off may leave some of an archive's files until then, but nothing half written and nothing without a digest.
 */
const assertCodeTidy = (directory: string): void => {
  const strange = readdirSync(directory).filter((name) => !/^[0-9a-f]{64}\.(zip|erofs|json)$/.test(name));
  assert.deepEqual(strange, [], "files in the code store that nobody collects");
};
