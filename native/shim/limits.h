/* Every limit of the shim, once. What the function may ask of the shim is bounded by these. */
#ifndef SHIM_LIMITS_H
#define SHIM_LIMITS_H

#define KIB 1024
#define MIB (1024 * KIB)

/* Bytes waiting for the host. Producers of data (answers, logs) stop at the first figure; the rest is kept for
   control frames, the largest of which is a failure with its error body. */
#define OUTBOX_DATA_BYTES_MAX (512 * KIB)
#define OUTBOX_BYTES (1 * MIB)
/* Producers start again when so little is waiting. */
#define OUTBOX_RESUME_BYTES (128 * KIB)

/* One read of a connection or a pipe. A chunked body may grow by half when it becomes frames (see server.c). */
#define CONNECTION_READ_BYTES (128 * KIB)
#define LOG_READ_BYTES (64 * KIB)

/* The Runtime API. */
#define API_PORT 9001
#define CONNECTIONS_MAX 64
/* Connections over the limit are accepted and closed; until then they wait here, so that nobody's SYN is lost. */
#define LISTEN_BACKLOG 512
/* Runtimes put an error's cause of up to 1 MiB into a header. */
#define HTTP_HEAD_BYTES_MAX (1 * MIB + 64 * KIB)
/* What connections keep of unfinished heads and of requests sent ahead, all together. */
#define STASHED_BYTES_MAX (4 * MIB)
#define HTTP_HEADERS_MAX 64
#define HTTP_TRAILER_BYTES_MAX (128 * KIB)
#define HTTP_BODY_BYTES_MAX ((uint64_t)1 << 40)
/* What a client may send on a connection while its `next` still waits. */
#define PIPELINED_BYTES_MAX (128 * KIB)

/* The body of an invocation's error, which is its answer; and of an init's, or of a request to the Extensions API. */
#define ANSWERED_ERROR_BYTES_MAX 6291556
#define ERROR_BODY_BYTES_MAX (192 * KIB)
#define ERROR_TYPE_CHARS_MAX 255
#define REQUEST_ID_CHARS_MAX 127
/* The head of an event as HTTP: client context (3,583) and the other texts. */
#define EVENT_HEAD_BYTES_MAX (32 * KIB)
/* Of it the last lines: two numbers with their names. */
#define EVENT_HEAD_END_BYTES 128
#define EVENT_BYTES_MAX (32 * MIB)
#define EVENT_BYTES_KEPT (256 * KIB)

#define ROOT_DRIVES_MAX 8
#define LAYER_DRIVES_MAX 8
#define ARGUMENTS_MAX 64
#define ENVIRONMENT_MAX 1024
#define EXTENSIONS_MAX 10
#define NAME_SERVERS_MAX 3
#define EXTENSION_NAME_CHARS_MAX 127

/* A drive that was just attached appears within this. */
#define DRIVE_WAIT_MS 5000
/* The host listens before it boots us, so this is only ever needed when the machine is overloaded. */
#define CONNECT_WAIT_MS 10000
/* The host has taken our last words by then. */
#define LEAVE_WAIT_MS 1000
/* After `init/error` the runtime may still write its last log lines and exit by itself. */
#define INIT_ERROR_GRACE_MS 200
/* Killed processes must be gone by then; else the kernel is stuck and the microVM is given up. */
#define KILL_WAIT_MS 5000

/* sbx_user1051, Lambda's user. */
#define FUNCTION_UID 993
#define FUNCTION_GID 993

#endif
