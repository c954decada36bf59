/**
 * Every limit of the service, once. Lambda's own quotas and model constraints ("Lambda quotas" in AWS's
 * developer guide, and the constraints of the service model) unless a comment says that the limit is Hearth's.
 */

const MIB = 1024 * 1024;

/** Name as given may be an ARN (140); the bare name may have 64. */
export const FUNCTION_NAME_CHARS_MAX = 140;
export const FUNCTION_BARE_NAME_CHARS_MAX = 64;
/** Name with its qualifier, where an operation reads or invokes. */
export const VERSIONED_NAME_CHARS_MAX = 170;
export const QUALIFIER_CHARS_MAX = 128;
export const LOG_GROUP_CHARS_MAX = 512;
export const RESOURCE_ARN_CHARS_MAX = 10_000;
export const HANDLER_CHARS_MAX = 128;
export const DESCRIPTION_CHARS_MAX = 256;

export const MEMORY_MB_MIN = 128;
export const MEMORY_MB_MAX = 10_240;
export const MEMORY_MB_DEFAULT = 128;
/** Memory that comes with one whole vCPU; with less of it comes as much less ("Configure Lambda function memory" in AWS's developer guide). */
export const MEMORY_MB_PER_VCPU = 1_769;
export const TIMEOUT_S_MIN = 1;
export const TIMEOUT_S_MAX = 900;
export const TIMEOUT_S_DEFAULT = 3;
export const EPHEMERAL_MB_MIN = 512;
export const EPHEMERAL_MB_MAX = 10_240;
export const EPHEMERAL_MB_DEFAULT = 512;

export const ENVIRONMENT_BYTES_MAX: number = 4 * 1024;
export const LAYERS_MAX = 5;
export const TAGS_MAX = 50;

/** Sync payloads, each way: 6 MiB and the envelope that AWS grants. */
export const PAYLOAD_BYTES_MAX = 6_291_556;
export const PAYLOAD_ASYNC_BYTES_MAX: number = 1 * MIB;
export const CLIENT_CONTEXT_BYTES_MAX = 3_583;
export const LOG_TAIL_BYTES_MAX: number = 4 * 1024;

export const ZIP_BYTES_MAX = 52_428_800;
export const UNZIPPED_BYTES_MAX = 262_144_000;
/** Hearth's own: entries of one archive, against archives made of millions of empty files. */
export const ZIP_ENTRIES_MAX = 100_000;
/** Body of CreateFunction and UpdateFunctionCode: a zip in base64 and the rest. */
export const REQUEST_BODY_BYTES_MAX = 70_167_211;
export const CODE_STORAGE_BYTES_MAX = 80_530_636_800;

export const CONCURRENCY_ACCOUNT_DEFAULT = 1_000;
/** Concurrency that must stay unreserved. */
export const CONCURRENCY_UNRESERVED_MIN = 100;

export const INIT_TIMEOUT_MS = 10_000;
export const OPEN_FILES_MAX = 1_024;
export const PIDS_MAX = 1_024;

export const LIST_ITEMS_PER_PAGE = 50;

/** Async invocations: retries after the first attempt, their delays, and how long an event may wait. */
export const ASYNC_RETRIES_MAX_DEFAULT = 2;
export const ASYNC_RETRY_DELAYS_MS: readonly [number, number] = [60_000, 120_000];
export const ASYNC_EVENT_AGE_S_MAX_DEFAULT = 21_600;
/** Throttles and service errors go back to the queue: first delay and longest. */
export const ASYNC_BACKOFF_MS_MIN = 1_000;
export const ASYNC_BACKOFF_MS_MAX = 300_000;

/** Hearth's own: a function's new state that the store could not take is stored again after this, doubled each time up to the longest. */
export const SETTLE_RETRY_MS_MIN = 100;
export const SETTLE_RETRY_MS_MAX = 10_000;

/** Hearth's own: a lease on a slot that is not renewed ends after this. */
export const LEASE_MS = 10_000;
/** Hearth's own: how long an idle slot is kept warm. */
export const SLOT_IDLE_MS_DEFAULT = 600_000;
/** Hearth's own: a slot ends after this age, busy or not at the end of its invocation. */
export const SLOT_AGE_MS_MAX = 7_200_000;
/** Hearth's own: how long past its deadline a guest may take to report before the microVM is killed. */
export const DEADLINE_GRACE_MS = 1_000;
/**
 * Hearth's own: how long past its deadline an answer may wait for a slow reader inside the guest. Then it is taken into
 * our own memory, so that the end of the invocation, which comes behind it, can be seen.
 */
