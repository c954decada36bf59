import type { Clock, Timer } from "../../lib/clock.ts";
import { CPU_REBALANCE_MS } from "../limits.ts";

/** Who lives on a CPU, as the allocator sees it. */
export interface CpuTenant {
  /** CPU time used so far, in µs; null when it is not known here. */
  cpuTimeUs(): number | null;
  /** Takes all its tasks to another CPU; false when the host does not let it. */
  moveTo(cpu: number): boolean;
}

/** From this part of its CPU's time on a CPU counts as full: what its tenants want beyond it cannot be seen. */
const FULL = 0.85;
/** A move must take at least so much, in CPUs, off the fuller of two CPUs. */
const GAIN_MIN = 0.1;

/** So much fuller than another, in parts of those that work on it, may a CPU be before one that gets work leaves it. */
const CROWD_SLACK = 1 / 4;

/**
 * A microVM's place on one of the host's CPUs. Disposing gives it back. It counts as busy from the start: it boots.
 */
export class CpuPlace implements Disposable {
  readonly #allocator: CpuAllocator;
  /** Asked for by name, or not to be left: it stays. */
  fixed: boolean;
  cpu: number;
  /** null while it is being spawned. */
  tenant: CpuTenant | null = null;
  /** CPU time at the last round of the rebalancer; null when it was not busy then. */
  sampledUs: number | null = null;
  /** Part of a CPU that it is thought to want, 0 to 1. */
  demand = 0;

  constructor(allocator: CpuAllocator, cpu: number, fixed: boolean) {
    this.#allocator = allocator;
    this.cpu = cpu;
    this.fixed = fixed;
  }

  /** Says whether the microVM has work. One that gets some is moved at once when that gives it a CPU of its own. */
  setBusy(busy: boolean): void {
    this.#allocator.setBusy(this, busy);
  }

  [Symbol.dispose](): void {
    this.#allocator.release(this);
  }
}

interface Cpu {
  readonly number: number;
  /** Places on it. */
  count: number;
  /** Those of them that have work. */
  readonly busy: Set<CpuPlace>;
}

/**
 * Spreads microVMs over the host's CPUs. A microVM runs on one CPU at a time, so no scheduler of the host evens them out:
 * that is done here, by where those are that have work; idle ones weigh nothing. A microVM gets its CPU when it is
 * spawned, may change it when it gets work, and again while it works when what it and the others really use shows that
 * another CPU has room. Everything else on the host is free to move out of the way.
 */
export class CpuAllocator implements Disposable {
  /** The one that was chosen last is the last among equals. */
  #cpus: Cpu[];
  readonly #clock: Clock;
  #timer: Timer | null = null;
  #sampledAtMs = 0;
  /** Moves so far. */
  moves = 0;

