/*
 * Hostile bytes against the parts of the shim that are pure, under sanitizers. `fuzz SECONDS SEED CORPUS-DIRECTORY`.
 * Two targets in turn, both driven by a seeded generator, so that a failing seed can be repeated:
 *
 * - HTTP: requests of the corpus, mutated; however the bytes are cut, the parser must see the same thing.
 * - Sandbox: a host and a function that do anything in any order. What comes out must be well-formed frames in the
 *   protocol's order: Ready or InitFailed once per Configure; per Invoke at most one head, data only after it,
 *   exactly one end and one Done, nothing in between; never more bytes than the outbox holds.
 */
#include <assert.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>

#include "../http.h"
#include "../protocol.h"
#include "../sandbox.h"
#include "../world.h"

#define CHECK(condition) \
    do { \
        if (!(condition)) fail(#condition, __LINE__); \
    } while (0)
#define CORPUS_MAX 256
#define INPUT_MAX (96 * KIB)

static uint64_t seed;
static struct slice corpus[CORPUS_MAX];
static size_t corpus_count;

static _Noreturn void fail(const char *what, int line) {
    fprintf(stderr, "line %d: %s does not hold; seed %llu\n", line, what, (unsigned long long)seed);
    abort();
}

/* --- chance ------------------------------------------------------------------------------------------------------- */

static uint64_t state;

static uint64_t random_u64(void) {
    state += 0x9e3779b97f4a7c15u;
    uint64_t z = state;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static size_t below(size_t limit) { return limit == 0 ? 0 : (size_t)(random_u64() % limit); }
static bool one_in(size_t n) { return below(n) == 0; }

static size_t mutate(char *bytes, size_t length, size_t capacity) {
    static const char *const pieces[] = {"\r\n", "\r\n\r\n", "0\r\n\r\n", "ffffffffffffffff", ":", "chunked", " ", "\0",
                                         "Content-Length: 99999999999999999999\r\n", "Transfer-Encoding: chunked\r\n",
                                         "Expect: 100-continue\r\n", "GET /2018-06-01/runtime/invocation/next HTTP/1.1\r\n\r\n"};
    for (size_t rounds = below(6); rounds > 0; rounds--) {
        size_t at = below(length + 1);
        switch (below(5)) {
        case 0:
            if (length > 0) bytes[below(length)] = (char)random_u64();
            break;
        case 1: {
            const char *piece = pieces[below(sizeof pieces / sizeof pieces[0])];
            size_t n = strlen(piece) + (piece[0] == 0);
            if (length + n > capacity) break;
            memmove(bytes + at + n, bytes + at, length - at);
            memcpy(bytes + at, piece, n);
            length += n;
            break;
        }
        case 2: {
            size_t n = below(length - at + 1);
            memmove(bytes + at, bytes + at + n, length - at - n);
            length -= n;
            break;
        }
        case 3: {
            size_t n = below(length - at + 1);
            if (length + n > capacity) break;
            memmove(bytes + at + n, bytes + at, length - at);
            length += n;
            break;
        }
        default: {
            struct slice other = corpus[below(corpus_count)];
            size_t n = below(other.length + 1);
            if (length + n > capacity) break;
            memcpy(bytes + length, other.at, n);
            length += n;
        }
        }
    }
    return length;
}

/* --- HTTP: the same whatever the cuts --------------------------------------------------------------------------------- */

struct digest {
    uint64_t hash;
    uint64_t requests;
};

static void digest_bytes(struct digest *digest, const char *bytes, size_t length) {
    for (size_t i = 0; i < length; i++) digest->hash = (digest->hash ^ (unsigned char)bytes[i]) * 0x100000001b3u;
}

/* Feeds a whole input in pieces (of 0: all at once) and digests all that the parser says. */
static struct digest http_run(const char *bytes, size_t length, size_t piece_max) {
    struct digest digest = {0xcbf29ce484222325u, 0};
    struct http_body body = {.state = BODY_END};
    /* A copy of exactly what is present, so that a read beyond it is seen. */
    char *present = NULL;
    size_t present_length = 0, given = 0, scanned = 0;
    bool in_body = false, over = false;
    while (!over) {
        size_t piece = piece_max == 0 ? length : 1 + below(piece_max);
        if (piece > length - given) piece = length - given;
        over = piece == 0;
        char *grown = malloc(present_length + piece + 1);
        if (present_length > 0) memcpy(grown, present, present_length);
        memcpy(grown + present_length, bytes + given, piece);
        grown = realloc(grown, present_length + piece > 0 ? present_length + piece : 1);
        free(present);
        present = grown;
        present_length += piece;
        given += piece;
        struct slice rest = {present, present_length};
        for (;;) {
            if (in_body) {
                struct slice data;
                enum http_body_event event = http_body_step(&body, &rest, &data);
                if (event == BODY_EVENT_DATA) digest_bytes(&digest, data.at, data.length);
                if (event == BODY_EVENT_MORE) break;
                if (event == BODY_EVENT_BAD) {
                    digest.hash++;
                    over = true;
                    break;
                }
                if (event != BODY_EVENT_END) continue;
                struct http_headers trailers;
                if (http_body_trailers(&body, &trailers)) digest.hash += trailers.count;
                in_body = false;
                continue;
            }
            struct http_request request;
            long size = rest.length == 0 ? 0 : http_parse_head(rest.at, rest.length, &scanned, &request);
            CHECK(size <= (long)rest.length);
            if (size == 0) break;
            scanned = 0;
            if (size < 0) {
                digest.hash += (uint64_t)-size;
                over = true;
                break;
            }
            digest.requests++;
            digest_bytes(&digest, request.method.at, request.method.length);
            digest_bytes(&digest, request.path.at, request.path.length);
            for (size_t i = 0; i < request.headers.count; i++) {
                digest_bytes(&digest, request.headers.list[i].name.at, request.headers.list[i].name.length);
                digest_bytes(&digest, request.headers.list[i].value.at, request.headers.list[i].value.length);
            }
            rest.at += size;
            rest.length -= (size_t)size;
            http_body_begin(&body, &request);
            in_body = true;
        }
        memmove(present, rest.at, rest.length);
        present_length = rest.length;
    }
    free(present);
    http_body_release(&body);
    return digest;
}

static void fuzz_http(void) {
    static char input[INPUT_MAX];
    struct slice from = corpus[below(corpus_count)];
    size_t length = from.length < INPUT_MAX ? from.length : INPUT_MAX;
    memcpy(input, from.at, length);
    length = mutate(input, length, INPUT_MAX);
    struct digest whole = http_run(input, length, 0);
    struct digest cut = http_run(input, length, length > 4 * KIB ? 5000 : one_in(2) ? 3 : 200);
    CHECK(whole.hash == cut.hash && whole.requests == cut.requests);
}

/* --- the world of the sandbox target ------------------------------------------------------------------------------------ */

static struct sandbox sandbox;
static struct outbox outbox;
static uint8_t outbox_bytes[OUTBOX_BYTES];
static uint64_t now_us = 1;
static bool open_connections[CONNECTIONS_MAX];
static bool awaits_reply[CONNECTIONS_MAX];
static bool in_body[CONNECTIONS_MAX];
static pid_t processes[16];
static pid_t next_pid;
static bool killed;
static char request_id[64];

uint64_t world_now_us(void) { return now_us; }
uint64_t world_unix_us(void) { return now_us + 1000000000; }
void world_set_unix_us(uint64_t unix_us) { (void)unix_us; }
const char *world_mount_root(const struct configuration *configuration) {
    return configuration->argument_count > 0 && one_in(50) ? "mounting failed" : NULL;
}
const char *world_mount_function(const struct configuration *configuration) { return world_mount_root(configuration); }

size_t world_list_extensions(char names[][EXTENSION_NAME_CHARS_MAX + 1]) {
    if (!one_in(3)) return 0;
    size_t count = one_in(10) ? EXTENSIONS_MAX + 1 : 1 + below(3);
    for (size_t i = 0; i < count; i++) snprintf(names[i], EXTENSION_NAME_CHARS_MAX + 1, "extension-%zu", i);
    return count;
}

int world_spawn(const struct configuration *configuration, char *const arguments[], char *const environment[],
                pid_t *pid) {
    CHECK(arguments[0] != NULL && environment != NULL && configuration != NULL);
    *pid = 0;
    if (one_in(30)) return 2;
    for (size_t i = 0; i < 16; i++) {
        if (processes[i] != 0) continue;
        *pid = processes[i] = ++next_pid;
        return 0;
    }
    return 11;
}

void world_terminate(pid_t pid) { CHECK(pid > 0); }
void world_kill_all(void) { killed = true; }
uint64_t world_oom_kills(void) { return random_u64() % 2; }
struct memory_use world_memory(bool with_pids) { return (struct memory_use){1, with_pids, 3}; }
void world_flush(void) {}
void world_random(void *bytes, size_t length) { memset(bytes, (int)random_u64(), length); }

void world_reply(int connection, const void *head, size_t head_length, const void *body, size_t body_length) {
    CHECK(connection >= 0 && connection < CONNECTIONS_MAX && open_connections[connection]);
    CHECK(awaits_reply[connection] || in_body[connection]);
    CHECK(head_length > 12 && memcmp(head, "HTTP/1.1 ", 9) == 0);
    /* Reads all of it, so that the sanitizer sees it. */
    static volatile unsigned sum;
    for (size_t i = 0; i < body_length; i++) sum += ((const unsigned char *)body)[i];
    awaits_reply[connection] = false;
}

void world_close(int connection, bool flush) {
    (void)flush;
    CHECK(connection >= 0 && connection < CONNECTIONS_MAX);
    if (!open_connections[connection]) return;
    open_connections[connection] = awaits_reply[connection] = in_body[connection] = false;
    sandbox_closed(&sandbox, connection);
}

/* --- what the host must see ---------------------------------------------------------------------------------------------- */

static bool wants_prepared, wants_init, invoked, has_head, has_end;
/* How often each type came: a fuzzer that never gets to an answer proves nothing. */
static unsigned long seen[256];

static void expect_frame(const struct frame *frame) {
    seen[frame->type]++;
    switch (frame->type) {
    case FROM_SHIM_PREPARED:
        CHECK(wants_prepared && !wants_init && !invoked);
        wants_prepared = false;
        break;
    case FROM_SHIM_READY:
    case FROM_SHIM_INIT_FAILED:
        CHECK(wants_init && !invoked);
        wants_init = false;
        break;
    case FROM_SHIM_RESPONSE_HEAD:
        CHECK(invoked && !has_head && !has_end);
        has_head = true;
        break;
    case FROM_SHIM_RESPONSE_DATA: CHECK(invoked && has_head && !has_end && frame->length > 0); break;
    case FROM_SHIM_RESPONSE_END:
        CHECK(invoked && !has_end);
        has_end = true;
        break;
    case FROM_SHIM_DONE:
        CHECK(invoked && has_end);
        invoked = has_head = has_end = false;
        break;
    case FROM_SHIM_STATUS: break;
    default: fail("a frame type of ours", frame->type);
    }
    struct slice payload = {(const char *)frame->payload, frame->length};
    struct field field;
    int rc = 0;
    while (frame->type != FROM_SHIM_RESPONSE_DATA && (rc = field_next(&payload, &field)) > 0) continue;
    CHECK(rc == 0);
}

static void read_outbox(void) {
    CHECK(!outbox.overflowed);
    struct frame frame;
    long size;
    while ((size = frame_parse(outbox.bytes + outbox.head, outbox_used(&outbox), &frame)) > 0) {
        expect_frame(&frame);
        outbox_sent(&outbox, (size_t)size);
    }
    CHECK(size == 0 && outbox_used(&outbox) == 0);
}

/* --- what host and function do --------------------------------------------------------------------------------------------- */

static struct outbox script;
static uint8_t script_bytes[OUTBOX_BYTES];

static void give_frames(void) {
    /* From a copy of its exact size, now and then damaged. */
    size_t length = outbox_used(&script);
    uint8_t *copy = malloc(length + 1);
    memcpy(copy, script.bytes, length);
    if (length > 8 && one_in(40)) copy[8 + below(length - 8)] = (uint8_t)random_u64();
    copy = realloc(copy, length);
    size_t at = 0;
    struct frame frame;
    long size;
    while (sandbox.fault == NULL && (size = frame_parse(copy + at, length - at, &frame)) > 0) {
        bool was_active = sandbox.invocation.active;
        enum phase was = sandbox.phase;
        if (frame.type == TO_SHIM_PREPARE && was == PHASE_BOOTED) wants_prepared = true;
        if (frame.type == TO_SHIM_CONFIGURE && (was == PHASE_BOOTED || was == PHASE_PREPARED)) wants_init = true;
        /* Set before: its end may come out at once. */
        bool may_invoke = was == PHASE_READY || was == PHASE_DOWN || (was == PHASE_ENDING && sandbox.ending == ENDING_IDLE);
        if (frame.type == TO_SHIM_INVOKE && !was_active && may_invoke) invoked = true;
        sandbox_frame(&sandbox, &frame);
        at += (size_t)size;
    }
    free(copy);
    outbox_init(&script, script_bytes);
}

static void host_configures(uint8_t type) {
    frame_begin(&script, type, 0);
    frame_number(&script, CONFIGURE_TAKE_PREPARED, !one_in(3));
    frame_bytes(&script, CONFIGURE_ARGUMENT, "/var/task/bootstrap", 19);
    for (size_t i = below(4); i > 0; i--) frame_bytes(&script, CONFIGURE_ENVIRONMENT, one_in(2) ? "_A=b" : "C=d", 4);
    frame_bytes(&script, CONFIGURE_FUNCTION_NAME, "name\"\\\n", 7);
    frame_number(&script, CONFIGURE_INIT_TIMEOUT_MS, 1 + below(1000));
    frame_end(&script);
    give_frames();
}

static void host_invokes(void) {
    size_t payload = one_in(20) ? below(70000) : below(20);
    snprintf(request_id, sizeof request_id, "id-%zu", below(1000000));
    frame_begin(&script, TO_SHIM_INVOKE, 0);
    frame_bytes(&script, INVOKE_REQUEST_ID, request_id, strlen(request_id));
    frame_number(&script, INVOKE_DEADLINE_MS, (world_unix_us() + below(3000000)) / 1000);
    frame_number(&script, INVOKE_PAYLOAD_BYTES, payload);
    frame_number(&script, INVOKE_RESPONSE_BYTES_MAX, one_in(3) ? below(100) : 6291556);
    if (one_in(2)) frame_bytes(&script, INVOKE_TRACE_ID, "Root=1\r\nX: y\"", 13);
    frame_end(&script);
    static const char zeros[70000];
    bool last = !one_in(30);
    size_t first = below(payload + 1);
    frame_begin(&script, TO_SHIM_PAYLOAD, 0);
    uint8_t *at = outbox_space(&script, first);
    memcpy(at, zeros, first);
    script.tail += first;
    frame_end(&script);
    frame_begin(&script, TO_SHIM_PAYLOAD, last ? FLAG_LAST : 0);
    at = outbox_space(&script, payload - first);
    memcpy(at, zeros, payload - first);
    script.tail += payload - first;
    frame_end(&script);
    give_frames();
}

static void host_says(uint8_t type) {
    frame_begin(&script, type, 0);
    if (type == TO_SHIM_SHUTDOWN && one_in(2)) frame_number(&script, SHUTDOWN_GRACE_MS, below(3000));
    frame_end(&script);
    give_frames();
}

static size_t make_request(char *into, size_t capacity) {
    static const char *const modes[] = {"", "Lambda-Runtime-Function-Response-Mode: streaming\r\n",
                                        "Lambda-Runtime-Function-Response-Mode: other\r\n",
                                        "Lambda-Runtime-Function-Error-Type: Function.Bad\r\n",
                                        "Lambda-Extension-Name: extension-0\r\n", "Lambda-Extension-Name: inner\r\n"};
    const char *id = one_in(8) ? "other" : request_id;
    char path[256];
    switch (below(sandbox.prepared && one_in(3) ? 11 : 10)) {
    default: snprintf(path, sizeof path, "GET /hearth/function"); break;
    case 0:
    case 1:
    case 2: snprintf(path, sizeof path, "GET /2018-06-01/runtime/invocation/next"); break;
    case 3:
    case 4: snprintf(path, sizeof path, "POST /2018-06-01/runtime/invocation/%s/response", id); break;
    case 5: snprintf(path, sizeof path, "POST /2018-06-01/runtime/invocation/%s/error", id); break;
    case 6: snprintf(path, sizeof path, one_in(4) ? "POST /2018-06-01/runtime/init/error" : "GET /2018-06-01/ping"); break;
    case 7: snprintf(path, sizeof path, "POST /2020-01-01/extension/register"); break;
    case 8: snprintf(path, sizeof path, "GET /2020-01-01/extension/event/next"); break;
    case 9: snprintf(path, sizeof path, one_in(2) ? "POST /2020-01-01/extension/exit/error" : "PUT /2022-07-01/telemetry");
    }
    char identifier[96] = "";
    if (sandbox.extension_count > 0 && one_in(2)) {
        size_t index = below(sandbox.extension_count);
        snprintf(identifier, sizeof identifier, "Lambda-Extension-Identifier: %s\r\n", sandbox.extensions[index].id);
    }
    bool get = path[0] == 'G';
    bool chunked = !get && one_in(2);
    int n = snprintf(into, capacity, "%s HTTP/1.1\r\n%s%s%s\r\n", path, modes[below(6)], identifier,
                     get ? "" : chunked ? "Transfer-Encoding: chunked\r\n" : "Content-Length: 21\r\n");
    static const char body[] = "{\"events\":[\"INVOKE\"]}";
    if (chunked && one_in(100)) {
        /* About as much as an init's error report may have. */
        size_t size = ERROR_BODY_BYTES_MAX - 100 + below(100 * KIB);
        n += snprintf(into + n, capacity - (size_t)n, "%zx\r\n", size);
        memset(into + n, 'e', size);
        memcpy(into + (size_t)n + size, "\r\n0\r\n\r\n", 7);
        return (size_t)n + size + 7;
    }
    if (chunked) {
        n += snprintf(into + n, capacity - (size_t)n, "15\r\n%s\r\n0\r\nLambda-Runtime-Function-Error-Type: Function.X\r\n"
                      "Lambda-Runtime-Function-Error-Body: e30%s=\r\n\r\n", body, one_in(3) ? "*" : "");
    } else if (!get) {
        n += snprintf(into + n, capacity - (size_t)n, "%s", body);
    }
    return (size_t)n;
}

/* A connection's request through the parser into the sandbox, as the server does it, up to a random point. */
static void function_requests(void) {
    int connection = (int)below(one_in(10) ? CONNECTIONS_MAX : 6);
    if (awaits_reply[connection]) {
        if (one_in(6)) world_close(connection, false);
        return;
    }
    open_connections[connection] = true;
    static char text[512 * KIB];
    size_t length = make_request(text, 4 * KIB);
    if (one_in(10) && length < INPUT_MAX) length = mutate(text, length, INPUT_MAX);
    char *copy = malloc(length + 1);
    memcpy(copy, text, length);
    size_t scanned = 0;
    struct http_request request;
    long size = http_parse_head(copy, length, &scanned, &request);
    if (size <= 0 || ((request.chunked || request.content_length > 0) && slice_is(request.method, "GET"))) {
        free(copy);
        world_close(connection, false);
        return;
    }
    awaits_reply[connection] = true;
    if (sandbox_request(&sandbox, connection, &request) == REQUEST_TAKES_BODY && open_connections[connection]) {
        awaits_reply[connection] = false;
        in_body[connection] = true;
        struct http_body body = {.state = BODY_END};
        http_body_begin(&body, &request);
        struct slice rest = {copy + size, length - (size_t)size}, data;
        enum http_body_event event = BODY_EVENT_MORE;
        while (open_connections[connection] && (event = http_body_step(&body, &rest, &data)) == BODY_EVENT_DATA) {
            sandbox_body(&sandbox, connection, data);
        }
        if (event == BODY_EVENT_END && open_connections[connection]) {
            struct http_headers trailers;
            bool good = http_body_trailers(&body, &trailers);
            awaits_reply[connection] = true;
            sandbox_body_end(&sandbox, connection, good && trailers.count > 0 ? &trailers : NULL);
            in_body[connection] = false;
            CHECK(!open_connections[connection] || !awaits_reply[connection]);
        } else {
            world_close(connection, false);
        }
        http_body_release(&body);
    }
    free(copy);
}

static void process_ends(void) {
    size_t index = below(16);
    if (processes[index] == 0) return;
    pid_t pid = processes[index];
    processes[index] = 0;
    sandbox_exited(&sandbox, pid, one_in(2) ? (int)below(256) << 8 : 9);
}

static void pass_over(void) {
    if (killed) {
        for (size_t i = 0; i < 16; i++) {
            pid_t pid = processes[i];
            processes[i] = 0;
            if (pid != 0) sandbox_exited(&sandbox, pid, 9);
        }
        killed = false;
    }
    if (sandbox_deadline(&sandbox) <= now_us) sandbox_timer(&sandbox);
    bool any = false;
    for (size_t i = 0; i < 16; i++) any = any || processes[i] != 0;
    if (!any) sandbox_all_gone(&sandbox);
    if (sandbox.settling && one_in(2)) sandbox_settled(&sandbox);
    read_outbox();
}

static void release_sandbox(void) {
    for (int i = 0; i < CONNECTIONS_MAX; i++) world_close(i, false);
    failure_reset(&sandbox.failure);
    free(sandbox.invocation.event);
    free(sandbox.configuration.texts);
    memset(processes, 0, sizeof processes);
    killed = wants_prepared = wants_init = invoked = has_head = has_end = false;
}

static void fuzz_sandbox(void) {
    outbox_init(&outbox, outbox_bytes);
    outbox_init(&script, script_bytes);
    sandbox_init(&sandbox, &outbox);
    bool prepares = one_in(3);
    if (prepares) host_configures(TO_SHIM_PREPARE);
    else if (!one_in(50)) host_configures(TO_SHIM_CONFIGURE);
    for (size_t steps = 50 + below(400); steps > 0 && sandbox.fault == NULL && sandbox.phase != PHASE_OFF; steps--) {
        now_us += below(one_in(20) ? 3000000 : 2000);
        if (sandbox.phase == PHASE_PREPARED && one_in(8)) host_configures(TO_SHIM_CONFIGURE);
        bool idle = (sandbox.phase == PHASE_READY || sandbox.phase == PHASE_DOWN) && !sandbox.invocation.active;
        if (idle && one_in(3)) host_invokes();
        else if (one_in(300)) host_invokes();
        else if (one_in(400)) host_says((uint8_t)below(9));
        else if (one_in(500)) host_says(TO_SHIM_SHUTDOWN);
        else if (one_in(100)) process_ends();
        else function_requests();
        if (sandbox.fault == NULL) pass_over();
    }
    release_sandbox();
}

/* --- the program ---------------------------------------------------------------------------------------------------------- */

static void read_corpus(const char *path) {
    DIR *directory = opendir(path);
    struct dirent *entry;
    while (directory != NULL && corpus_count < CORPUS_MAX && (entry = readdir(directory)) != NULL) {
        if (entry->d_name[0] == '.') continue;
        char name[1024];
        snprintf(name, sizeof name, "%s/%s", path, entry->d_name);
        FILE *file = fopen(name, "rb");
        char *bytes = malloc(INPUT_MAX);
        if (file == NULL || bytes == NULL) exit(2);
        corpus[corpus_count++] = (struct slice){bytes, fread(bytes, 1, INPUT_MAX, file)};
        fclose(file);
    }
    if (directory != NULL) closedir(directory);
    if (corpus_count == 0) exit(2);
}

int main(int count, char **arguments) {
    if (count != 4) return 2;
    time_t end = time(NULL) + atoi(arguments[1]);
    seed = strtoull(arguments[2], NULL, 10);
    read_corpus(arguments[3]);
    unsigned long rounds = 0;
    for (; time(NULL) < end; seed++, rounds++) {
        state = seed;
        fuzz_http();
        fuzz_sandbox();
    }
    if (seen[FROM_SHIM_PREPARED] == 0) fail("a runtime that was prepared", 0);
    for (int type = FROM_SHIM_READY; type <= FROM_SHIM_DONE; type++) {
        if (type != FROM_SHIM_LOG && seen[type] == 0) fail("a frame of every type", type);
    }
    printf("%lu rounds, %lu invocations\n", rounds, seen[FROM_SHIM_DONE]);
    return 0;
}
