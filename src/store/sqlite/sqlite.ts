import type { DatabaseSync } from "node:sqlite";
import type { Clock } from "../../lib/clock.ts";
import type { EventStore, FunctionStore, Store } from "../store.ts";
import { SqliteEvents } from "./events.ts";
import { SqliteFunctions } from "./functions.ts";
import { GroupCommit } from "./group-commit.ts";
import { openDatabase } from "./open.ts";

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
  enqueue: (event) => events.enqueue(event),
  claim: (...args) => events.claim(...args),
  takeOver: (...args) => events.takeOver(...args),
  renew: (...args) => events.renew(...args),
  settle: (eventId) => events.settle(eventId),
  retry: (...args) => events.retry(...args),
  backlog: () => events.backlog(),
  nextDueMs: () => events.nextDueMs(),
});

/**
 * The Store in one SQLite file (`:memory:` for one that is forgotten). Throws StoreOpenError when the file is damaged,
 * newer than this program, or another program's.
 */
export const openSqliteStore = (path: string, clock: Clock): Store => {
  const database: DatabaseSync = openDatabase(path);
  const writes = new GroupCommit(database, clock);
  return {
    ...joined(new SqliteFunctions(database, writes), new SqliteEvents(database, writes)),
    [Symbol.asyncDispose]: async () => {
      writes.flush();
      database.close();
    },
  };
};