  constructor(cpus: readonly number[], clock: Clock) {
    this.#cpus = cpus.map((number) => ({ number, count: 0, busy: new Set() }));
    this.#clock = clock;
    if (this.#cpus.length === 0) throw new Error("No CPU is left for microVMs");
  }

  /** A place on the wished CPU, or on the one with the least work. */
  take(wished: number | null): CpuPlace {
    const cpu = wished === null ? this.#best() : this.#cpus.find(({ number }) => number === wished);
    if (cpu === undefined) throw new Error(`CPU ${String(wished)} is not among those for microVMs`);
    this.#cpus = [...this.#cpus.filter((other) => other !== cpu), cpu];
    const place = new CpuPlace(this, cpu.number, wished !== null);
    cpu.count += 1;
    cpu.busy.add(place);
    this.#watch();
    return place;
  }

  release(place: CpuPlace): void {
    const cpu = this.#of(place);
    cpu.count -= 1;
    cpu.busy.delete(place);
  }

  setBusy(place: CpuPlace, busy: boolean): void {
    const cpu = this.#of(place);
    if (cpu.busy.has(place) === busy) return;
    place.sampledUs = null;
    if (!busy) {
      cpu.busy.delete(place);
      return;
    }
    // A move costs a tenth of a millisecond and its caches: only for a CPU of its own, or from a crowd to a clearly smaller
    // one. Where dozens work on each CPU, one more or less is no reason: each of them would move at every call.
    const others = cpu.busy.size;
    cpu.busy.add(place);
    const best = this.#best();
    const gain = best.busy.size === 0 ? 1 : 2 + Math.floor(others * CROWD_SLACK);
    if (others - best.busy.size >= gain) this.#move(place, best);
    this.#watch();
  }

  /** Looks where microVMs that work for longer really use their CPU, and moves some to where there is room. */
  rebalance(): void {
    const nowMs = this.#clock.monotonicMs();
    const elapsedUs = (nowMs - this.#sampledAtMs) * 1000;
    this.#sampledAtMs = nowMs;
    const wanted = new Map(this.#cpus.map((cpu) => [cpu, this.#sample(cpu, elapsedUs)]));
    const [first] = this.#cpus;
    if (first === undefined) return;
    for (;;) {
      let [most, least] = [first, first];
      for (const cpu of this.#cpus) {
        if ((wanted.get(cpu) ?? 0) > (wanted.get(most) ?? 0)) most = cpu;
        if ((wanted.get(cpu) ?? 0) < (wanted.get(least) ?? 0)) least = cpu;
      }
      const gap = (wanted.get(most) ?? 0) - (wanted.get(least) ?? 0);
      const place = bestMove(most, gap);
      if (place === null) return;
      // Nothing of it is left to be moved in this round, whether or not it could be.
      wanted.set(most, (wanted.get(most) ?? 0) - place.demand);
      wanted.set(least, (wanted.get(least) ?? 0) + place.demand);
      this.#move(place, least);
      place.demand = 0;
    }
  }

  [Symbol.dispose](): void {
    this.#timer?.[Symbol.dispose]();
    this.#timer = null;
  }

  #of(place: CpuPlace): Cpu {
    const cpu = this.#cpus.find(({ number }) => number === place.cpu);
    if (cpu === undefined) throw new Error(`CPU ${String(place.cpu)} is not among those for microVMs`);
    return cpu;
  }

  /** Where the fewest work; among equals where the fewest are; among equals the one that waited longest. */
  #best(): Cpu {
    return this.#cpus.reduce((best, cpu) =>
      cpu.busy.size < best.busy.size || (cpu.busy.size === best.busy.size && cpu.count < best.count) ? cpu : best,
    );
  }

  #move(place: CpuPlace, to: Cpu): void {
    const from = this.#of(place);
    if (from === to || place.fixed || place.tenant === null) return;
    try {
      if (!place.tenant.moveTo(to.number)) {
        place.fixed = true;
        return;
      }
    } catch {
      // Its tasks cannot be listed now: it stays where it is.
      return;
    }
    this.moves += 1;
    from.count -= 1;
    to.count += 1;
    if (from.busy.delete(place)) to.busy.add(place);
    place.cpu = to.number;
  }

  /** What the tenants of a CPU that were busy all the time want together, in CPUs. */
  #sample(cpu: Cpu, elapsedUs: number): number {
    const measured: CpuPlace[] = [];
    let used = 0;
    for (const place of cpu.busy) {
      place.demand = 0;
      const before = place.sampledUs;
      place.sampledUs = cpuTimeUsOf(place);
      if (before === null || place.sampledUs === null || elapsedUs <= 0) continue;
      place.demand = Math.min(1, (place.sampledUs - before) / elapsedUs);
      used += place.demand;
      measured.push(place);
    }
    // On a full CPU who got about its part would have taken more.
    if (used > FULL) for (const place of measured) if (place.demand > 0.5 / measured.length) place.demand = 1;
    return measured.reduce((sum, place) => sum + place.demand, 0);
  }

  /** Only where two work on one CPU is there anything to be moved. */
  #watch(): void {
    if (this.#timer !== null || this.#cpus.length === 1 || !this.#cpus.some(({ busy }) => busy.size > 1)) return;
    this.#sampledAtMs = this.#clock.monotonicMs();
    this.#timer = this.#clock.every(CPU_REBALANCE_MS, () => {
      this.rebalance();
      if (this.#cpus.some(({ busy }) => busy.size > 1)) return;
      this[Symbol.dispose]();
    });
  }
}

/** null where it cannot be read, for want of a descriptor or because its group is just being removed. */
const cpuTimeUsOf = ({ tenant }: CpuPlace): number | null => {
  try {
    return tenant?.cpuTimeUs() ?? null;
  } catch {
    return null;
  }
};

/** The tenant whose move would even out a gap between two CPUs best; null when none is worth it. */
const bestMove = (from: Cpu, gap: number): CpuPlace | null => {
  let best: CpuPlace | null = null;
  let bestGain = GAIN_MIN;
  for (const place of from.busy) {
    const gain = Math.min(place.demand, gap - place.demand);
    if (place.fixed || gain < bestGain) continue;
    best = place;
    bestGain = gain;
  }
  return best;
};
