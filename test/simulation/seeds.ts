/**
 * Runs the worlds of some seeds: `node test/simulation/seeds.ts FIRST STEP COUNT SECONDS`. One line of JSON for each that
 * failed, and one at the end with how many were run. With `--log` the whole log of each world is printed as well.
 */
import { writeSync } from "node:fs";
import { watchSeeds } from "./watchdog.ts";
import { simulate } from "./world.ts";
import type { Outcome } from "./world.ts";

/** One seed in so many is run twice, and must come to the same. */
const TWICE_EVERY = 10;
/** CPU time after which a seed is told to be endless: some hundred times what one takes. */
const SEED_CPU_MS_MAX = 60_000;
/** Lines of the log that are told before the first violation. */
const LINES_BEFORE = 25;

export interface Failure {
  readonly seed: number;
  readonly violations: readonly string[];
  readonly log: readonly string[];
}

const tailOf = ({ lines }: Outcome): readonly string[] => {
  const at = lines.findIndex((line) => line.includes(" BROKEN "));
  return at === -1 ? lines.slice(-LINES_BEFORE) : lines.slice(Math.max(0, at - LINES_BEFORE), at + 1);
};

const firstDifference = (one: readonly string[], other: readonly string[]): string => {
  const at = one.findIndex((line, index) => line !== other[index]);
  return `the same seed went two ways: ${String(one[at])} | ${String(other[at])}`;
};

/** What is wrong with a seed's world; null when nothing is. */
const failureOf = async (seed: number, tell: (line: string) => void): Promise<Failure | null> => {
  const outcome = await simulate(seed);
  for (const line of outcome.lines) tell(line);
  const { violations } = outcome;
  if (violations.length > 0) return { seed, violations, log: tailOf(outcome) };
  if (seed % TWICE_EVERY !== 0) return null;
  const again = await simulate(seed);
  if (again.lines.join("\n") === outcome.lines.join("\n")) return null;
  return { seed, violations: [firstDifference(outcome.lines, again.lines)], log: [] };
};

const [first = 1, step = 1, count = 1, seconds = Number.POSITIVE_INFINITY] = process.argv
  .slice(2)
  .filter((word) => word !== "--log")
  .map(Number);
const tell = process.argv.includes("--log") ? (line: string): void => console.log(line) : (): void => {};
const endMs = performance.now() + seconds * 1_000;
let seed = first;
process.on("unhandledRejection", (error) => {
  console.log(JSON.stringify({ seed, violations: [`a promise that nobody awaits: ${String(error)}`], log: [] }));
});
let run = 0;
let isThrough = false;
process.on("exit", () => {
  // A world that waits for what nobody brings leaves the loop empty, and Node ends.
  if (!isThrough) writeSync(1, `${JSON.stringify({ seed, violations: ["it waits and nothing comes"], log: [] })}\n`);
});
const watch = watchSeeds(SEED_CPU_MS_MAX);
for (; run < count && performance.now() < endMs; seed += step) {
  watch.begin(seed);
  const failure = await failureOf(seed, tell);
  run += 1;
  if (failure !== null) console.log(JSON.stringify(failure));
}
isThrough = true;
console.log(JSON.stringify({ run }));
