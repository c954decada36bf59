/** Named figures of one bench; `samplesMs` holds every single duration, for a plot. */
export type Result = Readonly<Record<string, number | string | readonly number[]>>;
