#define _GNU_SOURCE
#include "sandbox.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "protocol.h"
#include "text.h"
#include "world.h"

void sandbox_init(struct sandbox *s, struct outbox *host) {
    memset(s, 0, sizeof *s);
    s->host = host;
    s->phase = PHASE_BOOTED;
    s->next_connection = NO_CONNECTION;
    s->function_connection = NO_CONNECTION;
    s->invocation.answer_connection = NO_CONNECTION;
    s->deadline_us = NEVER;
}

void sandbox_fault(struct sandbox *s, const char *text) {
    if (s->fault == NULL) s->fault = text;
}

void failure_reset(struct failure *failure) {
    free(failure->error_body);
    memset(failure, 0, sizeof *failure);
}

static void frame_failure(struct sandbox *s, const struct failure *failure, uint64_t duration_us) {
    frame_number(s->host, FAILURE_OUTCOME, failure->outcome);
    if (failure->error_type[0] != 0) {
        frame_bytes(s->host, FAILURE_ERROR_TYPE, failure->error_type, strlen(failure->error_type));
    }
    if (failure->error_body != NULL) {
        frame_bytes(s->host, FAILURE_ERROR_BODY, failure->error_body, failure->error_body_length);
    }
    if (failure->has_exit_code) frame_number(s->host, FAILURE_EXIT_CODE, failure->exit_code);
    if (failure->has_signal) frame_number(s->host, FAILURE_SIGNAL, failure->signal);
    frame_number(s->host, FAILURE_DURATION_US, duration_us);
}

static uint64_t invocation_us(const struct invocation *invocation, uint64_t until_us) {
    /* What is initialised within the invocation takes of its time. */
    bool from_start = invocation->handed_us == 0 || invocation->has_init;
    return until_us - (from_start ? invocation->started_us : invocation->handed_us);
}

void sandbox_response_end(struct sandbox *s, const struct failure *failure) {
    struct invocation *invocation = &s->invocation;
    frame_begin(s->host, FROM_SHIM_RESPONSE_END, 0);
    if (failure != NULL) frame_failure(s, failure, invocation_us(invocation, world_now_us()));
    frame_end(s->host);
    invocation->answer = ANSWER_ENDED;
    invocation->answer_connection = NO_CONNECTION;
}

/* --- start ------------------------------------------------------------------------------------------------ */

static void not_started(struct sandbox *s, int error) {
    char message[512];
    /* As Lambda words it. */
    const char *reason = error == ENOENT ? "no such file or directory" : strerror(error);
    int length = snprintf(message, sizeof message, "fork/exec %s: %s", s->configuration.arguments[0], reason);
    if (length > (int)sizeof message - 1) length = (int)sizeof message - 1;
    s->failure.error_body = malloc((size_t)length);
    if (s->failure.error_body != NULL) {
        memcpy(s->failure.error_body, message, (size_t)length);
        s->failure.error_body_length = (size_t)length;
    }
    sandbox_fail(s, OUTCOME_NOT_STARTED);
}

/* Tells the prepared runtime what it is to be: its working directory and its environment, each text with its NUL. */
static void give_function(struct sandbox *s) {
    const struct configuration *c = &s->configuration;
    size_t length = strlen(c->working_directory) + 1;
    for (size_t i = 0; i < c->environment_count; i++) length += strlen(c->environment[i]) + 1;
    char *body = malloc(length);
    if (body == NULL) {
        sandbox_fault(s, "no memory for the function's environment");
        return;
    }
    char *at = stpcpy(body, c->working_directory) + 1;
    for (size_t i = 0; i < c->environment_count; i++) at = stpcpy(at, c->environment[i]) + 1;
    int connection = s->function_connection;
    s->prepared = false;
    s->function_connection = NO_CONNECTION;
    char head[96];
    int n = snprintf(head, sizeof head, "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\n\r\n", length);
    world_reply(connection, head, (size_t)n, body, length);
    free(body);
}

void sandbox_asked(struct sandbox *s, int connection) {
    s->function_connection = connection;
    if (s->phase == PHASE_PREPARED) {
        frame_begin(s->host, FROM_SHIM_PREPARED, 0);
        frame_end(s->host);
    } else if (s->runtime_started) {
        give_function(s);
    }
}

