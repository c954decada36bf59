/** Marks the file as ours ("HRTH"), so that another program's database is never taken for one. */
export const APPLICATION_ID = 0x48525448;

/** The schema version since which rows are sealed, variables encrypted, and commits counted. */
export const SEALED_SINCE = 3;

/**
 * One entry a schema version, applied in order; `user_version` counts those applied. An entry that was released is
 * never changed: a new one follows it.
 *
 * `version_number` 0 is $LATEST. `version_counters` outlives its function, so that no version number is used twice.
 * `due_at_ms` of an event is when it may next be claimed: a claim moves it to the end of its lease. `claimed_` say
 * which process claimed it last; null for one that is in nobody's hands. All times of events are in event time, which
 * the wall clock is ahead of by `event_clock.offset_ms`.
 *
 * `seal` is a row's checksum (`seal.ts`); null in rows that are not sealed yet, which `sealing.ts` then does at opening. Of
 * an event it covers what never changes. `environment` is encrypted; a record's JSON has no variables. `commits` has one
 * row, which counts the transactions that changed something (`mark.ts`). `deleted_functions` is the trash.
 */
export const MIGRATIONS: readonly string[] = [
  `
  CREATE TABLE functions (
    account_id TEXT NOT NULL,
    function_name TEXT NOT NULL,
    reserved_concurrency INTEGER,
    PRIMARY KEY (account_id, function_name)
  ) STRICT, WITHOUT ROWID;

  CREATE TABLE versions (
    account_id TEXT NOT NULL,
    function_name TEXT NOT NULL,
    version_number INTEGER NOT NULL,
    revision_id TEXT NOT NULL,
    code_bytes INTEGER NOT NULL,
    record TEXT NOT NULL,
    PRIMARY KEY (account_id, function_name, version_number),
    FOREIGN KEY (account_id, function_name) REFERENCES functions ON DELETE CASCADE
  ) STRICT, WITHOUT ROWID;

  CREATE TABLE version_counters (
    account_id TEXT NOT NULL,
    function_name TEXT NOT NULL,
    last_number INTEGER NOT NULL,
    PRIMARY KEY (account_id, function_name)
  ) STRICT, WITHOUT ROWID;

  CREATE TABLE tags (
    account_id TEXT NOT NULL,
    function_name TEXT NOT NULL,
    tag_key TEXT NOT NULL,
    tag_value TEXT NOT NULL,
    PRIMARY KEY (account_id, function_name, tag_key),
    FOREIGN KEY (account_id, function_name) REFERENCES functions ON DELETE CASCADE
  ) STRICT, WITHOUT ROWID;

  CREATE TABLE events (
    sequence INTEGER PRIMARY KEY,
    event_id TEXT NOT NULL UNIQUE,
    account_id TEXT NOT NULL,
    function_name TEXT NOT NULL,
    qualifier TEXT NOT NULL,
    payload BLOB NOT NULL,
    accepted_at_ms INTEGER NOT NULL,
    attempts INTEGER NOT NULL,
    throttles INTEGER NOT NULL,
    trace_id TEXT,
    due_at_ms INTEGER NOT NULL
  ) STRICT;

  CREATE INDEX events_due ON events (due_at_ms, sequence);
  `,
  `
  ALTER TABLE events ADD COLUMN claimed_instance TEXT;
  ALTER TABLE events ADD COLUMN claimed_incarnation TEXT;
  `,
  `
  ALTER TABLE functions ADD COLUMN seal INTEGER;
  ALTER TABLE versions ADD COLUMN environment BLOB;
  ALTER TABLE versions ADD COLUMN seal INTEGER;
  ALTER TABLE version_counters ADD COLUMN seal INTEGER;
  ALTER TABLE tags ADD COLUMN seal INTEGER;
  ALTER TABLE events ADD COLUMN seal INTEGER;

  CREATE TABLE commits (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    count INTEGER NOT NULL
  ) STRICT;

  INSERT INTO commits VALUES (1, 0);

  CREATE TABLE deleted_functions (
    sequence INTEGER PRIMARY KEY,
    account_id TEXT NOT NULL,
    function_name TEXT NOT NULL,
    deleted_at_ms INTEGER NOT NULL,
    content TEXT NOT NULL,
    seal INTEGER NOT NULL
  ) STRICT;
  `,
  `
  CREATE TABLE event_clock (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    offset_ms INTEGER NOT NULL
  ) STRICT;
  `,
  // Events are claimed function by function; what a process had claimed is found without a look at the rest.
  `
  DROP INDEX events_due;
  CREATE INDEX events_by_function ON events (account_id, function_name, due_at_ms, sequence);
  CREATE INDEX events_claimed ON events (claimed_instance) WHERE claimed_instance IS NOT NULL;
  `,
];
