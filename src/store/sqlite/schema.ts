/** Marks the file as ours ("HRTH"), so that another program's database is never taken for one. */
export const APPLICATION_ID = 0x48525448;

/**
 * One entry a schema version, applied in order; `user_version` counts those applied. An entry that was released is
 * never changed: a new one follows it.
 *
 * `version_number` 0 is $LATEST. `version_counters` outlives its function, so that no version number is used twice.
 * `due_at_ms` of an event is when it may next be claimed: a claim moves it to the end of its lease. `claimed_` say
 * which process claimed it last; null for one that is in nobody's hands.
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
];
