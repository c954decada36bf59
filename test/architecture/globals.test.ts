import assert from "node:assert/strict";
import { readdir, readFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { test } from "node:test";

const SOURCES = resolve(import.meta.dirname, "../../src");

/** Folders whose time, timers, identifiers and randomness are given: what cannot be simulated cannot be tested. */
const ROLES = [
  "daemon",
  "frontend",
  "lib",
  "placement",
  "store",
  "telemetry",
  "vmm",
  "wire",
  "worker",
  "worker-manager",
] as const;

/** What reads a clock, sets a timer or draws a lot by itself. Each has its parameter in src/lib. */
const GLOBALS: readonly (readonly [name: string, pattern: RegExp])[] = [
  ["Date.now", /\bDate\s*\.\s*now\b/],
  ["new Date() of now", /\bnew\s+Date(?:\s*\(\s*\)|(?!\s*\(|\w))/],
  ["performance.now", /\bperformance\s*\.\s*(?:now|timeOrigin)\b/],
  ["process.hrtime", /\bhrtime\b/],
  ["process.uptime", /\bprocess\s*\.\s*uptime\b/],
  ["setTimeout", /\bsetTimeout\b/],
  ["setInterval", /\bsetInterval\b/],
  ["setImmediate", /\bsetImmediate\b/],
  ["node:timers", /["'](?:node:)?timers(?:\/promises)?["']/],
  ["AbortSignal.timeout", /\bAbortSignal\s*\.\s*timeout\b/],
  ["randomUUID", /\brandomUUID\b/],
  ["Math.random", /\bMath\s*\.\s*random\b/],
  ["the system's clock, ids or randomness", /\b(?:systemClock|createSystemClock|systemIds|systemRandom)\b/],
];

/** Files that may, and why. A folder ends with a slash. */
const ALLOWED: Readonly<Record<string, string>> = {
  "lib/clock.ts": "is the host's clock",
  "lib/ids.ts": "is where identifiers come from",
  "lib/random.ts": "is where randomness comes from",
  "lib/virtual-clock.ts": "lets promises settle in the real loop between two calls",
  "daemon/": "puts the roles together and gives them the system's",
  "vmm/config.ts": "every option of the monitor has a default, its clock among them",
  "store/conformance.ts": "is a test suite",
};

/** The code without comments that have lines of their own: what they speak of is not used. Strings stay, imports are such. */
const withoutComments = (text: string): string =>
  text.replaceAll(/\/\*[\s\S]*?\*\//g, "").replaceAll(/^\s*\/\/.*$/gm, "");

const uses = (text: string): string[] => {
  const code = withoutComments(text);
  return GLOBALS.filter(([, pattern]) => pattern.test(code)).map(([name]) => name);
};

const mayUse = (file: string): boolean =>
  Object.keys(ALLOWED).some((allowed) => (allowed.endsWith("/") ? file.startsWith(allowed) : file === allowed));

const isProduct = (file: string): boolean =>
  file.endsWith(".ts") &&
  !/(?:\.test|[./-]testing)\.ts$/.test(file) &&
  ROLES.some((role) => file.startsWith(`${role}/`));

const files = (await readdir(SOURCES, { recursive: true })).filter(isProduct);

test("no role reads a clock, sets a timer, makes an id or draws a lot that it was not given", async () => {
  const found: string[] = [];
  for (const file of files.filter((one) => !mayUse(one))) {
    const names = uses(await readFile(join(SOURCES, file), "utf8"));
    if (names.length > 0) found.push(`${file} uses ${names.join(", ")}`);
  }
  assert.deepEqual(found, []);
});

test("the daemon gives the system's clock, and uses no other", async () => {
  const found: string[] = [];
  for (const file of files.filter((one) => one.startsWith("daemon/"))) {
    const names = uses(await readFile(join(SOURCES, file), "utf8")).filter((name) => !name.startsWith("the system's"));
    if (names.length > 0) found.push(`${file} uses ${names.join(", ")}`);
  }
  assert.deepEqual(found, []);
});

test("every folder of src/ that runs on the host is looked at, and every exception is needed", async () => {
  const folders = (await readdir(SOURCES, { withFileTypes: true })).filter((entry) => entry.isDirectory());
  // Commands live as long as their user waits; what stands in runtimes/ runs in the guest.
  const others = new Set(["cli", "runtimes"]);
  assert.deepEqual(
    folders.map(({ name }) => name).filter((name) => !others.has(name) && !ROLES.some((role) => role === name)),
    [],
  );
  for (const allowed of Object.keys(ALLOWED)) {
    const covered = files.filter((file) => (allowed.endsWith("/") ? file.startsWith(allowed) : file === allowed));
    const texts = await Promise.all(covered.map((file) => readFile(join(SOURCES, file), "utf8")));
    assert.ok(
      texts.some((text) => uses(text).length > 0),
      `${allowed} needs no exception`,
    );
  }
});

test("the check sees such uses at all, and not what only looks like one", () => {
  const seen = [
    "const now = Date.now();",
    "new Placement(Date.now)",
    "const at = new Date();",
    "const at = new Date;",
    "performance.now() - startedMs",
    "process.hrtime.bigint()",
    "setTimeout(() => {}, 1)",
    "setInterval(beat, 1)",
    "constructor(later: Later = setImmediate) {}",
    'import { setTimeout as sleep } from "node:timers/promises";',
    'import timers from "timers";',
    "AbortSignal.timeout(5)",
    'import { randomUUID } from "node:crypto";',
    "Math.random()",
    'import { systemClock } from "../lib/clock.ts";',
    "`${x} // ${Date.now()}`",
  ];
  for (const text of seen) assert.notDeepEqual(uses(text), [], text);
  const unseen = [
    "new Date(timeMs).toISOString()",
    "/** `performance.now()` of its start. */",
    "// setTimeout overflows",
    "clock.after(1, () => {})",
    'const url = "http://host/path";',
    "const updated = newDate;",
  ];
  for (const text of unseen) assert.deepEqual(uses(text), [], text);
});
