/* The Extensions API, 2020-01-01: programs in /opt/extensions, and extensions inside the runtime's process. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "protocol.h"
#include "sandbox.h"
#include "text.h"
#include "world.h"

#define PATH_PREFIX "/opt/extensions/"

/* Names of variables that belong to the runtime alone: extensions do not get them. */
static bool is_runtime_variable(const char *variable) {
    static const char *const names[] = {"AWS_EXECUTION_ENV=", "LAMBDA_RUNTIME_DIR=", "LAMBDA_TASK_ROOT=",
                                        "AWS_LAMBDA_LOG_GROUP_NAME=", "AWS_LAMBDA_LOG_STREAM_NAME="};
    if (variable[0] == '_') return true;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (strncmp(variable, names[i], strlen(names[i])) == 0) return true;
    }
    return false;
}

static void make_id(char id[37]) {
    static const char hex[] = "0123456789abcdef";
    uint8_t bytes[16];
    world_random(bytes, sizeof bytes);
    bytes[6] = (uint8_t)((bytes[6] & 0x0f) | 0x40);
    bytes[8] = (uint8_t)((bytes[8] & 0x3f) | 0x80);
    size_t at = 0;
    for (size_t i = 0; i < sizeof bytes; i++) {
        if (i == 4 || i == 6 || i == 8 || i == 10) id[at++] = '-';
        id[at++] = hex[bytes[i] >> 4];
        id[at++] = hex[bytes[i] & 15];
    }
    id[at] = 0;
}

void extensions_reset(struct sandbox *s) {
    memset(s->extensions, 0, sizeof s->extensions);
    s->extension_count = 0;
}

static struct extension *add(struct sandbox *s, const char *name, bool external) {
    if (s->extension_count == EXTENSIONS_MAX) return NULL;
    struct extension *extension = &s->extensions[s->extension_count++];
    *extension = (struct extension){.external = external, .connection = NO_CONNECTION};
    copy_string(extension->name, sizeof extension->name, name, strlen(name));
    make_id(extension->id);
    return extension;
}

void extensions_start(struct sandbox *s) {
    extensions_reset(s);
    char names[EXTENSIONS_MAX + 1][EXTENSION_NAME_CHARS_MAX + 1];
    size_t count = world_list_extensions(names);
    if (count == 0) return;
    char *environment[ENVIRONMENT_MAX + 1];
    size_t kept = 0;
    for (size_t i = 0; i < s->configuration.environment_count; i++) {
        if (!is_runtime_variable(s->configuration.environment[i])) environment[kept++] = s->configuration.environment[i];
    }
    environment[kept] = NULL;
    for (size_t i = 0; i < count; i++) {
        struct extension *extension = add(s, names[i], true);
        char path[sizeof PATH_PREFIX + EXTENSION_NAME_CHARS_MAX];
        snprintf(path, sizeof path, PATH_PREFIX "%s", names[i]);
        char *arguments[] = {path, NULL};
        int error = extension == NULL ? -1 : world_spawn(&s->configuration, arguments, environment, &extension->pid);
        if (error == 0) continue;
        const char *type = error == -1 ? "Extension.TooManyExtensions" : "Extension.LaunchError";
        copy_string(s->failure.error_type, sizeof s->failure.error_type, type, strlen(type));
        sandbox_fail(s, OUTCOME_NOT_STARTED);
        return;
    }
}

bool extensions_all_registered(const struct sandbox *s) {
    for (size_t i = 0; i < s->extension_count; i++) {
        if (!s->extensions[i].registered) return false;
    }
    return true;
}

bool extensions_all_wait(const struct sandbox *s) {
    for (size_t i = 0; i < s->extension_count; i++) {
        if (!s->extensions[i].waits) return false;
    }
    return true;
}

static void send_event(struct sandbox *s, struct extension *extension, const struct text *body) {
    int connection = extension->connection;
    char headers[96];
    snprintf(headers, sizeof headers, "Lambda-Extension-Event-Identifier: %s\r\n", extension->id);
    extension->waits = false;
    extension->connection = NO_CONNECTION;
    reply_json(s, connection, 200, headers, body->at, body->length);
}

