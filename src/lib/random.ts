/** A number from 0 up to, but not including, 1. A parameter of whatever draws lots, so that a run can be repeated. */
export type Random = () => number;

/** For choices that need not be repeated, and never for secrets. */
export const systemRandom: Random = () => Math.random();

/** Whole numbers from 0 to `end`, without it, of a seed. */
export const seededBelow = (seed: number): ((end: number) => number) => {
  const random = seededRandom(seed);
  return (end) => Math.floor(random() * end);
};

/** mulberry32: the same numbers for the same seed everywhere. For tests and measurements, never for secrets. */
export const seededRandom = (seed: number): Random => {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
};
