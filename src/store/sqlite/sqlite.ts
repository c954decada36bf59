import { dirname, join } from "node:path";
import type { DatabaseSync } from "node:sqlite";
import type { Clock } from "../../lib/clock.ts";
import type { EventStore, FunctionStore, Store } from "../store.ts";
import { assertNotForgotten, markPath, reservePath } from "../data-directory.ts";
import { openEnvironmentKeys, passingKeys } from "../environment-keys.ts";
import type { EnvironmentKeys } from "../environment-keys.ts";
import { DeletedFunctions } from "./deleted-functions.ts";
import { SqliteEvents } from "./events.ts";
import { FunctionHealth } from "./function-health.ts";
import { SqliteFunctions } from "./functions.ts";
import { GroupCommit } from "./group-commit.ts";
import { Mark } from "./mark.ts";
import { commitsOf, IN_MEMORY, openDatabase } from "./open.ts";
import { RecordCodec } from "./records.ts";
import { noReserve, Reserve } from "./reserve.ts";
import { MIGRATIONS } from "./schema.ts";

/** Every method of a Store but its disposal, forwarded to the half it belongs to. */
const joined = (functions: FunctionStore, events: EventStore): FunctionStore & EventStore => ({
  createFunction: (...args) => functions.createFunction(...args),
  getFunction: (...args) => functions.getFunction(...args),
  listFunctions: (...args) => functions.listFunctions(...args),
  listVersions: (...args) => functions.listVersions(...args),
  updateFunction: (...args) => functions.updateFunction(...args),
  publishVersion: (...args) => functions.publishVersion(...args),
  deleteFunction: (...args) => functions.deleteFunction(...args),
  getTags: (...args) => functions.getTags(...args),
  changeTags: (...args) => functions.changeTags(...args),
  usage: (...args) => functions.usage(...args),
  getReservedConcurrency: (...args) => functions.getReservedConcurrency(...args),
  setReservedConcurrency: (...args) => functions.setReservedConcurrency(...args),
  reservedConcurrency: (accountId) => functions.reservedConcurrency(accountId),
  digestsInUse: () => functions.digestsInUse(),
  eventOffsetMs: () => events.eventOffsetMs(),
  keepEventOffset: (offsetMs) => events.keepEventOffset(offsetMs),
  boundEvents: (latestMs) => events.boundEvents(latestMs),
  enqueue: (event) => events.enqueue(event),
  claim: (...args) => events.claim(...args),
  takeOver: (...args) => events.takeOver(...args),
  renew: (...args) => events.renew(...args),
  settle: (eventId) => events.settle(eventId),
  retry: (...args) => events.retry(...args),
  queuedFunctions: (...args) => events.queuedFunctions(...args),
  backlog: () => events.backlog(),
  busiestFunctions: (count) => events.busiestFunctions(count),
  nextDueMs: () => events.nextDueMs(),
});

export interface SqliteStoreOptions {
  /** Where systemd puts credentials (CREDENTIALS_DIRECTORY): a key of environment variables may be among them. */
  readonly credentialsDirectory?: string | undefined;
  /** Told of damage that was found, and of what was done to the data at opening. */
  readonly onDamage?: (message: string) => void;
}

/** In the folder `keys` beside the database. */
const keysOf = (path: string, clock: Clock, credentials: string | undefined): EnvironmentKeys =>
  path === IN_MEMORY
    ? passingKeys(clock.wallMs())
    : openEnvironmentKeys(join(dirname(path), "keys"), { nowMs: clock.wallMs(), credentials, make: true });

/**
 * The Store in one SQLite file (`:memory:` for one that is forgotten). Throws StoreOpenError when the file is damaged, has
 * lost what was acknowledged, is newer than this program, or another program's. A damaged row is no reason to: its
 * function is Failed.
 */
export const openSqliteStore = (path: string, clock: Clock, options: SqliteStoreOptions = {}): Store => {
  const { onDamage = () => undefined } = options;
  // Before keys are made there.
  if (path !== IN_MEMORY) assertNotForgotten(path);
  const keys = keysOf(path, clock, options.credentialsDirectory);
  for (const name of keys.damaged) onDamage(`The key file ${name} is damaged; put a copy of it back.`);
  using stack = new DisposableStack();
  const database: DatabaseSync = openDatabase(path, keys, onDamage);
  stack.defer(() => database.close());
  const mark = path === IN_MEMORY ? null : stack.use(new Mark(markPath(path), onDamage));
  mark?.write(commitsOf(database, MIGRATIONS.length) ?? 0);
  const reserve = path === IN_MEMORY ? noReserve : stack.use(new Reserve(reservePath(path), { clock, tell: onDamage }));
  const writes = new GroupCommit(database, clock, reserve, (commits) => mark?.note(commits));
  const health = new FunctionHealth(database, onDamage);
  const trash = new DeletedFunctions(database, () => clock.wallMs());
  const functions = new SqliteFunctions(database, writes, new RecordCodec(keys), trash, health);
  const events = new SqliteEvents(database, writes, onDamage);
  const owned = stack.move();
  return {
    ...joined(functions, events),
    [Symbol.asyncDispose]: async () => {
      writes.flush();
      owned.dispose();
    },
  };
};
