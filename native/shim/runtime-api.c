/* The Runtime API, 2018-06-01: what a runtime may ask, in which state, and what it is told. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "protocol.h"
#include "sandbox.h"
#include "text.h"
#include "world.h"

#define RUNTIME_API "/2018-06-01"
#define INVOCATION_PATH "/2018-06-01/runtime/invocation/"
#define EXTENSION_PATH "/2020-01-01/extension/"
#define ACCEPTED_BODY "{\"status\":\"OK\"}\n"

static const char accepted[] =
    "HTTP/1.1 202 Accepted\r\nContent-Type: application/json\r\nContent-Length: 16\r\n\r\n" ACCEPTED_BODY;

static const char *reason_of(int status) {
    switch (status) {
    case 200: return "OK";
    case 202: return "Accepted";
    case 400: return "Bad Request";
    case 403: return "Forbidden";
    case 404: return "Not Found";
    case 405: return "Method Not Allowed";
    case 413: return "Request Entity Too Large";
    default: return "Internal Server Error";
    }
}

/* --- replies -------------------------------------------------------------------------------------------------- */

void reply_json(struct sandbox *s, int connection, int status, const char *headers, const char *body,
                size_t body_length) {
    (void)s;
    char head[512];
    int length = snprintf(head, sizeof head, "HTTP/1.1 %d %s\r\nContent-Type: application/json\r\n%sContent-Length: %zu\r\n\r\n",
                          status, reason_of(status), headers, body_length);
    world_reply(connection, head, (size_t)length, body, body_length);
}

static size_t error_json(char *into, size_t capacity, const char *type, const char *message) {
    struct text text = {into, 0, capacity, false};
    text_string(&text, "{\"errorMessage\":\"");
    text_json(&text, message);
    text_string(&text, "\",\"errorType\":\"");
    text_json(&text, type);
    text_string(&text, "\"}\n");
    return text.length;
}

void reply_error(struct sandbox *s, int connection, int status, const char *type, const char *message) {
    char body[512];
    reply_json(s, connection, status, "", body, error_json(body, sizeof body, type, message));
}

static void reply_accepted(int connection) { world_reply(connection, accepted, sizeof accepted - 1, NULL, 0); }

/* A reply that is decided at the head but sent after the body, as clients expect it. */
struct canned {
    int status;
    const char *type;
    const char *message;
};

enum { CANNED_NOT_FOUND, CANNED_METHOD, CANNED_ID, CANNED_STATE, CANNED_MODE, CANNED_TELEMETRY, CANNED_BUSY };

static const struct canned canned_replies[] = {
    [CANNED_NOT_FOUND] = {404, "NotFound", "No such path in the Runtime API"},
    [CANNED_METHOD] = {405, "MethodNotAllowed", "Method not allowed"},
    [CANNED_ID] = {400, "InvalidRequestID", "Invalid request ID"},
    [CANNED_STATE] = {403, "InvalidStateTransition", "The runtime is not in a state that allows this request"},
    [CANNED_MODE] = {400, "InvalidFunctionResponseMode", "Invalid function response mode"},
    [CANNED_TELEMETRY] = {202, "Telemetry.NotSupported", "Telemetry API is not supported"},
    [CANNED_BUSY] = {500, "InternalServerError", "Internal Server Error"},
};

static enum request_verdict decline(struct exchange *exchange, int which) {
    exchange->kind = REQUEST_DISCARD;
    exchange->extension = which;
    return REQUEST_TAKES_BODY;
}

static void reply_too_large(struct sandbox *s, int connection, const char *headers) {
    char message[96];
    char body[256];
    snprintf(message, sizeof message, "Exceeded maximum allowed payload size (%llu bytes).",
             (unsigned long long)s->invocation.response_bytes_max);
    reply_json(s, connection, 413, headers, body, error_json(body, sizeof body, "RequestEntityTooLarge", message));
}

/* --- error types ---------------------------------------------------------------------------------------------- */

static bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

