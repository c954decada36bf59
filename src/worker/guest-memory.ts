/** What the guest's kernel, the shim and the file cache of the start need beside the function, in MiB. */
const GUEST_BASE_MIB = 48;
/** The kernel keeps 64 bytes for every page of 4096: 1/64 of the memory, which is not the function's. */
const PAGE_STRUCTURES_SHARE: number = 1 / 64;
/** MicroVMs come in sizes of this step, so that functions of nearly the same size share a pool. */
const STEP_MIB = 64;

/**
 * Nominal memory of a microVM for a function with `memoryMb`. The function itself is held to `memoryMb` by a
 * cgroup inside the guest; what is beyond it is only touched by the guest's own kernel.
 */
export const guestMemoryMib = (memoryMb: number): number => {
  const needed = (memoryMb + GUEST_BASE_MIB) / (1 - PAGE_STRUCTURES_SHARE);
  return Math.ceil(needed / STEP_MIB) * STEP_MIB;
};