void sandbox_start_runtime(struct sandbox *s) {
    s->runtime_started = true;
    if (s->prepared) {
        if (s->function_connection != NO_CONNECTION) give_function(s);
        return;
    }
    const struct configuration *c = &s->configuration;
    int error = world_spawn(c, c->arguments, c->environment, &s->runtime_pid);
    if (error != 0) not_started(s, error);
}

/* Init: by itself after Configure, or (suppressed) inside the invocation that found no runtime. */
static void start(struct sandbox *s) {
    s->phase = PHASE_INIT;
    if (!s->prepared) s->runtime_pid = 0;
    s->runtime_started = false;
    s->runtime_waits = false;
    s->runtime_init_error = false;
    s->next_connection = NO_CONNECTION;
    failure_reset(&s->failure);
    s->oom_kills = world_oom_kills();
    s->init_started_us = world_now_us();
    s->deadline_us = s->invocation.active ? s->invocation.deadline_us
                                          : s->init_started_us + s->configuration.init_timeout_ms * 1000;
    extensions_start(s);
    if (s->phase == PHASE_INIT && extensions_all_registered(s)) sandbox_start_runtime(s);
}

/* --- the way of an invocation ------------------------------------------------------------------------------- */

static void init_over(struct sandbox *s) {
    uint64_t init_us = world_now_us() - s->init_started_us;
    s->phase = PHASE_READY;
    if (s->invocation.active) {
        s->invocation.has_init = true;
        s->invocation.init_us = init_us;
        if (!s->invocation.whole) s->deadline_us = NEVER;
        return;
    }
    s->deadline_us = NEVER;
    frame_begin(s->host, FROM_SHIM_READY, 0);
    frame_number(s->host, READY_INIT_DURATION_US, init_us);
    frame_end(s->host);
}

static void hand_over(struct sandbox *s) {
    struct invocation *invocation = &s->invocation;
    int connection = s->next_connection;
    s->phase = PHASE_BUSY;
    s->runtime_waits = false;
    s->next_connection = NO_CONNECTION;
    invocation->handed_us = world_now_us();
    extensions_invoke(s);
    world_reply(connection, invocation->head, invocation->head_length, invocation->event, invocation->event_length);
}

void sandbox_advance(struct sandbox *s) {
    struct invocation *invocation = &s->invocation;
    if (s->phase == PHASE_INIT && !s->runtime_started && extensions_all_registered(s)) sandbox_start_runtime(s);
    bool all_wait = s->runtime_waits && extensions_all_wait(s);
    if (s->phase == PHASE_INIT && all_wait) init_over(s);
    if (s->phase == PHASE_READY && invocation->active && invocation->whole && all_wait) {
        hand_over(s);
        return;
    }
    if (s->phase == PHASE_BUSY && invocation->answer == ANSWER_ENDED && all_wait && !s->settling) {
        invocation->ended_us = world_now_us();
        s->deadline_us = NEVER;
        s->settling = true;
    }
}

static void send_done(struct sandbox *s, bool alive) {
    struct invocation *invocation = &s->invocation;
    frame_begin(s->host, FROM_SHIM_DONE, 0);
    frame_number(s->host, DONE_DURATION_US, invocation_us(invocation, invocation->ended_us));
    frame_number(s->host, DONE_MEMORY_BYTES_PEAK, world_memory(false).bytes_peak);
    if (invocation->has_init) frame_number(s->host, DONE_INIT_DURATION_US, invocation->init_us);
    if (invocation->init_failed) frame_number(s->host, DONE_INIT_FAILED, 1);
    frame_number(s->host, DONE_RUNTIME_ALIVE, alive);
    if (!alive) {
        frame_number(s->host, DONE_OUTCOME, s->failure.outcome);
        if (s->failure.has_exit_code) frame_number(s->host, DONE_EXIT_CODE, s->failure.exit_code);
        if (s->failure.has_signal) frame_number(s->host, DONE_SIGNAL, s->failure.signal);
    }
    frame_end(s->host);
    invocation->active = false;
    if (invocation->event_capacity > EVENT_BYTES_KEPT) {
        free(invocation->event);
        invocation->event = NULL;
        invocation->event_capacity = 0;
    }
}

/* --- the end of processes ----------------------------------------------------------------------------------- */

