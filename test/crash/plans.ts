import type { Random } from "./random.ts";

/** When and where a Hearth is killed. */
export interface Plan {
  /** `start`: while it clears away its predecessor's life and comes up; `load`: while it serves. */
  readonly during: "start" | "load";
  /** HEARTH_CRASH_AT of crash-at.c: it ends itself there. null: only the time says when. */
  readonly place: string | null;
  /** From the start of the process, or of the load: then it is killed, if it lives still. */
  readonly afterMs: number;
}

const START_MS_MAX = 900;
const LOAD_MS_MAX = 1_800;
const MIDST_US_MAX = 4_000;

/** A libc function, how it may be hit, and which of its calls happen in a start (up to the first number) and in a load. */
const PLACES: readonly (readonly [name: string, whens: readonly string[], inStart: number, inLoad: number])[] = [
  // Code and kernels come into place.
  ["rename", ["before", "after"], 1, 12],
  // Group commits, and files of the code store.
  ["fsync", ["before", "after"], 8, 60],
  ["pwrite", ["half", "after"], 30, 200],
  // Run directories and cgroups.
  ["mkdir", ["before", "after"], 40, 200],
  ["rmdir", ["before", "after"], 40, 80],
  ["unlink", ["before", "after"], 40, 80],
  ["chmod", ["before", "after"], 10, 60],
  ["link", ["before", "after"], 1, 12],
  // A microVM's process.
  ["clone", ["before", "after", "later"], 3, 24],
];

const placeOf = (random: Random, during: Plan["during"]): string => {
  const [name, whens, inStart, inLoad] = random.pick(PLACES);
  const number = 1 + random.below(during === "start" ? inStart : inLoad);
  const when = random.pick(whens);
  return `${name}:${number}:${when}${when === "later" ? `:${random.below(MIDST_US_MAX)}` : ""}`;
};

/** A plan for one round: half of them kill at a place, a quarter during the start. */
export const drawPlan = (random: Random): Plan => {
  const during = random.below(4) === 0 ? "start" : "load";
  const place = random.below(2) === 0 ? placeOf(random, during) : null;
  const msMax = during === "start" ? START_MS_MAX : LOAD_MS_MAX;
  return { during, place, afterMs: place === null ? random.below(msMax) : msMax };
};
