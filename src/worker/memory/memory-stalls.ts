import { closeSync, openSync, writeSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import type { Clock } from "../../lib/clock.ts";
import { Watch } from "../../vmm/poller.ts";
import type { WatchOwner } from "../../vmm/poller.ts";
import { MEMORY_STALL_US, MEMORY_STALL_WINDOW_US } from "../../wire/limits.ts";

const US_PER_MS = 1000;

/** Tells of stalls until it is disposed of. */
export interface MemoryStallWatch extends Disposable {
  /** Looks whether there was one since the last look, where nothing else tells. Never rejects. */
  look(): Promise<void>;
}

/** A trigger that calls when it fires, and once at the start. */
interface Trigger {
  readonly fd: number;
  readonly watch: Watch;
}

/**
 * Tells when tasks wait for memory, by the host's pressure file or that of a control group ("PSI - Pressure Stall
 * Information" in the kernel's documentation): by a trigger, or where we may not set one (windows this short take
 * CAP_SYS_RESOURCE) by what `look` reads. On a host without PSI it is silent.
 */
export class MemoryStalls implements MemoryStallWatch {
  readonly #files: readonly string[];
  readonly #clock: Clock;
  readonly #onStall: () => void;
  readonly #trigger: Trigger | null;
  /** Waited so far, and when that was read. */
  #last: { readonly us: number; readonly atMs: number } | null = null;

  /** `group`: the directory of the control group whose stalls count; null for the whole host. */
  constructor(group: string | null, clock: Clock, onStall: () => void, host = "/proc/pressure/memory") {
    // Only version 2 has it.
    this.#files = [...(group === null ? [] : [join(group, "memory.pressure")]), host];
    this.#clock = clock;
    this.#onStall = onStall;
    this.#trigger = openTrigger(this.#files, ownerBy(clock), onStall);
  }

  /** Looks whether there was a stall since the last look, where no trigger tells. Never rejects. */
  async look(): Promise<void> {
    if (this.#trigger !== null) return;
    const us = await waitedUs(this.#files);
    if (us === null) return;
    const last = this.#last;
    const nowMs = this.#clock.monotonicMs();
    this.#last = { us, atMs: nowMs };
    if (last === null) return;
    const share = (us - last.us) / ((nowMs - last.atMs) * US_PER_MS);
    if (share >= MEMORY_STALL_US / MEMORY_STALL_WINDOW_US) this.#onStall();
  }

  [Symbol.dispose](): void {
    if (this.#trigger === null) return;
    this.#trigger.watch[Symbol.dispose]();
    closeSync(this.#trigger.fd);
  }
}

/** The work is a call of the clock's: what that throws ends where a timer's does. */
const ownerBy = (clock: Clock): WatchOwner => ({ run: (work) => void clock.soon(work) });

const openTrigger = (files: readonly string[], owner: WatchOwner, onFire: () => void): Trigger | null => {
  for (const file of files) {
    let fd: number | null = null;
    try {
      fd = openSync(file, "r+");
      // The kernel drops the last byte. The file is always readable; what wakes its watcher is the trigger.
      writeSync(fd, `some ${MEMORY_STALL_US} ${MEMORY_STALL_WINDOW_US}\0`);
      return { fd, watch: new Watch(fd, owner, onFire) };
    } catch {
      if (fd !== null) closeSync(fd);
    }
  }
  return null;
};

/** Time in which some task waited, in µs, from the first of the files that has it. */
const waitedUs = async (files: readonly string[]): Promise<number | null> => {
  for (const file of files) {
    const text = await readFile(file, "utf8").catch(() => "");
    const total = /^some .*total=(\d+)$/m.exec(text)?.[1];
    if (total !== undefined) return Number(total);
  }
  return null;
};