void extensions_invoke(struct sandbox *s) {
    if (s->extension_count == 0) return;
    const struct invocation *invocation = &s->invocation;
    char bytes[8 * KIB];
    struct text body = {bytes, 0, sizeof bytes, false};
    text_string(&body, "{\"eventType\":\"INVOKE\",\"deadlineMs\":");
    text_number(&body, invocation->deadline_ms);
    text_string(&body, ",\"requestId\":\"");
    text_json(&body, invocation->request_id);
    text_string(&body, "\",\"invokedFunctionArn\":\"");
    text_json(&body, invocation->function_arn);
    text_string(&body, "\",\"tracing\":{\"type\":\"X-Amzn-Trace-Id\",\"value\":\"");
    text_json(&body, invocation->trace_id);
    text_string(&body, "\"}}");
    for (size_t i = 0; i < s->extension_count; i++) {
        if (s->extensions[i].waits && s->extensions[i].wants_invoke) send_event(s, &s->extensions[i], &body);
    }
}

void extensions_shutdown(struct sandbox *s) {
    char bytes[256];
    struct text body = {bytes, 0, sizeof bytes, false};
    text_string(&body, "{\"eventType\":\"SHUTDOWN\",\"shutdownReason\":\"");
    text_json(&body, s->shutdown_reason);
    text_string(&body, "\",\"deadlineMs\":");
    text_number(&body, (world_unix_us() + (s->shutdown_kill_us - world_now_us())) / 1000);
    text_string(&body, "}");
    for (size_t i = 0; i < s->extension_count; i++) {
        struct extension *extension = &s->extensions[i];
        if (extension->waits && extension->wants_shutdown) send_event(s, extension, &body);
        else if (extension->pid != 0 && !extension->wants_shutdown) world_terminate(extension->pid);
    }
}

bool extensions_exited(struct sandbox *s, pid_t pid) {
    for (size_t i = 0; i < s->extension_count; i++) {
        if (s->extensions[i].pid != pid || pid == 0) continue;
        s->extensions[i].pid = 0;
        return true;
    }
    return false;
}

bool extensions_closed(struct sandbox *s, int connection) {
    for (size_t i = 0; i < s->extension_count; i++) {
        if (!s->extensions[i].waits || s->extensions[i].connection != connection) continue;
        s->extensions[i].waits = false;
        s->extensions[i].connection = NO_CONNECTION;
        return true;
    }
    return false;
}

/* --- requests ------------------------------------------------------------------------------------------------- */

static struct extension *by_name(struct sandbox *s, const char *name) {
    for (size_t i = 0; i < s->extension_count; i++) {
        if (strcmp(s->extensions[i].name, name) == 0) return &s->extensions[i];
    }
    return NULL;
}

static int by_identifier(struct sandbox *s, const struct slice *identifier) {
    for (size_t i = 0; identifier != NULL && i < s->extension_count; i++) {
        if (s->extensions[i].registered && slice_is(*identifier, s->extensions[i].id)) return (int)i;
    }
    return -1;
}

static enum request_verdict refuse(struct sandbox *s, int connection, const char *type, const char *message) {
    reply_error(s, connection, 403, type, message);
    return REQUEST_WAITS;
}

static enum request_verdict event_next(struct sandbox *s, int connection, struct extension *extension) {
    bool allowed = s->phase == PHASE_INIT || s->phase == PHASE_READY || s->phase == PHASE_BUSY;
    if (!allowed) return refuse(s, connection, "Extension.InvalidExtensionState", "The sandbox is ending");
    int older = extension->connection;
    extension->waits = true;
    extension->connection = connection;
    if (older != NO_CONNECTION && older != connection) world_close(older, false);
    sandbox_advance(s);
    return REQUEST_WAITS;
}