void sandbox_fail(struct sandbox *s, uint64_t outcome) {
    if (s->phase == PHASE_ENDING || s->phase == PHASE_OFF || s->phase == PHASE_DOWN) return;
    s->failure.outcome = outcome;
    s->failure_us = world_now_us();
    struct invocation *invocation = &s->invocation;
    if (s->phase == PHASE_INIT && invocation->active) {
        invocation->has_init = invocation->init_failed = true;
        invocation->init_us = s->failure_us - s->init_started_us;
    }
    if (s->phase == PHASE_INIT) s->ending = invocation->active ? ENDING_INVOCATION : ENDING_INIT;
    else if (s->phase == PHASE_BUSY || (invocation->active && outcome == OUTCOME_TIMED_OUT)) s->ending = ENDING_INVOCATION;
    else s->ending = ENDING_IDLE;
    if (s->ending == ENDING_INVOCATION) {
        if (invocation->answer != ANSWER_ENDED) sandbox_response_end(s, &s->failure);
        if (!s->settling) invocation->ended_us = s->failure_us;
    }
    s->phase = PHASE_ENDING;
    s->settling = false;
    s->deadline_us = s->failure_us + KILL_WAIT_MS * 1000;
    world_kill_all();
}

/* Shutdown with extensions: the runtime gets SIGTERM and a part of the time, then the extensions are told. */
static bool shutting_down_softly(const struct sandbox *s) {
    return s->phase == PHASE_ENDING && s->ending == ENDING_SHUTDOWN && s->shutdown_kill_us != NEVER;
}

static void tell_extensions(struct sandbox *s) {
    if (s->shutdown_events_sent) return;
    s->shutdown_events_sent = true;
    s->deadline_us = s->shutdown_kill_us;
    extensions_shutdown(s);
}

void sandbox_exited(struct sandbox *s, pid_t pid, int status) {
    bool is_runtime = pid == s->runtime_pid && s->runtime_pid != 0;
    bool is_extension = extensions_exited(s, pid);
    if (is_runtime) s->runtime_pid = 0;
    if (is_runtime && shutting_down_softly(s)) tell_extensions(s);
    if (s->phase == PHASE_ENDING || s->phase == PHASE_OFF || (!is_runtime && !is_extension)) return;
    if (s->phase == PHASE_PREPARED) {
        sandbox_fault(s, "the prepared runtime ended");
        return;
    }
    if (is_runtime && s->runtime_init_error) {
        sandbox_fail(s, OUTCOME_REPORTED);
        return;
    }
    s->failure.has_exit_code = WIFEXITED(status);
    if (s->failure.has_exit_code) s->failure.exit_code = (uint64_t)WEXITSTATUS(status);
    s->failure.has_signal = WIFSIGNALED(status);
    if (s->failure.has_signal) s->failure.signal = (uint64_t)WTERMSIG(status);
    if (!is_runtime) copy_string(s->failure.error_type, sizeof s->failure.error_type, "Extension.Crash", 15);
    sandbox_fail(s, world_oom_kills() > s->oom_kills ? OUTCOME_OUT_OF_MEMORY : OUTCOME_EXITED);
}

void sandbox_all_gone(struct sandbox *s) {
    if (s->phase == PHASE_ENDING && !s->settling) s->settling = true;
}

static void ended(struct sandbox *s) {
    for (int i = 0; i < CONNECTIONS_MAX; i++) world_close(i, false);
    extensions_reset(s);
    s->prepared = false;
    s->runtime_waits = false;
    s->next_connection = NO_CONNECTION;
    s->deadline_us = NEVER;
    if (s->ending == ENDING_SHUTDOWN) {
        s->phase = PHASE_OFF;
        return;
    }
    s->phase = PHASE_DOWN;
    if (s->ending == ENDING_PREPARED) {
        start(s);
    } else if (s->ending == ENDING_INIT) {
        frame_begin(s->host, FROM_SHIM_INIT_FAILED, 0);
        frame_failure(s, &s->failure, s->failure_us - s->init_started_us);
        frame_end(s->host);
    } else if (s->ending == ENDING_INVOCATION) {
        send_done(s, false);
    } else if (s->invocation.active) {
        start(s);
    }
}

void sandbox_settled(struct sandbox *s) {
    if (!s->settling) return;
    s->settling = false;
    if (s->phase == PHASE_ENDING) {
        ended(s);
    } else if (s->phase == PHASE_BUSY) {
        s->phase = PHASE_READY;
        send_done(s, true);
    }
}

/* --- time --------------------------------------------------------------------------------------------------- */

uint64_t sandbox_deadline(const struct sandbox *s) { return s->deadline_us; }

