import { FUNCTION_GROUPS } from "../wire/limits.ts";
import type { WorkerReport } from "../wire/roles.ts";
import type { FleetWorker } from "./decide.ts";

/** A slot promised on a worker. */
export interface Promised {
  readonly leaseId: string;
  readonly workerId: string;
  readonly group: number;
  readonly memoryMb: number;
  /** On the monotonic clock. */
  readonly expiresAtMs: number;
}

class Member implements FleetWorker {
  report: WorkerReport;
  promisedMb = 0;
  promisedSlots = 0;
  readonly groups: Uint32Array = new Uint32Array(FUNCTION_GROUPS);
  readonly promises: Map<string, Promised> = new Map();
  /** Where it stands among the members. */
  at: number;

  constructor(report: WorkerReport, at: number) {
    this.report = report;
    this.at = at;
  }
}

/**
 * The workers, their last reports and what was promised on them since. Every step costs the same however many workers
 * there are, so that a fleet of thousands can be kept and drawn from within microseconds.
 */
export class Fleet {
  readonly #members: Member[] = [];
  readonly #byId: Map<string, Member> = new Map();
  /** In the order given, and so in that of their ends: all last equally long. */
  readonly #promises: Map<string, Promised> = new Map();
  readonly #groupSlots: Uint32Array = new Uint32Array(FUNCTION_GROUPS);

  get size(): number {
    return this.#members.length;
  }

  get workers(): readonly FleetWorker[] {
    return this.#members;
  }

  /** Slots of a group in the whole fleet, promised ones included. */
  groupSlots(group: number): number {
    return this.#groupSlots[group] ?? 0;
  }

  /** Takes a worker's report. The slots that it has taken are in it: what was promised for them is done with. */
  report(report: WorkerReport): void {
    let member = this.#byId.get(report.workerId);
    if (member === undefined) {
      member = new Member(report, this.#members.length);
      this.#members.push(member);
      this.#byId.set(report.workerId, member);
    }
    for (const leaseId of report.placementLeases) this.cancel(leaseId);
    member.report = report;
    for (let group = 0; group < FUNCTION_GROUPS; group += 1) this.#set(member, group, report.groups[group] ?? 0);
    for (const { group } of member.promises.values()) this.#set(member, group, (member.groups[group] ?? 0) + 1);
  }

  forget(workerId: string): void {
    const member = this.#byId.get(workerId);
    if (member === undefined) return;
    for (const leaseId of member.promises.keys()) this.#promises.delete(leaseId);
    for (let group = 0; group < FUNCTION_GROUPS; group += 1) this.#set(member, group, 0);
    this.#byId.delete(workerId);
    // The last takes its place, so that there are no gaps to draw from.
    const last = this.#members.pop();
    if (last === undefined || last === member) return;
    last.at = member.at;
    this.#members[member.at] = last;
  }

  promise(promised: Promised): void {
    const member = this.#byId.get(promised.workerId);
    if (member === undefined) return;
    this.#promises.set(promised.leaseId, promised);
    member.promises.set(promised.leaseId, promised);
    member.promisedMb += promised.memoryMb;
    member.promisedSlots += 1;
    this.#set(member, promised.group, (member.groups[promised.group] ?? 0) + 1);
  }

  cancel(leaseId: string): void {
    const promised = this.#promises.get(leaseId);
    const member = promised === undefined ? undefined : this.#byId.get(promised.workerId);
    if (promised === undefined || member === undefined) return;
    this.#promises.delete(leaseId);
    member.promises.delete(leaseId);
    member.promisedMb -= promised.memoryMb;
    member.promisedSlots -= 1;
    this.#set(member, promised.group, (member.groups[promised.group] ?? 0) - 1);
  }

  expire(nowMs: number): void {
    for (const promised of this.#promises.values()) {
      if (promised.expiresAtMs >= nowMs) return;
      this.cancel(promised.leaseId);
    }
  }

  /** So many workers at random, `random` giving numbers from 0 to 1; all of them when there are not more. */
  sample(count: number, random: () => number): readonly FleetWorker[] {
    const all = this.#members;
    if (all.length <= count) return all;
    const drawn: FleetWorker[] = [];
    // With replacement: among many the same is seldom drawn twice, and does no harm.
    for (let n = 0; n < count; n += 1) {
      const member = all[Math.floor(random() * all.length)];
      if (member !== undefined) drawn.push(member);
    }
    return drawn;
  }

  #set(member: Member, group: number, slots: number): void {
    const before = member.groups[group] ?? 0;
    if (before === slots) return;
    member.groups[group] = slots;
    this.#groupSlots[group] = (this.#groupSlots[group] ?? 0) + slots - before;
  }
}
