/** Limits of starts and of the time that they may take, each with its reason. */

/**
 * Starts under way at once for each CPU. A start is CPU time, but for short waits between our process and its guest: the
 * second one fills those (bench `burst`), a third one only makes all of them slower.
 */
export const STARTS_PER_CPU = 2;
/** Turns beyond those, for functions that have no start under way: a burst of another function holds none of them. */
export const STARTS_FIRST = 1;
/**
 * CPU time after which a start that still wants CPU gives its turn away and goes on beside the others: an init that
 * computes for seconds must not hold up who needs milliseconds. The start of a usual runtime takes a fifth of it.
 */
export const START_TURN_CPU_MS_MAX = 1_000;
/** The same in time that passes, for a start that gets nowhere. */
export const START_TURN_MS_MAX = 10_000;
/** How often a start under way is looked at: whether it still wants CPU, or waits for a network or a clock. */
export const START_LOOK_MS = 100;
/** A start that wanted a smaller share of the CPU than this between two looks is not held back by others, nor holds it them. */
export const START_CPU_SHARE_MIN = 0.5;

/**
 * Least share of a CPU that a start weighs while it has its turn: as few of them as there are with a turn may take from those
 * that work, and what somebody waits for is not to go at the pace of a function of 128 MB.
 */
export const START_WEIGHT_MIN = 0.5;
/**
 * An invocation that ran into its limit did so for want of CPU when it waited for one for such a part of the time and ran
 * for less than such a part of what its memory buys. Below 1, because a hard quota is kept by waiting as well.
 */
export const DENIED_WAITED_MIN = 0.5;
export const DENIED_RAN_MAX = 0.8;

/** How often the time is reckoned that a guest could use. */
export const USABLE_LOOK_MS = 1_000;
/**
 * How long a guest may take in time that passes, however little of it it could use: an end there must be, and the longest
 * timeout of a function is one that operators know.
 */
export const STARVED_MS_MAX = 900_000;
