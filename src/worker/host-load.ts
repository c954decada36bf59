import { readFile, statfs } from "node:fs/promises";
import { availableParallelism } from "node:os";
import type { Clock } from "../lib/clock.ts";
import { HOST_LOAD_MS_MIN } from "../wire/limits.ts";
import type { WorkerReport } from "../wire/roles.ts";

export type HostShares = Pick<
  WorkerReport,
  "cpuShare" | "networkShare" | "storageBytesTotal" | "storageBytesAvailable"
>;

interface Counters {
  readonly atMs: number;
  /** CPU time in use, of all CPUs together, in ticks of USER_HZ. */
  readonly busyTicks: number;
  readonly networkBytes: number;
}

/** USER_HZ, the unit of /proc/stat: 100 on every architecture that Hearth runs on (proc_stat(5)). */
const TICKS_PER_S = 100;
/** Capacity that a network interface is reckoned to have when it does not say, such as a virtual one: 10 Gbit/s. */
const NETWORK_BYTES_PER_S = 1_250_000_000;
const MS_PER_S = 1000;

/** First line of /proc/stat: all but idle (4th) and iowait (5th). Guest time is part of user time already. */
const busyTicksOf = (stat: string): number => {
  const [user = 0, nice = 0, system = 0, , , irq = 0, softirq = 0, steal = 0] = stat
    .slice(0, stat.indexOf("\n"))
    .split(/\s+/)
    .slice(1)
    .map(Number);
  return user + nice + system + irq + softirq + steal;
};

/** Bytes in and out of every interface but the loopback (/proc/net/dev, proc_pid_net(5)): 1st and 9th number of a line. */
const networkBytesOf = (dev: string): number => {
  let bytes = 0;
  for (const match of dev.matchAll(/^\s*(\S+):\s*(.*)$/gm)) {
    const numbers = (match[2] ?? "").split(/\s+/).map(Number);
    if (match[1] !== "lo") bytes += (numbers[0] ?? 0) + (numbers[8] ?? 0);
  }
  return bytes;
};

const clamp = (share: number): number => Math.min(1, Math.max(0, share));

/** How much of a host is in use besides its memory, measured between one call and the next. */
export class HostLoad {
  readonly #storagePath: string;
  readonly #clock: Clock;
  #last: Counters | null = null;
  #shares: HostShares = { cpuShare: 0, networkShare: 0, storageBytesTotal: 0, storageBytesAvailable: 0 };

  /** `storagePath` is on the file system whose room counts. */
  constructor(storagePath: string, clock: Clock) {
    this.#storagePath = storagePath;
    this.#clock = clock;
  }

  /** Never rejects: what cannot be read keeps its last value. */
  async read(): Promise<HostShares> {
    const last = this.#last;
    const atMs = this.#clock.monotonicMs();
    if (last !== null && atMs - last.atMs < HOST_LOAD_MS_MIN) return this.#shares;
    const [stat, dev, storage] = await Promise.all([
      readFile("/proc/stat", "utf8").catch(() => ""),
      readFile("/proc/net/dev", "utf8").catch(() => ""),
      statfs(this.#storagePath).catch(() => null),
    ]);
    const now = { atMs, busyTicks: busyTicksOf(stat), networkBytes: networkBytesOf(dev) };
    this.#last = now;
    const seconds = last === null ? 0 : (atMs - last.atMs) / MS_PER_S;
    const share = (used: number, capacityPerS: number): number =>
      seconds === 0 ? 0 : clamp(used / (seconds * capacityPerS));
    this.#shares = {
      cpuShare: share(now.busyTicks - (last?.busyTicks ?? 0), TICKS_PER_S * availableParallelism()),
      networkShare: share(now.networkBytes - (last?.networkBytes ?? 0), NETWORK_BYTES_PER_S),
      storageBytesTotal: storage === null ? this.#shares.storageBytesTotal : storage.blocks * storage.bsize,
      storageBytesAvailable: storage === null ? this.#shares.storageBytesAvailable : storage.bavail * storage.bsize,
    };
    return this.#shares;
  }
}
