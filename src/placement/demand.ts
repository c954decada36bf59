import { DEMAND_SPAN_MS, DEMAND_SPANS, FUNCTION_GROUPS } from "../wire/limits.ts";

/** Spans in which a group must have asked for slots before anything is concluded from it. */
const ACTIVE_SPANS_MIN = 3;
/** Coefficients below this are taken for chance: that of two unrelated series of 32 has a deviation of 0.18. */
const COEFFICIENT_MIN = 0.4;

/** A group, and how much its demand goes with that of another, up to 1. */
export interface Correlation {
  readonly group: number;
  readonly weight: number;
}

/**
 * When each group of functions asked for slots lately. Functions that grow at the same moments are kept on different
 * workers, so that a worker's slots do not all want its CPUs at once.
 */
export class Demand {
  /** Slots asked for, by group and span; span n stands at n modulo DEMAND_SPANS. */
  readonly #counts: Float64Array = new Float64Array(FUNCTION_GROUPS * DEMAND_SPANS);
  readonly #correlations: Map<number, readonly Correlation[]> = new Map();
  /** The groups' demand as vectors of length 1 around 0, so that their products are Pearson's coefficients; made once a span. */
  #vectors: Map<number, Float64Array> | null = null;
  #span = 0;

  /** A slot was asked for. */
  note(group: number, nowMs: number): void {
    this.#turn(nowMs);
    this.#add(group);
  }

  /** The other groups whose demand went with this one's over the last spans, by Pearson's coefficient. */
  correlations(group: number, nowMs: number): readonly Correlation[] {
    this.#turn(nowMs);
    let found = this.#correlations.get(group);
    if (found === undefined) {
      found = this.#correlate(group);
      this.#correlations.set(group, found);
    }
    return found;
  }

  #add(group: number): void {
    const at = group * DEMAND_SPANS + (this.#span % DEMAND_SPANS);
    this.#counts[at] = (this.#counts[at] ?? 0) + 1;
  }

  /** Begins a new span when it is time, and forgets those that are too old. */
  #turn(nowMs: number): void {
    const span = Math.floor(nowMs / DEMAND_SPAN_MS);
    if (span <= this.#span) return;
    const passed = Math.min(span - this.#span, DEMAND_SPANS);
    for (let one = span - passed + 1; one <= span; one += 1) {
      for (let at = one % DEMAND_SPANS; at < this.#counts.length; at += DEMAND_SPANS) this.#counts[at] = 0;
    }
    this.#span = span;
    this.#correlations.clear();
    this.#vectors = null;
  }

  #correlate(group: number): Correlation[] {
    const vectors = (this.#vectors ??= this.#allVectors());
    const found: Correlation[] = [];
    const own = vectors.get(group);
    if (own === undefined) return found;
    for (const [other, its] of vectors) {
      const weight = other === group ? 0 : dot(own, its);
      if (weight >= COEFFICIENT_MIN) found.push({ group: other, weight });
    }
    return found;
  }

  #allVectors(): Map<number, Float64Array> {
    const vectors = new Map<number, Float64Array>();
    for (let group = 0; group < FUNCTION_GROUPS; group += 1) {
      const vector = this.#vector(group);
      if (vector !== null) vectors.set(group, vector);
    }
    return vectors;
  }

  /** null when there is too little demand, or no change in it. */
  #vector(group: number): Float64Array | null {
    const counts = this.#counts.subarray(group * DEMAND_SPANS, (group + 1) * DEMAND_SPANS);
    let active = 0;
    let sum = 0;
    for (const count of counts) {
      if (count > 0) active += 1;
      sum += count;
    }
    if (active < ACTIVE_SPANS_MIN) return null;
    const deviations = counts.map((count) => count - sum / DEMAND_SPANS);
    const length = Math.sqrt(dot(deviations, deviations));
    return length < 1e-9 ? null : deviations.map((deviation) => deviation / length);
  }
}

const dot = (a: Float64Array, b: Float64Array): number => {
  let sum = 0;
  for (let at = 0; at < a.length; at += 1) sum += (a[at] ?? 0) * (b[at] ?? 0);
  return sum;
};