/* Runtime.Xxx or Function.Xxx, letters only behind the dot. */
static bool is_error_type(struct slice type) {
    size_t prefix = slice_starts(type, "Runtime.") ? 8 : slice_starts(type, "Function.") ? 9 : 0;
    if (prefix == 0 || type.length < prefix + 2 || type.length > ERROR_TYPE_CHARS_MAX) return false;
    if (type.at[prefix] < 'A' || type.at[prefix] > 'Z') return false;
    for (size_t i = prefix; i < type.length; i++) {
        if (!is_letter(type.at[i])) return false;
    }
    return true;
}

void clean_error_type(char into[ERROR_TYPE_CHARS_MAX + 1], const struct slice *given) {
    struct slice type = given == NULL ? (struct slice){"", 0} : *given;
    if (is_error_type(type)) copy_string(into, ERROR_TYPE_CHARS_MAX + 1, type.at, type.length);
    else if (slice_starts(type, "Function.")) copy_string(into, ERROR_TYPE_CHARS_MAX + 1, "Function.Unknown", 16);
    else copy_string(into, ERROR_TYPE_CHARS_MAX + 1, "Runtime.Unknown", 15);
}

/* --- requests ------------------------------------------------------------------------------------------------- */

static enum request_verdict next(struct sandbox *s, int connection, struct exchange *exchange) {
    struct invocation *invocation = &s->invocation;
    bool starting = s->phase == PHASE_INIT && s->runtime_started && !s->runtime_init_error;
    bool busy = s->phase == PHASE_BUSY && invocation->answer != ANSWER_BEGUN;
    if (!starting && !busy && s->phase != PHASE_READY) return decline(exchange, CANNED_STATE);
    if (busy && invocation->answer == ANSWER_NONE) {
        /* The same event again: the runtime lost its first answer. */
        world_reply(connection, invocation->head, invocation->head_length, invocation->event, invocation->event_length);
        return REQUEST_WAITS;
    }
    /* The newest request counts; an older one is one that its client has given up. */
    int older = s->next_connection;
    s->next_connection = connection;
    s->runtime_waits = true;
    if (older != NO_CONNECTION && older != connection) world_close(older, false);
    sandbox_advance(s);
    return REQUEST_WAITS;
}

/* From here on nobody else may answer. */
static void begin_answer(struct sandbox *s, int connection, struct exchange *exchange, enum request_kind kind) {
    struct invocation *invocation = &s->invocation;
    invocation->answer = ANSWER_BEGUN;
    invocation->answer_connection = connection;
    invocation->streaming = false;
    invocation->answer_bytes = 0;
    exchange->kind = kind;
}

static enum request_verdict response(struct sandbox *s, int connection, struct exchange *exchange,
                                     const struct http_request *request) {
    struct invocation *invocation = &s->invocation;
    const struct slice *mode = http_header(&request->headers, "Lambda-Runtime-Function-Response-Mode");
    bool streaming = mode != NULL && slice_is_nocase(*mode, "streaming");
    if (mode != NULL && !streaming && !slice_is_nocase(*mode, "buffered")) return decline(exchange, CANNED_MODE);
    if (request->content_length > invocation->response_bytes_max) {
        struct failure failure = {.outcome = OUTCOME_RESPONSE_TOO_LARGE};
        sandbox_response_end(s, &failure);
        exchange->kind = REQUEST_TOO_LARGE;
        return REQUEST_TAKES_BODY;
    }
    const struct slice *type = http_header(&request->headers, "Content-Type");
    frame_begin(s->host, FROM_SHIM_RESPONSE_HEAD, 0);
    if (type != NULL) frame_bytes(s->host, RESPONSE_CONTENT_TYPE, type->at, type->length);
    if (streaming) frame_number(s->host, RESPONSE_STREAMING, 1);
    frame_end(s->host);
    begin_answer(s, connection, exchange, REQUEST_RESPONSE);
    invocation->streaming = streaming;
    return REQUEST_TAKES_BODY;
}