enum request_verdict extensions_request(struct sandbox *s, int connection, struct slice path,
                                        const struct http_request *request) {
    struct exchange *exchange = &s->exchanges[connection];
    bool is_post = slice_is(request->method, "POST");
    if (is_post && slice_is(path, "register")) {
        const struct slice *name = http_header(&request->headers, "Lambda-Extension-Name");
        struct slice given = name == NULL ? (struct slice){"", 0} : *name;
        copy_string(exchange->name, sizeof exchange->name, given.at, given.length);
        const struct slice *features = http_header(&request->headers, "Lambda-Extension-Accept-Feature");
        exchange->extension = features != NULL && memmem(features->at, features->length, "accountId", 9) != NULL;
        exchange->kind = REQUEST_REGISTER;
        return REQUEST_TAKES_BODY;
    }
    const struct slice *identifier = http_header(&request->headers, "Lambda-Extension-Identifier");
    int index = by_identifier(s, identifier);
    bool is_next = slice_is(path, "event/next") && slice_is(request->method, "GET");
    if (is_next && index >= 0) return event_next(s, connection, &s->extensions[index]);
    bool is_report = is_post && (slice_is(path, "init/error") || slice_is(path, "exit/error"));
    exchange->kind = REQUEST_EXTENSION_ERROR;
    exchange->extension = !is_next && !is_report ? -2 : identifier == NULL ? -3 : index;
    const struct slice *type = http_header(&request->headers, "Lambda-Extension-Function-Error-Type");
    copy_string(exchange->error_type, sizeof exchange->error_type, type == NULL ? "" : type->at,
                type == NULL ? 0 : type->length);
    return REQUEST_TAKES_BODY;
}

/* The body of a register request is {"events":[…]}; nothing else in it can hold these texts. */
static bool has_event(const struct exchange *exchange, const char *quoted) {
    return exchange->bytes != NULL && memmem(exchange->bytes, exchange->length, quoted, strlen(quoted)) != NULL;
}

static void reply_registered(struct sandbox *s, int connection, const struct extension *extension, bool with_account) {
    const struct configuration *c = &s->configuration;
    char bytes[2 * KIB];
    struct text body = {bytes, 0, sizeof bytes, false};
    text_string(&body, "{\"functionName\":\"");
    text_json(&body, c->function_name);
    text_string(&body, "\",\"functionVersion\":\"");
    text_json(&body, c->function_version);
    text_string(&body, "\",\"handler\":\"");
    text_json(&body, c->handler);
    if (with_account) {
        text_string(&body, "\",\"accountId\":\"");
        text_json(&body, c->account_id);
    }
    text_string(&body, "\"}");
    char headers[96];
    snprintf(headers, sizeof headers, "Lambda-Extension-Identifier: %s\r\n", extension->id);
    reply_json(s, connection, 200, headers, body.at, body.length);
}

static void end_register(struct sandbox *s, int connection, struct exchange *exchange) {
    struct extension *extension = by_name(s, exchange->name);
    if (exchange->name[0] == 0) {
        refuse(s, connection, "Extension.InvalidExtensionName", "Empty extension name");
        return;
    }
    if (s->phase != PHASE_INIT) {
        refuse(s, connection, "Extension.RegistrationClosed", "Extension registration closed already");
        return;
    }
    if (extension != NULL && extension->registered) {
        refuse(s, connection, "Extension.AlreadyRegistered", "Extension with this name already registered");
        return;
    }
    bool wants_shutdown = has_event(exchange, "\"SHUTDOWN\"");
    /* Only a process of its own can outlive the runtime to be told of its end. */
    if (wants_shutdown && extension == NULL) {
        refuse(s, connection, "Extension.InvalidEventType", "SHUTDOWN: event not supported for internal extensions");
        return;
    }
    if (extension == NULL) extension = add(s, exchange->name, false);
    if (extension == NULL) {
        refuse(s, connection, "Extension.TooManyExtensions", "Extension limit (10) reached");
        return;
    }
    extension->registered = true;
    extension->wants_shutdown = wants_shutdown;
    extension->wants_invoke = has_event(exchange, "\"INVOKE\"");
    reply_registered(s, connection, extension, exchange->extension != 0);
}

void extensions_body_end(struct sandbox *s, int connection) {
    struct exchange *exchange = &s->exchanges[connection];
    if (exchange->kind == REQUEST_REGISTER) {
        end_register(s, connection, exchange);
        return;
    }
    if (exchange->extension == -2) {
        reply_error(s, connection, 404, "NotFound", "No such path in the Extensions API");
    } else if (exchange->extension == -3) {
        refuse(s, connection, "Extension.MissingExtensionIdentifier", "Missing Lambda-Extension-Identifier header");
    } else if (exchange->extension < 0 || (size_t)exchange->extension >= s->extension_count) {
        refuse(s, connection, "Extension.InvalidExtensionIdentifier", "Unknown extension identifier");
    } else {
        reply_json(s, connection, 202, "", "{\"status\":\"OK\"}\n", 16);
        memcpy(s->failure.error_type, exchange->error_type, sizeof s->failure.error_type);
        sandbox_fail(s, OUTCOME_REPORTED);
    }
}