export const DEADLINE_READ_ON_MS = 500;
/** Hearth's own: so much may come then. A guest holds 1 MiB of an answer at most, and its socket as much again. */
export const OVERDUE_BYTES_MAX: number = 4 * MIB;
/**
 * Hearth's own: how long past the limit of an init a guest may take to tell of it before its microVM is given up. The limits of
 * an init, of a boot and of what prepares a runtime are in time that the guest could use: without what it waited for a CPU.
 */
export const INIT_GRACE_MS = 5_000;
/**
 * Hearth's own: how long a reservation may wait for a slot, and then an invocation for the init of its slot, before the
 * client is told to come again. Both below the usual read timeout of AWS's clients (60 s), so that they hear of it.
 */
export const SLOT_WAIT_MS_MAX = 50_000;
export const INIT_WAIT_MS_MAX = 50_000;
/** Hearth's own: spawn → shim's hello; over this the microVM is given up. */
export const BOOT_TIMEOUT_MS = 30_000;

/**
 * Hearth's own: lines of its own log that wait for a slow reader, together; over this they are dropped and counted. A pipe
 * that is full, or a destination that failed, is tried again after this, doubled each time up to the longest.
 */
export const HOST_LOG_PENDING_BYTES_MAX: number = MIB;
export const HOST_LOG_RETRY_MS_MIN = 10;
export const HOST_LOG_RETRY_MS_MAX = 1_000;

/** Hearth's own: a log line longer than this is cut into several. CloudWatch's limit of one event. */
export const LOG_LINE_BYTES_MAX: number = 256 * 1024;
/** Hearth's own: a function's log file is rotated at this size, and so many rotated files are kept. */
export const LOG_FILE_BYTES_MAX: number = 16 * MIB;
export const LOG_FILES_MAX = 4;
/** Hearth's own: records waiting to be written, for one function and for all; over this they are dropped and counted. */
export const LOG_PENDING_BYTES_MAX: number = 2 * MIB;
export const LOG_PENDING_BYTES_TOTAL_MAX: number = 64 * MIB;
/** Hearth's own: records are written to disk in batches, this long after the first of a batch: what a kill may cost. */
export const LOG_FLUSH_MS = 5;
/** Hearth's own: log files held open between batches, and for how long one is that nothing is written to. */
export const LOG_OPEN_FILES_MAX = 64;
export const LOG_OPEN_MS = 1_000;
/**
 * Hearth's own: how often logs that are kept no longer are looked for; and how soon after a file more came to be, so that
 * floods of many functions neither fill the disk nor have it searched all the time.
 */
export const LOG_TRIM_MS: number = 10 * 60_000;
export const LOG_TRIM_MS_MIN = 5_000;
/** Hearth's own: how long a log that nothing is written to is kept, and how much of the disk all logs may take: a share of it, up to so much. */
export const LOG_AGE_DAYS_DEFAULT = 30;
export const LOG_AGE_DAYS_MAX = 3_650;
export const LOGS_DISK_SHARE = 0.1;
export const LOGS_MB_DEFAULT_MAX = 4_096;
export const LOGS_MB_MIN = 16;
/** Hearth's own: spans wait this long for others to be sent with, and so long at most when Hearth stops. */
export const TRACE_EXPORT_MS = 1_000;
export const TRACE_FLUSH_MS_MAX = 2_000;
/** Hearth's own: that spans could not be sent is told once in so long. */
export const TRACE_WARN_MS = 60_000;
/**
 * Hearth's own: how long `hearth up` waits for running invocations when it is told to stop, unless told otherwise: ten times
 * Lambda's default timeout of a function. An event that is cut off is run again at the next start.
 */
export const DRAIN_S_DEFAULT = 30;