void sandbox_timer(struct sandbox *s) {
    uint64_t now = world_now_us();
    if (now < s->deadline_us) return;
    if (s->phase == PHASE_ENDING) {
        if (shutting_down_softly(s) && now < s->shutdown_kill_us) {
            tell_extensions(s);
        } else if (shutting_down_softly(s)) {
            s->shutdown_kill_us = NEVER;
            s->deadline_us = now + KILL_WAIT_MS * 1000;
            world_kill_all();
        } else {
            sandbox_fault(s, "killed processes of the function did not go away");
        }
    } else if (s->phase == PHASE_INIT && s->runtime_init_error) {
        sandbox_fail(s, OUTCOME_REPORTED);
    } else {
        sandbox_fail(s, OUTCOME_TIMED_OUT);
    }
}

/* --- frames of the host --------------------------------------------------------------------------------------- */

static const char *read_configuration(struct sandbox *s, struct slice payload) {
    free(s->configuration.texts);
    const char *wrong = configuration_read(&s->configuration, payload);
    if (wrong == NULL && s->configuration.unix_time_us != 0) world_set_unix_us(s->configuration.unix_time_us);
    return wrong;
}

static void prepare(struct sandbox *s, struct slice payload) {
    if (s->phase != PHASE_BOOTED) {
        sandbox_fault(s, "a Prepare came too late");
        return;
    }
    const struct configuration *c = &s->configuration;
    const char *wrong = read_configuration(s, payload);
    if (wrong == NULL) wrong = world_mount_root(c);
    if (wrong == NULL && world_spawn(c, c->arguments, c->environment, &s->runtime_pid) != 0) {
        wrong = "the runtime cannot be prepared";
    }
    if (wrong != NULL) sandbox_fault(s, wrong);
    s->phase = PHASE_PREPARED;
    s->prepared = true;
}

static void configure(struct sandbox *s, struct slice payload) {
    bool is_prepared = s->phase == PHASE_PREPARED;
    if (s->phase != PHASE_BOOTED && !is_prepared) {
        sandbox_fault(s, "a second Configure came");
        return;
    }
    const char *wrong = read_configuration(s, payload);
    if (wrong == NULL && !is_prepared) wrong = world_mount_root(&s->configuration);
    if (wrong == NULL) wrong = world_mount_function(&s->configuration);
    if (wrong != NULL) {
        sandbox_fault(s, wrong);
    } else if (is_prepared && !s->configuration.take_prepared) {
        s->prepared = false;
        s->phase = PHASE_ENDING;
        s->ending = ENDING_PREPARED;
        s->deadline_us = world_now_us() + KILL_WAIT_MS * 1000;
        world_kill_all();
    } else {
        start(s);
    }
}

static const struct {
    uint16_t key;
    const char *header;
} event_headers[] = {
    {INVOKE_CONTENT_TYPE, "Content-Type: "},
    {INVOKE_REQUEST_ID, "Lambda-Runtime-Aws-Request-Id: "},
    {INVOKE_FUNCTION_ARN, "Lambda-Runtime-Invoked-Function-Arn: "},
    {INVOKE_TRACE_ID, "Lambda-Runtime-Trace-Id: "},
    {INVOKE_CLIENT_CONTEXT, "Lambda-Runtime-Client-Context: "},
    {INVOKE_COGNITO_IDENTITY, "Lambda-Runtime-Cognito-Identity: "},
    {INVOKE_TENANT_ID, "Lambda-Runtime-Aws-Tenant-Id: "},
};

static void event_header(struct text *head, const struct field *field) {
    for (size_t i = 0; i < sizeof event_headers / sizeof event_headers[0]; i++) {
        if (event_headers[i].key != field->key) continue;
        text_string(head, event_headers[i].header);
        text_header_value(head, field->value, field->length);
        text_string(head, "\r\n");
    }
}

static bool invoke_number(struct invocation *invocation, const struct field *field) {
    uint64_t number;
    switch (field->key) {
    case INVOKE_DEADLINE_MS: return field_number(field, &invocation->deadline_ms);
    case INVOKE_RESPONSE_BYTES_MAX: return field_number(field, &invocation->response_bytes_max);
    case INVOKE_UNIX_TIME_US:
        if (!field_number(field, &number)) return false;
        invocation->sent_unix_us = number;
        world_set_unix_us(number);
        return true;
    case INVOKE_PAYLOAD_BYTES:
        if (!field_number(field, &number) || number > EVENT_BYTES_MAX) return false;
        invocation->event_expected = (size_t)number;
        return true;
    default: return true;
    }
}

