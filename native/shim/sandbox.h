/*
 * The sandbox: one function's runtime and extensions, and the invocation that is under way. A state machine without
 * descriptors: frames, requests, exits and the clock come in; frames (in the outbox) and calls of world.h go out.
 *
 *   BOOTED ─Prepare─▶ PREPARED ─Configure─▶ INIT (with the runtime that waits, or anew once that one is gone)
 *   BOOTED ─Configure─▶ INIT ─all asked for an event─▶ READY ─Invoke─▶ BUSY ─answered, all asked again─▶ READY
 *                        │                              │               │
 *                        └──────── failure, exit, deadline ─────────────┘──▶ ENDING ─all gone─▶ DOWN ─Invoke─▶ INIT
 */
#ifndef SHIM_SANDBOX_H
#define SHIM_SANDBOX_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "configuration.h"
#include "frames.h"
#include "http.h"
#include "limits.h"

#define NEVER UINT64_MAX
#define NO_CONNECTION (-1)

enum phase { PHASE_BOOTED, PHASE_PREPARED, PHASE_DOWN, PHASE_INIT, PHASE_READY, PHASE_BUSY, PHASE_ENDING, PHASE_OFF };

/* Whom the end concerns: nobody was told of a runtime that died while it was idle, or was not wanted. */
enum ending { ENDING_PREPARED, ENDING_INIT, ENDING_INVOCATION, ENDING_IDLE, ENDING_SHUTDOWN };

enum answer { ANSWER_NONE, ANSWER_BEGUN, ANSWER_ENDED };

struct failure {
    uint64_t outcome;
    char error_type[ERROR_TYPE_CHARS_MAX + 1];
    /* malloc'ed, or NULL. */
    char *error_body;
    size_t error_body_length;
    bool has_exit_code;
    bool has_signal;
    uint64_t exit_code;
    uint64_t signal;
};

struct invocation {
    bool active;
    /* The payload has arrived. */
    bool whole;
    char request_id[REQUEST_ID_CHARS_MAX + 1];
    /* Of the invocation and of the event's hand-over to the runtime (0: not yet). */
    uint64_t started_us;
    uint64_t handed_us;
    uint64_t ended_us;
    /* How long it may take, and when that is over: counted anew once the whole event is here. */
    uint64_t timeout_us;
    uint64_t deadline_us;
    /* The same as Unix time. */
    uint64_t deadline_ms;
    /* Of the host's clock when it sent the Invoke. */
    uint64_t sent_unix_us;
    /* An init ran within this invocation, and how it ended. */
    bool has_init;
    bool init_failed;
    uint64_t init_us;
    uint64_t response_bytes_max;
    enum answer answer;
    int answer_connection;
    bool streaming;
    uint64_t answer_bytes;
    char function_arn[512];
    char trace_id[512];
    char *event;
    size_t event_length;
    size_t event_expected;
    size_t event_capacity;
    size_t head_length;
    char head[EVENT_HEAD_BYTES_MAX];
};

enum request_kind {
    REQUEST_NONE,
    /* The body is of no interest; the reply is already decided. */
    REQUEST_DISCARD,
    REQUEST_RESPONSE,
    REQUEST_TOO_LARGE,
    REQUEST_ERROR,
    REQUEST_INIT_ERROR,
    REQUEST_REGISTER,
    REQUEST_EXTENSION_ERROR,
};

/* What a connection's request is about, until its body has ended. */
struct exchange {
    enum request_kind kind;
    int extension;
    char error_type[ERROR_TYPE_CHARS_MAX + 1];
    char name[EXTENSION_NAME_CHARS_MAX + 1];
    /* The body as far as it is kept, or the reply of a REQUEST_DISCARD. */
    char *bytes;
    size_t length;
    size_t capacity;
    bool over_limit;
};

struct extension {
    bool external;
    pid_t pid;
    char name[EXTENSION_NAME_CHARS_MAX + 1];
    char id[37];
    bool registered;
    bool wants_invoke;
    bool wants_shutdown;
    /* It waits in `event/next`. */
    bool waits;
    int connection;
};

struct sandbox {
    struct outbox *host;
    enum phase phase;
    enum ending ending;
    struct configuration configuration;
    /* Why the shim itself cannot go on; the owner sends it and powers off. */
    const char *fault;