/** Hearth's own: microVMs kept ready of every size and runtime in demand, and at most of all together. */
export const POOL_FLOOR = 2;
export const POOL_MAX = 64;
/** Hearth's own: span over which the pool counts its demand. */
export const POOL_DEMAND_MS = 10_000;
/** Hearth's own: what nobody asked for in the first span shrinks to the floor, in the second to nothing. */
export const POOL_SHRINK_MS = 60_000;
export const POOL_KEEP_MS = 300_000;
/** Hearth's own: what was taken is made anew when its taker was served, or after this. */
export const POOL_REFILL_MS_MAX = 100;
/** Hearth's own: what can wait for an answer (ending what was used once, making the next) begins so long after it. */
export const AFTER_ANSWER_MS = 2;
/** Hearth's own: how often the pool looks for what is not wanted any more. */
export const POOL_SWEEP_MS = 1_000;
/** Hearth's own: share of the host's memory that the pool may take. */
export const POOL_MEMORY_SHARE: number = 1 / 8;
/** Hearth's own: from a booted microVM to a runtime in it that waits for its function; over this it is given up. */
export const PREPARE_TIMEOUT_MS = 10_000;
/** Hearth's own: an idle slot is frozen after this; a thaw costs less than a guest that runs on unasked. */
export const FREEZE_AFTER_IDLE_MS = 100;
/**
 * Hearth's own: a slot that took so much more than when it was last frozen is looked at again after FREEZE_LOOK_MS, and
 * runs on while at least FREEZE_FALL_BYTES came back to the host between two looks: its kernel gives free memory back
 * in rounds of some 128 MiB, 50 ms apart (uml-0006). Not beyond FREEZE_AFTER_IDLE_MS_MAX.
 */
export const FREEZE_GROWTH_BYTES: number = 32 * MIB;
export const FREEZE_LOOK_MS = 120;
export const FREEZE_FALL_BYTES: number = 4 * MIB;
export const FREEZE_AFTER_IDLE_MS_MAX = 3_000;
/** Hearth's own: slots of one worker. */
export const SLOTS_MAX_DEFAULT = 1_000;
/** Environments a function may gain in one span, refilled continuously ("Lambda function scaling" in AWS's developer guide). */
export const SCALING_ENVIRONMENTS = 1_000;
export const SCALING_SPAN_MS = 10_000;
/** Hearth's own: how often a worker looks for slots to end. */
export const SLOT_SWEEP_MS = 1_000;
/**
 * Hearth's own: with less memory available than this, or than this share of a small host's, a worker ends pool and idle
 * slots, and makes no slot before one of them can go. Twice as much while the host stalls for memory.
 */
export const WORKER_MEMORY_RESERVE_BYTES: number = 512 * MIB;
export const WORKER_MEMORY_RESERVE_SHARE: number = 1 / 8;
/** Hearth's own: with less than so many reserves available the pool is not filled, so that it does not come and go. */
export const POOL_RESERVES_MIN = 3;
/** Hearth's own: how often a worker reads how much memory is available; where it may the kernel tells of a stall at once. */
export const MEMORY_READ_MS = 250;
/**
 * Hearth's own: a host stalls for memory when its tasks wait for some for so long within such a window ("PSI - Pressure
 * Stall Information" in the kernel's documentation: windows of 500 ms to 10 s), or for such a share of the time between
 * two readings, and counts as stalled for so long.
 */
export const MEMORY_STALL_US = 50_000;
export const MEMORY_STALL_WINDOW_US = 500_000;
export const MEMORY_STALLED_MS = 2_000;
/** Hearth's own: what a slot is reckoned to take of its host before it was ever measured: functions use a part of what they are given. */
export const SLOT_MB_EXPECTED = 64;
/**
 * Hearth's own: nominal memory of all slots together, as a multiple of the host's. The Firecracker paper (5.4) tested
 * 20 and more, and tells of 10 in production.
 */
export const OVERCOMMIT_DEFAULT = 20;
export const OVERCOMMIT_MAX = 1_000;
/** Streamed answers: 200 MB ("Response streaming" in AWS's developer guide). */
export const RESPONSE_STREAM_BYTES_MAX: number = 200 * MIB;

/** Items of one page at most, when the caller names a count. */
export const LIST_ITEMS_MAX = 10_000;
export const TAG_KEY_CHARS_MAX = 128;
export const TAG_VALUE_CHARS_MAX = 256;

/** SigV4: how far a client's clock may be off, and how long a presigned request may be valid. */
export const SIGNATURE_SKEW_MS: number = 5 * 60_000;
export const PRESIGNED_S_MAX: number = 7 * 24 * 3_600;
/** How long the download link in GetFunction's answer works. */
export const CODE_LOCATION_MS: number = 10 * 60_000;