/*
 * The time of an invocation begins when its event is here whole: how long that took to come in is not the function's
 * concern. The end of the `next` answer's head says when it is over, by the guest's own clock.
 */
static void set_deadline(struct sandbox *s) {
    struct invocation *invocation = &s->invocation;
    invocation->deadline_us = world_now_us() + invocation->timeout_us;
    invocation->deadline_ms = (world_unix_us() + invocation->timeout_us) / 1000;
    if (s->phase != PHASE_ENDING) s->deadline_us = invocation->deadline_us;
}

static void end_head(struct invocation *invocation) {
    struct text head = {invocation->head, invocation->head_length, sizeof invocation->head, false};
    text_string(&head, "Lambda-Runtime-Deadline-Ms: ");
    text_number(&head, invocation->deadline_ms);
    text_string(&head, "\r\nContent-Length: ");
    text_number(&head, invocation->event_expected);
    text_string(&head, "\r\n\r\n");
    invocation->head_length = head.length;
}

/* Reads the fields and writes the head of the `next` answer but for its last lines. */
static const char *invoke_read(struct invocation *invocation, struct slice payload) {
    struct text head = {invocation->head, 0, sizeof invocation->head, false};
    text_string(&head, "HTTP/1.1 200 OK\r\n");
    struct field field;
    int rc;
    while ((rc = field_next(&payload, &field)) > 0) {
        if (!invoke_number(invocation, &field)) return "invoke: a number is malformed or over its limit";
        event_header(&head, &field);
        if (field.key == INVOKE_REQUEST_ID) {
            if (field.length > REQUEST_ID_CHARS_MAX) return "invoke: the request's id is too long";
            copy_string(invocation->request_id, sizeof invocation->request_id, field.value, field.length);
        } else if (field.key == INVOKE_FUNCTION_ARN) {
            copy_string(invocation->function_arn, sizeof invocation->function_arn, field.value, field.length);
        } else if (field.key == INVOKE_TRACE_ID) {
            copy_string(invocation->trace_id, sizeof invocation->trace_id, field.value, field.length);
        }
    }
    invocation->head_length = head.length;
    if (rc < 0) return "invoke: malformed fields";
    if (head.overflowed || head.length > EVENT_HEAD_BYTES_MAX - EVENT_HEAD_END_BYTES) return "invoke: the texts of the event are too long";
    if (invocation->request_id[0] == 0 || invocation->deadline_ms == 0) return "invoke: no request id or no deadline";
    return NULL;
}

static bool event_buffer(struct invocation *invocation) {
    if (invocation->event_capacity >= invocation->event_expected) return true;
    free(invocation->event);
    size_t capacity = invocation->event_expected < 4 * KIB ? 4 * KIB : invocation->event_expected;
    invocation->event = malloc(capacity);
    invocation->event_capacity = invocation->event == NULL ? 0 : capacity;
    return invocation->event != NULL;
}

static void invoke(struct sandbox *s, struct slice payload) {
    struct invocation *invocation = &s->invocation;
    bool idle = s->phase == PHASE_READY || s->phase == PHASE_DOWN;
    idle = idle || (s->phase == PHASE_ENDING && s->ending == ENDING_IDLE);
    if (!idle || invocation->active) {
        sandbox_fault(s, "an Invoke came while the sandbox was not ready");
        return;
    }
    char *event = invocation->event;
    size_t capacity = invocation->event_capacity;
    memset(invocation, 0, offsetof(struct invocation, head));
    invocation->event = event;
    invocation->event_capacity = capacity;
    invocation->response_bytes_max = UINT64_MAX;
    invocation->answer_connection = NO_CONNECTION;
    const char *wrong = invoke_read(invocation, payload);
    if (wrong == NULL && !event_buffer(invocation)) wrong = "invoke: no memory for the event";
    if (wrong != NULL) {
        sandbox_fault(s, wrong);
        return;
    }
    invocation->active = true;
    invocation->started_us = world_now_us();
    uint64_t sent_us = invocation->sent_unix_us != 0 ? invocation->sent_unix_us : world_unix_us();
    uint64_t deadline_us = invocation->deadline_ms * 1000;
    invocation->timeout_us = deadline_us > sent_us ? deadline_us - sent_us : 0;
    set_deadline(s);
    /* Nobody runs yet whose time that would be. */
    if (s->phase == PHASE_READY) s->deadline_us = NEVER;
    if (s->phase == PHASE_DOWN) start(s);
}