static enum request_verdict invocation_request(struct sandbox *s, int connection, struct exchange *exchange,
                                               const struct http_request *request, struct slice rest) {
    const char *slash = rest.length == 0 ? NULL : memchr(rest.at, '/', rest.length);
    if (slash == NULL) return decline(exchange, CANNED_NOT_FOUND);
    struct slice id = {rest.at, (size_t)(slash - rest.at)};
    struct slice verb = {slash + 1, rest.length - id.length - 1};
    bool is_response = slice_is(verb, "response");
    if (!is_response && !slice_is(verb, "error")) return decline(exchange, CANNED_NOT_FOUND);
    if (!slice_is(request->method, "POST")) return decline(exchange, CANNED_METHOD);
    struct invocation *invocation = &s->invocation;
    if (!invocation->active || !slice_is(id, invocation->request_id)) return decline(exchange, CANNED_ID);
    if (s->phase != PHASE_BUSY || invocation->answer != ANSWER_NONE) return decline(exchange, CANNED_STATE);
    if (is_response) return response(s, connection, exchange, request);
    clean_error_type(exchange->error_type, http_header(&request->headers, "Lambda-Runtime-Function-Error-Type"));
    frame_begin(s->host, FROM_SHIM_RESPONSE_HEAD, 0);
    frame_number(s->host, RESPONSE_ERROR, 1);
    frame_end(s->host);
    begin_answer(s, connection, exchange, REQUEST_ERROR);
    if (invocation->response_bytes_max > ANSWERED_ERROR_BYTES_MAX) invocation->response_bytes_max = ANSWERED_ERROR_BYTES_MAX;
    return REQUEST_TAKES_BODY;
}

static enum request_verdict init_error(struct sandbox *s, struct exchange *exchange, const struct http_request *request) {
    if (!slice_is(request->method, "POST")) return decline(exchange, CANNED_METHOD);
    if (s->phase != PHASE_INIT || !s->runtime_started || s->runtime_init_error || s->runtime_waits) {
        return decline(exchange, CANNED_STATE);
    }
    exchange->kind = REQUEST_INIT_ERROR;
    clean_error_type(exchange->error_type, http_header(&request->headers, "Lambda-Runtime-Function-Error-Type"));
    return REQUEST_TAKES_BODY;
}

/* Not of Lambda's API: what a runtime that was started ahead asks, once, before it knows its function. */
static enum request_verdict function_request(struct sandbox *s, int connection, struct exchange *exchange) {
    bool awaited = s->prepared && s->function_connection == NO_CONNECTION;
    if (!awaited || (s->phase != PHASE_PREPARED && s->phase != PHASE_INIT)) return decline(exchange, CANNED_STATE);
    sandbox_asked(s, connection);
    return REQUEST_WAITS;
}

enum request_verdict sandbox_request(struct sandbox *s, int connection, const struct http_request *request) {
    struct exchange *exchange = &s->exchanges[connection];
    bool is_get = slice_is(request->method, "GET");
    struct slice path = request->path;
    exchange->kind = REQUEST_NONE;
    exchange->length = 0;
    exchange->over_limit = false;
    if (slice_is(path, INVOCATION_PATH "next")) {
        return is_get ? next(s, connection, exchange) : decline(exchange, CANNED_METHOD);
    }
    if (slice_starts(path, INVOCATION_PATH)) {
        size_t prefix = sizeof INVOCATION_PATH - 1;
        struct slice rest = {path.at + prefix, path.length - prefix};
        return invocation_request(s, connection, exchange, request, rest);
    }
    if (slice_is(path, RUNTIME_API "/runtime/init/error")) return init_error(s, exchange, request);
    if (slice_is(path, RUNTIME_API "/ping") && is_get) {
        static const char pong[] = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 4\r\n\r\npong";
        world_reply(connection, pong, sizeof pong - 1, NULL, 0);
        return REQUEST_WAITS;
    }
    if (slice_is(path, "/hearth/function") && is_get) return function_request(s, connection, exchange);
    if (slice_starts(path, EXTENSION_PATH)) {
        size_t prefix = sizeof EXTENSION_PATH - 1;
        return extensions_request(s, connection, (struct slice){path.at + prefix, path.length - prefix}, request);
    }
    if (slice_is(path, "/2022-07-01/telemetry") || slice_is(path, "/2020-08-15/logs")) {
        return decline(exchange, CANNED_TELEMETRY);
    }
    return decline(exchange, CANNED_NOT_FOUND);
}

