/* HTTP/1.1 requests as bytes in memory: heads, and bodies as they come. Pure; every byte is hostile. */
#ifndef SHIM_HTTP_H
#define SHIM_HTTP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "frames.h"
#include "limits.h"

struct http_header {
    struct slice name;
    struct slice value;
};

struct http_headers {
    size_t count;
    struct http_header list[HTTP_HEADERS_MAX];
};

struct http_request {
    struct slice method;
    /* Without the query. */
    struct slice path;
    struct http_headers headers;
    bool keep_alive;
    bool expects_continue;
    bool chunked;
    uint64_t content_length;
};

/*
 * The head of a request. Returns its size; 0 when more bytes are needed; minus an HTTP status when it cannot be
 * served. `*scanned` carries over how far the search for its end has come: 0 for a new head.
 * The request's slices point into `bytes`.
 */
long http_parse_head(const char *bytes, size_t length, size_t *scanned, struct http_request *request);

/* The first header of that name, or NULL. Names compare without case. */
const struct slice *http_header(const struct http_headers *headers, const char *name);
bool slice_is(struct slice slice, const char *text);
bool slice_is_nocase(struct slice slice, const char *text);
bool slice_starts(struct slice slice, const char *text);

enum http_body_state {
    BODY_END,
    BODY_LENGTH,
    BODY_CHUNK_SIZE,
    BODY_CHUNK_EXTENSION,
    BODY_CHUNK_SIZE_LF,
    BODY_CHUNK_DATA,
    BODY_CHUNK_CR,
    BODY_CHUNK_LF,
    BODY_TRAILER,
    BODY_BROKEN,
};

struct http_body {
    enum http_body_state state;
    uint64_t remaining;
    unsigned digits;
    /* The trailer block as it came; kept until the body is released. */
    char *trailer;
    size_t trailer_length;
    size_t trailer_capacity;
};

enum http_body_event { BODY_EVENT_MORE, BODY_EVENT_DATA, BODY_EVENT_END, BODY_EVENT_BAD };

void http_body_begin(struct http_body *body, const struct http_request *request);
void http_body_release(struct http_body *body);
/* Takes from `*bytes` up to the next event. `*data` is set for BODY_EVENT_DATA. */
enum http_body_event http_body_step(struct http_body *body, struct slice *bytes, struct slice *data);
/* The trailers of a body that has ended; false when they are malformed. */
bool http_body_trailers(const struct http_body *body, struct http_headers *trailers);

#endif