/** Hearth's own: how long an invocation waits for a function that is just being created. */
export const PENDING_WAIT_MS_MAX = 10_000;
/** Hearth's own: how long a Frontend may go on using a function's record before it looks again. */
export const FUNCTION_CACHE_MS = 1_000;
/** Hearth's own: slots that are tried for one invocation when slots end before it began. */
export const SLOT_ATTEMPTS_MAX = 3;
/** Hearth's own: how long a claimed event stays hidden without being renewed. */
export const ASYNC_LEASE_MS = 60_000;
/**
 * Hearth's own: asynchronous invocations that one Frontend runs at once, for all functions together (one alone gets half of
 * them), and beyond those one each for so many functions of which nothing runs. Each holds its event, 1 MiB at most.
 */
export const ASYNC_PARALLEL_DEFAULT = 128;
export const ASYNC_FIRSTS_MAX = 256;
/** Hearth's own: events of one function that are claimed at once. */
export const ASYNC_CLAIM_MAX = 16;
/** Hearth's own: functions with events that are read from the store in one go. */
export const ASYNC_FUNCTIONS_PER_LOOK = 100;
/** Hearth's own: how soon after a throttle a function is tried again when somebody's invocation of it ends. */
export const ASYNC_FREED_MS_MIN = 20;
/** Hearth's own: code nobody uses is kept for this long after it was last uploaded. */
export const CODE_KEEP_MS: number = 15 * 60_000;
/** Hearth's own: how often a worker reports to Placement. */
export const HEARTBEAT_MS = 1_000;
/** Hearth's own: groups that functions are counted by in a worker's report, so that it stays small. */
export const FUNCTION_GROUPS = 256;
/** Hearth's own: workers that Placement compares for one slot; the best of so many is nearly the best of all. */
export const PLACEMENT_CANDIDATES = 24;
/** Hearth's own: Placement remembers the demand of each group for so many spans of so long. */
export const DEMAND_SPANS = 32;
export const DEMAND_SPAN_MS = 10_000;
/** Hearth's own: slots are measured no more often than this, however many ask, and so many in one go. */
export const SLOTS_MEASURE_MS = 900;
export const SLOTS_MEASURED_AT_ONCE = 32;
/** Hearth's own: a host's load is measured over at least this long. */
export const HOST_LOAD_MS_MIN = 500;
/** Hearth's own: how often code that nobody uses is looked for. */
export const CODE_COLLECT_MS: number = 60 * 60_000;
/** Hearth's own: how long a client may take to send one request. */
export const HTTP_REQUEST_MS_MAX: number = 5 * 60_000;

/** Hearth's own: Hearths of one machine that can have networks, and networks of slots that each can have at once. */
export const NETWORK_BLOCKS = 32;
export const NETWORKS_MAX = 2_048;
/** Hearth's own: networks kept ready. Making one takes some milliseconds. */
export const NETWORKS_READY = 8;
/** Hearth's own: networks made at once. */
export const NETWORKS_MAKING_MAX = 2;
/** Hearth's own: connections of one slot at once, and new ones a second after a first burst: the host's table is shared. */
export const NETWORK_FLOWS_MAX = 4_096;
export const NETWORK_NEW_FLOWS_PER_S_MAX = 500;
export const NETWORK_NEW_FLOWS_BURST = 2_000;
/** Hearth's own: what a slot's network card carries each way, in Mbit/s (`hearth up --network-rate`). */
export const NETWORK_MBIT_DEFAULT = 1_000;
export const NETWORK_MBIT_MAX = 100_000;
/** Name servers that a guest gets: more are not asked by the C library (MAXNS of resolv.h). */
export const NAME_SERVERS_MAX = 3;

/**
 * Hearth's own: a body of the control API, without an archive in it. The longest that AWS takes are far below: 4 KB of
 * environment, 50 tags of 384 characters, a policy of 20 KB. `JSON.parse` of so many values takes 2 ms.
 */
export const CONTROL_JSON_BYTES_MAX: number = 1 * MIB;
export const CONTROL_JSON_VALUES_MAX = 10_000;
export const CONTROL_JSON_DEPTH_MAX = 64;