/* --- bodies --------------------------------------------------------------------------------------------------- */

static void collect(struct exchange *exchange, struct slice data) {
    if (exchange->over_limit || data.length > ERROR_BODY_BYTES_MAX - exchange->length) {
        exchange->over_limit = true;
        return;
    }
    if (exchange->capacity - exchange->length < data.length) {
        size_t capacity = exchange->capacity == 0 ? 1 * KIB : exchange->capacity;
        while (capacity - exchange->length < data.length) capacity *= 2;
        char *grown = realloc(exchange->bytes, capacity);
        if (grown == NULL) {
            exchange->over_limit = true;
            return;
        }
        exchange->bytes = grown;
        exchange->capacity = capacity;
    }
    memcpy(exchange->bytes + exchange->length, data.at, data.length);
    exchange->length += data.length;
}

static void release(struct exchange *exchange) {
    free(exchange->bytes);
    exchange->bytes = NULL;
    exchange->length = 0;
    exchange->capacity = 0;
    exchange->kind = REQUEST_NONE;
}

/* Whether this connection's answer is still wanted: its invocation may have ended meanwhile. */
static bool is_answering(const struct sandbox *s, int connection) {
    return s->phase == PHASE_BUSY && s->invocation.answer_connection == connection;
}

static void refuse_stream(struct sandbox *s, int connection) {
    reply_too_large(s, connection, "Connection: close\r\n");
    world_close(connection, false);
}

bool sandbox_relays(const struct sandbox *s, int connection) {
    enum request_kind kind = s->exchanges[connection].kind;
    return (kind == REQUEST_RESPONSE || kind == REQUEST_ERROR) && is_answering(s, connection);
}

void sandbox_body(struct sandbox *s, int connection, struct slice data) {
    struct exchange *exchange = &s->exchanges[connection];
    struct invocation *invocation = &s->invocation;
    switch (exchange->kind) {
    case REQUEST_RESPONSE:
    case REQUEST_ERROR:
        if (!is_answering(s, connection)) return;
        if (data.length > invocation->response_bytes_max - invocation->answer_bytes) {
            struct failure failure = {.outcome = OUTCOME_RESPONSE_TOO_LARGE};
            sandbox_response_end(s, &failure);
            exchange->kind = REQUEST_TOO_LARGE;
            /* A stream need not have an end: whoever goes on writing it finds the connection closed. */
            if (invocation->streaming) refuse_stream(s, connection);
            return;
        }
        invocation->answer_bytes += data.length;
        frame_data(s->host, FROM_SHIM_RESPONSE_DATA, data.at, data.length);
        return;
    case REQUEST_INIT_ERROR:
    case REQUEST_REGISTER: collect(exchange, data); return;
    default: return;
    }
}

static int base64_digit(char c) {
    if (c >= 'A' && c <= 'Z') return c - 'A';
    if (c >= 'a' && c <= 'z') return c - 'a' + 26;
    if (c >= '0' && c <= '9') return c - '0' + 52;
    return c == '+' || c == '-' ? 62 : c == '/' || c == '_' ? 63 : -1;
}

/* Into a malloc'ed buffer; NULL when it is not base64. */
static char *base64_decode(struct slice from, size_t *length) {
    char *into = malloc(from.length / 4 * 3 + 3);
    uint32_t bits = 0;
    unsigned count = 0;
    *length = 0;
    while (from.length > 0 && from.at[from.length - 1] == '=') from.length--;
    for (size_t i = 0; into != NULL && i < from.length; i++) {
        int digit = base64_digit(from.at[i]);
        if (digit < 0) {
            free(into);
            return NULL;
        }
        bits = bits << 6 | (uint32_t)digit;
        count += 6;
        if (count >= 8) {
            count -= 8;
            into[(*length)++] = (char)(bits >> count);
        }
    }
    return into;
}

