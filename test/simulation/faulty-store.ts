import type { Clock } from "../../src/lib/clock.ts";
import type { Random } from "../../src/lib/random.ts";
import type { Store } from "../../src/store/store.ts";

/** Which methods wait for the disk. The type names them all: the compiler asks about each that is new. */
const IS_WRITE: Readonly<Record<Exclude<keyof Store, symbol>, boolean>> = {
  createFunction: true,
  getFunction: false,
  listFunctions: false,
  listVersions: false,
  updateFunction: true,
  publishVersion: true,
  deleteFunction: true,
  getTags: false,
  changeTags: true,
  usage: false,
  getReservedConcurrency: false,
  setReservedConcurrency: true,
  reservedConcurrency: false,
  digestsInUse: false,
  eventOffsetMs: false,
  keepEventOffset: true,
  boundEvents: true,
  enqueue: true,
  claim: true,
  queuedFunctions: false,
  takeOver: true,
  renew: true,
  settle: true,
  retry: true,
  nextDueMs: false,
  backlog: false,
  busiestFunctions: false,
};
const WRITES: ReadonlySet<string> = new Set(
  Object.entries(IS_WRITE).flatMap(([name, isWrite]) => (isWrite ? [name] : [])),
);

const SYNC_MS_MAX = 4;

/** What a disk says that is full, or broken. */
const diskError = (full: boolean): Error =>
  Object.assign(new Error(full ? "database or disk is full" : "disk I/O error"), {
    code: "ERR_SQLITE_ERROR",
    errcode: full ? 13 : 10,
    errstr: full ? "database or disk is full" : "disk I/O error",
  });

export interface FaultyDisk {
  /** Whether a write that reaches the disk now is refused by it. */
  readonly isFailing: () => boolean;
  /** Whether the process that wrote still lives. */
  readonly isDead: () => boolean;
}

/**
 * A process's view of a store that outlives it. A write takes a moment to reach the disk, and another one to be
 * acknowledged: a process that is killed before the first leaves nothing of it, one that is killed in between leaves what it
 * never heard of. While the disk fails a write is refused, and nothing of it is kept.
 */
export const faultyStore = (store: Store, clock: Clock, random: Random, disk: FaultyDisk): Store => {
  const never = new Promise<never>(() => {});
  const write = async (method: (...args: unknown[]) => Promise<unknown>, args: unknown[]): Promise<unknown> => {
    await clock.sleep(random() * SYNC_MS_MAX);
    if (disk.isDead()) return never;
    if (disk.isFailing()) throw diskError(random() < 0.5);
    const outcome = await method.apply(store, args).then(
      (value) => ({ value, error: null }),
      (error: unknown) => ({ value: null, error }),
    );
    await clock.sleep(random() * SYNC_MS_MAX);
    if (disk.isDead()) return never;
    if (outcome.error !== null) throw outcome.error;
    return outcome.value;
  };
  return new Proxy(store, {
    get: (target, name, receiver) => {
      const member: unknown = Reflect.get(target, name, receiver);
      if (typeof name !== "string" || !WRITES.has(name) || typeof member !== "function") return member;
      // Every write of a Store takes plain data and gives a promise.
      const method = member as (...args: unknown[]) => Promise<unknown>;
      return (...args: unknown[]) => write(method, args);
    },
  });
};