static void event_payload(struct sandbox *s, const struct frame *frame) {
    struct invocation *invocation = &s->invocation;
    /* The invocation may already be over: its deadline passed, or its init failed. */
    if (!invocation->active || invocation->answer == ANSWER_ENDED) return;
    if (invocation->whole || frame->length > invocation->event_expected - invocation->event_length) {
        sandbox_fault(s, "a Payload came that was not announced");
        return;
    }
    if (frame->length > 0) memcpy(invocation->event + invocation->event_length, frame->payload, frame->length);
    invocation->event_length += frame->length;
    if ((frame->flags & FLAG_LAST) == 0) return;
    if (invocation->event_length != invocation->event_expected) {
        sandbox_fault(s, "the Payload is shorter than announced");
        return;
    }
    set_deadline(s);
    end_head(invocation);
    invocation->whole = true;
    sandbox_advance(s);
}

/* Without extensions a runtime is killed at once; with them it may first end by itself, then they are told. */
static void shut_down(struct sandbox *s, struct slice payload) {
    struct field field;
    int rc;
    uint64_t grace_ms = 0;
    copy_string(s->shutdown_reason, sizeof s->shutdown_reason, "spindown", 8);
    while ((rc = field_next(&payload, &field)) > 0) {
        if (field.key == SHUTDOWN_GRACE_MS && !field_number(&field, &grace_ms)) rc = -1;
        if (field.key == SHUTDOWN_REASON) {
            copy_string(s->shutdown_reason, sizeof s->shutdown_reason, field.value, field.length);
        }
        if (rc < 0) break;
    }
    if (rc < 0) {
        sandbox_fault(s, "shutdown: malformed fields");
        return;
    }
    uint64_t now = world_now_us();
    bool graceful = s->extension_count > 0 && grace_ms > 0 && (s->phase == PHASE_READY || s->phase == PHASE_BUSY);
    s->phase = PHASE_ENDING;
    s->ending = ENDING_SHUTDOWN;
    s->settling = false;
    if (!graceful) {
        s->shutdown_kill_us = NEVER;
        s->deadline_us = now + KILL_WAIT_MS * 1000;
        world_kill_all();
        return;
    }
    s->shutdown_kill_us = now + grace_ms * 1000;
    s->deadline_us = now + grace_ms * 300;
    if (s->runtime_pid != 0) world_terminate(s->runtime_pid);
}

/* The init that Configure began. One within an invocation ends at the invocation's deadline. */
static void end_init(struct sandbox *s) {
    if (s->phase != PHASE_INIT || s->invocation.active) return;
    sandbox_fail(s, s->runtime_init_error ? OUTCOME_REPORTED : OUTCOME_TIMED_OUT);
}

static void send_status(struct sandbox *s) {
    struct memory_use use = {0};
    if (s->phase != PHASE_BOOTED) use = world_memory(true);
    frame_begin(s->host, FROM_SHIM_STATUS, 0);
    frame_number(s->host, STATUS_MEMORY_BYTES_CURRENT, use.bytes_current);
    frame_number(s->host, STATUS_MEMORY_BYTES_PEAK, use.bytes_peak);
    frame_number(s->host, STATUS_PIDS, use.pids);
    frame_end(s->host);
}

void sandbox_frame(struct sandbox *s, const struct frame *frame) {
    struct slice payload = {(const char *)frame->payload, frame->length};
    if (s->phase == PHASE_OFF || (s->phase == PHASE_ENDING && s->ending == ENDING_SHUTDOWN)) return;
    switch (frame->type) {
    case TO_SHIM_CONFIGURE: configure(s, payload); break;
    case TO_SHIM_INVOKE: invoke(s, payload); break;
    case TO_SHIM_PAYLOAD: event_payload(s, frame); break;
    case TO_SHIM_SHUTDOWN: shut_down(s, payload); break;
    case TO_SHIM_QUERY: send_status(s); break;
    case TO_SHIM_PREPARE: prepare(s, payload); break;
    case TO_SHIM_END_INIT: end_init(s); break;
    default: sandbox_fault(s, "a frame of an unknown type came"); break;
    }
}