/* A streamed answer may end with an error in its trailers. */
static void end_response(struct sandbox *s, const struct http_headers *trailers) {
    struct failure failure = {.outcome = OUTCOME_REPORTED};
    const struct slice *type =
        trailers == NULL ? NULL : http_header(trailers, "Lambda-Runtime-Function-Error-Type");
    if (type == NULL || !s->invocation.streaming) {
        sandbox_response_end(s, NULL);
        return;
    }
    clean_error_type(failure.error_type, type);
    const struct slice *body = http_header(trailers, "Lambda-Runtime-Function-Error-Body");
    if (body != NULL) failure.error_body = base64_decode(*body, &failure.error_body_length);
    sandbox_response_end(s, &failure);
    failure_reset(&failure);
}

static void report(struct exchange *exchange, struct failure *failure) {
    failure_reset(failure);
    failure->outcome = OUTCOME_REPORTED;
    memcpy(failure->error_type, exchange->error_type, sizeof failure->error_type);
    if (exchange->over_limit) return;
    failure->error_body = exchange->bytes;
    failure->error_body_length = exchange->length;
    exchange->bytes = NULL;
    exchange->capacity = 0;
}

static void end_init_error(struct sandbox *s, int connection, struct exchange *exchange) {
    if (s->phase != PHASE_INIT || s->runtime_init_error || s->runtime_waits) {
        reply_error(s, connection, 403, canned_replies[CANNED_STATE].type, canned_replies[CANNED_STATE].message);
        return;
    }
    report(exchange, &s->failure);
    s->runtime_init_error = true;
    uint64_t patience_us = world_now_us() + INIT_ERROR_GRACE_MS * 1000;
    if (patience_us < s->deadline_us) s->deadline_us = patience_us;
    reply_accepted(connection);
}

static void end_error(struct sandbox *s, int connection, struct exchange *exchange) {
    struct failure failure = {.outcome = OUTCOME_REPORTED};
    if (is_answering(s, connection)) {
        memcpy(failure.error_type, exchange->error_type, sizeof failure.error_type);
        sandbox_response_end(s, &failure);
    }
    reply_accepted(connection);
}

void sandbox_body_end(struct sandbox *s, int connection, const struct http_headers *trailers) {
    struct exchange *exchange = &s->exchanges[connection];
    switch (exchange->kind) {
    case REQUEST_DISCARD: {
        const struct canned *canned = &canned_replies[exchange->extension];
        reply_error(s, connection, canned->status, canned->type, canned->message);
        break;
    }
    case REQUEST_RESPONSE:
        if (is_answering(s, connection)) end_response(s, trailers);
        /* The caller waits for the answer, the runtime for nothing: the host goes first. */
        world_flush();
        reply_accepted(connection);
        break;
    case REQUEST_TOO_LARGE: reply_too_large(s, connection, ""); break;
    case REQUEST_ERROR: end_error(s, connection, exchange); break;
    case REQUEST_INIT_ERROR: end_init_error(s, connection, exchange); break;
    case REQUEST_REGISTER:
    case REQUEST_EXTENSION_ERROR: extensions_body_end(s, connection); break;
    case REQUEST_NONE: break;
    }
    release(exchange);
    sandbox_advance(s);
}

void sandbox_closed(struct sandbox *s, int connection) {
    release(&s->exchanges[connection]);
    if (s->next_connection == connection) {
        s->next_connection = NO_CONNECTION;
        s->runtime_waits = false;
    }
    if (s->function_connection == connection) {
        s->function_connection = NO_CONNECTION;
        /* It has nothing left to be told by. */
        if (s->phase == PHASE_PREPARED) sandbox_fault(s, "the prepared runtime does not wait any more");
    }
    extensions_closed(s, connection);
    if (is_answering(s, connection) && s->invocation.answer == ANSWER_BEGUN) {
        struct failure failure = {.outcome = OUTCOME_TRUNCATED};
        sandbox_response_end(s, &failure);
    }
}
