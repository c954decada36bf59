import type { CpuShare } from "../vmm/microvm.ts";
import { MEMORY_MB_PER_VCPU } from "../wire/limits.ts";

/** Whether a function may have more of its CPU than its memory gives it: `soft` while nobody else wants it, `strict` never. */
export type CpuPolicy = "soft" | "strict";

/**
 * The part of a CPU that comes with a function's memory, at most one: a microVM lives on one CPU at a time.
 * During init nothing is held back, as on Lambda, where it is short and whoever called waits for it.
 */
export const cpuShare = (memoryMb: number, policy: CpuPolicy, phase: "init" | "invoke"): CpuShare => ({
  share: Math.min(1, memoryMb / MEMORY_MB_PER_VCPU),
  hard: policy === "strict" && phase === "invoke",
});
