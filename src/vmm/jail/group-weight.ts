import { writeFileSync } from "node:fs";

import type { CgroupLayout } from "./cgroup.ts";

/*
 * All microVMs of this host are in one control group, and beside that group stand the host's other processes. A group has
 * one weight whatever is in it: left at its default, a hundred functions together get as much of a CPU as one shell does.
 * So the weight of the group follows what works in it: a microVM whose share is a whole CPU counts as one process.
 */

/** Weight of one process beside the group: version 1 and 2 (Documentation/admin-guide/cgroup-v2.rst, cpu.weight). */
const PROCESS_SHARES_V1 = 1_024;
const PROCESS_WEIGHT_V2 = 100;
/** Largest values that the kernel takes: MAX_SHARES of kernel/sched/sched.h, CGROUP_WEIGHT_MAX. */
const SHARES_V1_MAX = 262_144;
const WEIGHT_V2_MAX = 10_000;
/** The weight is lowered only when so much less is wanted: a group that is written to at every call costs every call. */
const LOWER_BELOW = 1 / 4;

/** Writes the weight of the group that all microVMs are in. */
type WriteWeight = (processes: number) => void;

const writerOf = (layout: CgroupLayout): WriteWeight | null => {
  const [controller, file, unit, max] =
    layout.version === 1
      ? (["cpu", "cpu.shares", PROCESS_SHARES_V1, SHARES_V1_MAX] as const)
      : (["unified", "cpu.weight", PROCESS_WEIGHT_V2, WEIGHT_V2_MAX] as const);
  const parent = layout.parents.get(controller);
  if (parent === undefined) return null;
  return (processes) => {
    try {
      writeFileSync(`${parent}/${file}`, String(Math.min(max, processes * unit)));
    } catch {
      // A group that cannot be written keeps its weight: no invocation is to fail for that.
    }
  };
};

/** The weight of all microVMs together, kept at what those of them that work add up to. */
export class GroupWeight {
  readonly #write: WriteWeight;
  /** Sum of the shares of those that work, in CPUs. */
  #working = 0;
  /** In processes, as the group has it; 0 before the first write. */
  #written = 0;

  /** `write`: gets a whole number of processes, at least 1, that the group is to weigh as much as. */
  constructor(write: WriteWeight) {
    this.#write = write;
    this.#adjust();
  }

  /** null where no group controls CPU time. */
  static of(layout: CgroupLayout | null): GroupWeight | null {
    const write = layout === null ? null : writerOf(layout);
    return write === null ? null : new GroupWeight(write);
  }

  /** A microVM's part of it, at first none. */
  join(): WeightPart {
    return new WeightPart((change) => {
      this.#working += change;
      this.#adjust();
    });
  }

  /** In powers of two, so that it is seldom written. */
  #adjust(): void {
    // Sums of fractions are never quite what they should be.
    const wanted = 2 ** Math.ceil(Math.log2(Math.max(1, this.#working - 1e-6)));
    if (wanted <= this.#written && wanted > this.#written * LOWER_BELOW) return;
    this.#written = wanted;
    this.#write(wanted);
  }
}

/** What one microVM adds to the weight of all: its share while it works. */
export class WeightPart implements Disposable {
  readonly #change: (by: number) => void;
  #share = 0;
  #works = true;
  #added = 0;

  constructor(change: (by: number) => void) {
    this.#change = change;
  }

  /** Sets its share of a CPU, 0 to 1. */
  setShare(share: number): void {
    this.#share = share;
    this.#tell();
  }

  setWorks(works: boolean): void {
    this.#works = works;
    this.#tell();
  }

  [Symbol.dispose](): void {
    this.setWorks(false);
  }

  #tell(): void {
    const counts = this.#works ? this.#share : 0;
    if (counts === this.#added) return;
    const change = counts - this.#added;
    this.#added = counts;
    this.#change(change);
  }
}