    pid_t runtime_pid;
    bool runtime_started;
    bool runtime_waits;
    bool runtime_init_error;
    int next_connection;
    /* The runtime was started ahead. It waits on `function_connection` for what it is to be, or has not asked yet. */
    bool prepared;
    int function_connection;
    uint64_t oom_kills;
    uint64_t init_started_us;

    struct failure failure;
    uint64_t failure_us;
    uint64_t deadline_us;
    /* Output may still be in the pipes; sandbox_settled comes when it has been sent. */
    bool settling;

    struct invocation invocation;
    struct exchange exchanges[CONNECTIONS_MAX];
    size_t extension_count;
    struct extension extensions[EXTENSIONS_MAX];
    uint64_t shutdown_kill_us;
    bool shutdown_events_sent;
    char shutdown_reason[16];
};

void sandbox_init(struct sandbox *sandbox, struct outbox *host);

/* sandbox.c: events of the world. */
void sandbox_frame(struct sandbox *sandbox, const struct frame *frame);
/* A child was reaped; `status` as from waitpid. */
void sandbox_exited(struct sandbox *sandbox, pid_t pid, int status);
/* No process of the function is left. */
void sandbox_all_gone(struct sandbox *sandbox);
/* `settling` was set and all output written before has been put into the outbox. */
void sandbox_settled(struct sandbox *sandbox);
/* When sandbox_timer wants to be called, or NEVER. */
uint64_t sandbox_deadline(const struct sandbox *sandbox);
void sandbox_timer(struct sandbox *sandbox);

/* runtime-api.c: requests of the function. */
enum request_verdict { REQUEST_TAKES_BODY, REQUEST_WAITS };

/* A request's head. REQUEST_WAITS: no body is expected and the reply comes by itself, later or already. */
enum request_verdict sandbox_request(struct sandbox *sandbox, int connection, const struct http_request *request);
void sandbox_body(struct sandbox *sandbox, int connection, struct slice data);
/* `trailers` is NULL when there are none. */
void sandbox_body_end(struct sandbox *sandbox, int connection, const struct http_headers *trailers);
/* The connection is gone; its request may be half-way. */
void sandbox_closed(struct sandbox *sandbox, int connection);
/* Whether bytes of this connection become frames, so that its reader must heed the outbox. */
bool sandbox_relays(const struct sandbox *sandbox, int connection);

/* Between the files of the sandbox. */
void sandbox_fail(struct sandbox *sandbox, uint64_t outcome);
void sandbox_fault(struct sandbox *sandbox, const char *text);
/* Goes on as far as possible after somebody began to wait or an answer ended. */
void sandbox_advance(struct sandbox *sandbox);
void sandbox_start_runtime(struct sandbox *sandbox);
/* A prepared runtime asked which function it is to be. */
void sandbox_asked(struct sandbox *sandbox, int connection);
void sandbox_response_end(struct sandbox *sandbox, const struct failure *failure);
void failure_reset(struct failure *failure);
/* Copies a runtime's error type if it has the form Runtime.Xxx or Function.Xxx, else the matching Unknown. */
void clean_error_type(char into[ERROR_TYPE_CHARS_MAX + 1], const struct slice *given);
void reply_json(struct sandbox *sandbox, int connection, int status, const char *headers, const char *body,
                size_t body_length);
void reply_error(struct sandbox *sandbox, int connection, int status, const char *type, const char *message);

/* extensions.c */
void extensions_start(struct sandbox *sandbox);
void extensions_reset(struct sandbox *sandbox);
bool extensions_all_registered(const struct sandbox *sandbox);
bool extensions_all_wait(const struct sandbox *sandbox);
/* Hands an event to those that asked for its kind. */
void extensions_invoke(struct sandbox *sandbox);
void extensions_shutdown(struct sandbox *sandbox);
bool extensions_exited(struct sandbox *sandbox, pid_t pid);
bool extensions_closed(struct sandbox *sandbox, int connection);
enum request_verdict extensions_request(struct sandbox *sandbox, int connection, struct slice path,
                                        const struct http_request *request);
void extensions_body_end(struct sandbox *sandbox, int connection);

#endif
