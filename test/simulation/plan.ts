import type { Random } from "../../src/lib/random.ts";
import { drawCrowd } from "./crowd.ts";
import type { Order } from "./scripted-vm.ts";

export interface PlannedFunction {
  readonly name: string;
  readonly timeoutS: number;
  readonly reserved: number | null;
  readonly reuse: "always" | "never";
}

export interface PlannedWork {
  readonly atMs: number;
  readonly functionName: string;
  readonly asynchronous: boolean;
  readonly isHopeless: boolean;
  readonly order: Order;
}

/** Something that goes wrong, or the time of day that somebody sets. */
export type Fault =
  | { readonly kind: "wall"; readonly byMs: number }
  | { readonly kind: "stall"; readonly ms: number }
  | { readonly kind: "crash"; readonly downMs: number }
  | { readonly kind: "death"; readonly draw: number; readonly runs: boolean }
  | { readonly kind: "boots"; readonly count: number; readonly how: "spawn" | "silent" | "crash" }
  | { readonly kind: "disk"; readonly ms: number };

export interface Plan {
  readonly isCalm: boolean;
  readonly cpus: number;
  readonly accountConcurrency: number;
  readonly slotsMax: number;
  /** How long a function's calls and events may wait until they begin, by its name; no bound for others. */
  readonly waitMsMax: ReadonlyMap<string, number>;
  readonly functions: readonly PlannedFunction[];
  readonly work: readonly PlannedWork[];
  readonly faults: readonly { readonly atMs: number; readonly fault: Fault }[];
}

const SPAN_MS = 20_000;
const HOUR_MS = 3_600_000;
const STALL_MS_MAX = 400;
const DOWN_MS_MAX = 3_000;
const DISK_MS_MAX = 15_000;
const WORK_MS_MAX = 800;
const CALM_SEEDS = 4;
const CROWD_SEEDS = 16;
const SLOTS_MAX = 60;
/** Fewer faults than these; one world in four is haunted. */
const FEW_FAULTS = 8;
const MANY_FAULTS = 40;

/**
 * Draws a world's functions, what is asked of them and what goes wrong. One seed in four is calm: only clocks are set. In
 * a quarter of these there is a crowd.
 */
export const drawPlan = (seed: number, random: Random): Plan => {
  if (seed % CROWD_SEEDS === CALM_SEEDS) return drawCrowd(random);
  const below = (count: number): number => Math.floor(random() * count);
  const isCalm = seed % CALM_SEEDS === 0;
  const functions = Array.from({ length: 2 + below(4) }, (_, at): PlannedFunction => ({
    name: `f${at}`,
    timeoutS: [1, 2, 5][below(3)] ?? 1,
    reserved: at === 1 ? 1 + below(3) : null,
    reuse: below(5) === 0 ? "never" : "always",
  }));
  // At least 100 of an account's concurrency stay unreserved: what is reserved here is little.
  const accountConcurrency = 8 + below(16);
  const work: PlannedWork[] = [];
  const add = (atMs: number): void => {
    const called = functions[below(functions.length)];
    if (called === undefined) return;
    const late = below(12) === 0;
    const fail = below(8) === 0;
    const ms = late ? called.timeoutS * 1_000 + below(1_000) : 1 + below(WORK_MS_MAX);
    work.push({
      atMs,
      functionName: called.name,
      asynchronous: below(2) === 0,
      isHopeless: fail || ms >= called.timeoutS * 1_000,
      order: { n: work.length, ms, fail },
    });
  };
  for (let n = 10 + below(30); n > 0; n -= 1) add(random() * SPAN_MS);
  for (let bursts = below(3); bursts > 0; bursts -= 1) {
    const atMs = random() * SPAN_MS;
    for (let n = 5 + below(15); n > 0; n -= 1) add(atMs);
  }
  const faults = Array.from({ length: below(below(4) === 0 ? MANY_FAULTS : FEW_FAULTS) }, () => ({
    atMs: random() * SPAN_MS,
    fault: drawFault(random, isCalm),
  }));
  return {
    isCalm,
    cpus: 1 + below(4),
    accountConcurrency,
    slotsMax: SLOTS_MAX,
    waitMsMax: new Map(),
    functions,
    work,
    faults,
  };
};

const drawFault = (random: Random, isCalm: boolean): Fault => {
  const below = (count: number): number => Math.floor(random() * count);
  switch (below(isCalm ? 2 : 7)) {
    case 0:
      return { kind: "wall", byMs: (below(2) === 0 ? -1 : 1) * (1 + below(2 * HOUR_MS)) };
    case 1:
      return { kind: "stall", ms: below(STALL_MS_MAX) };
    case 2:
      return { kind: "crash", downMs: below(DOWN_MS_MAX) };
    case 3:
      return { kind: "boots", count: 1 + below(4), how: (["spawn", "silent", "crash"] as const)[below(3)] ?? "spawn" };
    case 4:
      return { kind: "disk", ms: below(DISK_MS_MAX) };
    default:
      return { kind: "death", draw: random(), runs: below(2) === 0 };
  }
};
