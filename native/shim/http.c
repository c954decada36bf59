#define _GNU_SOURCE
#include "http.h"

#include <stdlib.h>
#include <string.h>

static char lower(char c) { return c >= 'A' && c <= 'Z' ? (char)(c | 0x20) : c; }

bool slice_is(struct slice slice, const char *text) {
    return strlen(text) == slice.length && memcmp(slice.at, text, slice.length) == 0;
}

bool slice_starts(struct slice slice, const char *text) {
    size_t length = strlen(text);
    return slice.length >= length && memcmp(slice.at, text, length) == 0;
}

bool slice_is_nocase(struct slice slice, const char *text) {
    if (strlen(text) != slice.length) return false;
    for (size_t i = 0; i < slice.length; i++) {
        if (lower(slice.at[i]) != lower(text[i])) return false;
    }
    return true;
}

const struct slice *http_header(const struct http_headers *headers, const char *name) {
    for (size_t i = 0; i < headers->count; i++) {
        if (slice_is_nocase(headers->list[i].name, name)) return &headers->list[i].value;
    }
    return NULL;
}

/* tchar of RFC 9110. */
static bool is_token(struct slice slice) {
    if (slice.length == 0) return false;
    for (size_t i = 0; i < slice.length; i++) {
        char c = slice.at[i];
        bool alnum = (c >= '0' && c <= '9') || (lower(c) >= 'a' && lower(c) <= 'z');
        if (!alnum && (c == 0 || strchr("!#$%&'*+-.^_`|~", c) == NULL)) return false;
    }
    return true;
}

/* No control characters but tabs: what is relayed from a header must not mean anything further on. */
static bool is_text(struct slice slice) {
    for (size_t i = 0; i < slice.length; i++) {
        unsigned char c = (unsigned char)slice.at[i];
        if ((c < 0x20 && c != '\t') || c == 0x7f) return false;
    }
    return true;
}

static struct slice trim(struct slice slice) {
    while (slice.length > 0 && (slice.at[0] == ' ' || slice.at[0] == '\t')) {
        slice.at++;
        slice.length--;
    }
    while (slice.length > 0 && (slice.at[slice.length - 1] == ' ' || slice.at[slice.length - 1] == '\t')) slice.length--;
    return slice;
}

/* Takes a line off `*rest`, without its end; false when there is none. A bare LF ends a line, as a CR LF does. */
static bool take_line(struct slice *rest, struct slice *line) {
    const char *end = rest->length == 0 ? NULL : memchr(rest->at, '\n', rest->length);
    if (end == NULL) return false;
    *line = (struct slice){rest->at, (size_t)(end - rest->at)};
    rest->length -= line->length + 1;
    rest->at = end + 1;
    if (line->length > 0 && line->at[line->length - 1] == '\r') line->length--;
    return true;
}

/* Header lines up to the empty one. 0, or minus an HTTP status. */
static int parse_headers(struct slice rest, struct http_headers *headers) {
    headers->count = 0;
    struct slice line;
    while (take_line(&rest, &line) && line.length > 0) {
        const char *colon = memchr(line.at, ':', line.length);
        if (colon == NULL) return -400;
        struct slice name = {line.at, (size_t)(colon - line.at)};
        struct slice value = trim((struct slice){colon + 1, line.length - name.length - 1});
        if (!is_token(name) || !is_text(value)) return -400;
        if (headers->count == HTTP_HEADERS_MAX) return -431;
        headers->list[headers->count++] = (struct http_header){name, value};
    }
    return 0;
}

static bool parse_decimal(struct slice text, uint64_t *value) {
    *value = 0;
    if (text.length == 0 || text.length > 15) return false;
    for (size_t i = 0; i < text.length; i++) {
        if (text.at[i] < '0' || text.at[i] > '9') return false;
        *value = *value * 10 + (uint64_t)(text.at[i] - '0');
    }
    return *value <= HTTP_BODY_BYTES_MAX;
}

static int parse_request_line(struct slice line, struct http_request *request) {
    const char *space = memchr(line.at, ' ', line.length);
    if (space == NULL) return -400;
    request->method = (struct slice){line.at, (size_t)(space - line.at)};
    struct slice rest = {space + 1, line.length - request->method.length - 1};
    space = rest.length == 0 ? NULL : memrchr(rest.at, ' ', rest.length);
    if (space == NULL || !is_token(request->method)) return -400;
    request->path = (struct slice){rest.at, (size_t)(space - rest.at)};
    struct slice version = {space + 1, rest.length - request->path.length - 1};
    if (!slice_starts(version, "HTTP/1.")) return slice_starts(version, "HTTP/") ? -505 : -400;
    request->keep_alive = slice_is(version, "HTTP/1.1");
    /* A proxy's form carries the origin too; only what follows it is the path. */
    if (slice_starts(request->path, "http://")) {
        const char *slash = memchr(request->path.at + 7, '/', request->path.length - 7);
        if (slash == NULL) return -400;
        request->path.length -= (size_t)(slash - request->path.at);
        request->path.at = slash;
    }
    const char *query = request->path.length == 0 ? NULL : memchr(request->path.at, '?', request->path.length);
    if (query != NULL) request->path.length = (size_t)(query - request->path.at);
    return request->path.length == 0 ? -400 : 0;
}

/* What the headers say about the body. Two lengths, or a length and chunks, are refused: no guessing. */
static int parse_framing(struct http_request *request) {
    request->chunked = false;
    request->content_length = 0;
    request->expects_continue = false;
    bool has_length = false;
    for (size_t i = 0; i < request->headers.count; i++) {
        struct http_header header = request->headers.list[i];
        if (slice_is_nocase(header.name, "content-length")) {
            if (has_length || !parse_decimal(header.value, &request->content_length)) return -400;
            has_length = true;
        } else if (slice_is_nocase(header.name, "transfer-encoding")) {
            if (request->chunked) return -400;
            if (!slice_is_nocase(header.value, "chunked")) return -501;
            request->chunked = true;
        } else if (slice_is_nocase(header.name, "expect")) {
            request->expects_continue = slice_is_nocase(header.value, "100-continue");
        } else if (slice_is_nocase(header.name, "connection")) {
            if (slice_is_nocase(header.value, "close")) request->keep_alive = false;
            if (slice_is_nocase(header.value, "keep-alive")) request->keep_alive = true;
        }
    }
    return has_length && request->chunked ? -400 : 0;
}

/* The size of the block that ends with an empty line, or 0. */
static size_t find_end(const char *bytes, size_t length, size_t *scanned) {
    size_t at = *scanned;
    while (at < length) {
        const char *lf = memchr(bytes + at, '\n', length - at);
        if (lf == NULL) break;
        size_t next = (size_t)(lf - bytes) + 1;
        if (next < length && bytes[next] == '\n') return next + 1;
        if (next + 1 < length && bytes[next] == '\r' && bytes[next + 1] == '\n') return next + 2;
        if (next + 1 >= length) {
            *scanned = next - 1;
            return 0;
        }
        at = next;
    }
    *scanned = length;
    return 0;
}

long http_parse_head(const char *bytes, size_t length, size_t *scanned, struct http_request *request) {
    size_t size = find_end(bytes, length, scanned);
    if (size == 0) return length >= HTTP_HEAD_BYTES_MAX ? -431 : 0;
    if (size > HTTP_HEAD_BYTES_MAX) return -431;
    struct slice rest = {bytes, size};
    struct slice line;
    if (!take_line(&rest, &line)) return -400;
    int status = line.length == 0 ? -400 : parse_request_line(line, request);
    if (status == 0) status = parse_headers(rest, &request->headers);
    if (status == 0) status = parse_framing(request);
    return status != 0 ? status : (long)size;
}

void http_body_begin(struct http_body *body, const struct http_request *request) {
    http_body_release(body);
    body->remaining = request->content_length;
    body->digits = 0;
    if (request->chunked) body->state = BODY_CHUNK_SIZE;
    else body->state = body->remaining > 0 ? BODY_LENGTH : BODY_END;
}

void http_body_release(struct http_body *body) {
    free(body->trailer);
    *body = (struct http_body){.state = BODY_END};
}

static int hex_digit(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    c = lower(c);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* One byte of a chunk's frame (everything but its data). */
static enum http_body_state chunk_byte(struct http_body *body, char c) {
    switch (body->state) {
    case BODY_CHUNK_SIZE: {
        int digit = hex_digit(c);
        if (digit >= 0) {
            body->remaining = body->remaining * 16 + (unsigned)digit;
            return ++body->digits > 15 || body->remaining > HTTP_BODY_BYTES_MAX ? BODY_BROKEN : BODY_CHUNK_SIZE;
        }
        if (body->digits == 0) return BODY_BROKEN;
        if (c == '\r') return BODY_CHUNK_SIZE_LF;
        return c == ';' || c == ' ' || c == '\t' ? BODY_CHUNK_EXTENSION : BODY_BROKEN;
    }
    case BODY_CHUNK_EXTENSION:
        /* Ignored, and bounded: `digits` counts on. */
        if (++body->digits > KIB || c == '\n') return BODY_BROKEN;
        return c == '\r' ? BODY_CHUNK_SIZE_LF : BODY_CHUNK_EXTENSION;
    case BODY_CHUNK_SIZE_LF:
        if (c != '\n') return BODY_BROKEN;
        return body->remaining == 0 ? BODY_TRAILER : BODY_CHUNK_DATA;
    case BODY_CHUNK_CR: return c == '\r' ? BODY_CHUNK_LF : BODY_BROKEN;
    case BODY_CHUNK_LF:
        body->digits = 0;
        return c == '\n' ? BODY_CHUNK_SIZE : BODY_BROKEN;
    default: return BODY_BROKEN;
    }
}

/* Adds trailer bytes up to and with the empty line. */
static enum http_body_state trailer_bytes(struct http_body *body, struct slice *bytes) {
    while (bytes->length > 0) {
        if (body->trailer_length == body->trailer_capacity) {
            if (body->trailer_capacity >= HTTP_TRAILER_BYTES_MAX) return BODY_BROKEN;
            size_t capacity = body->trailer_capacity == 0 ? 256 : body->trailer_capacity * 2;
            char *grown = realloc(body->trailer, capacity);
            if (grown == NULL) return BODY_BROKEN;
            body->trailer = grown;
            body->trailer_capacity = capacity;
        }
        char c = bytes->at[0];
        bytes->at++;
        bytes->length--;
        body->trailer[body->trailer_length++] = c;
        const char *end = body->trailer + body->trailer_length;
        if (c != '\n') continue;
        bool empty_line = body->trailer_length == 2 && end[-2] == '\r';
        empty_line = empty_line || (body->trailer_length >= 4 && memcmp(end - 4, "\r\n\r\n", 4) == 0);
        if (empty_line) return BODY_END;
    }
    return BODY_TRAILER;
}

enum http_body_event http_body_step(struct http_body *body, struct slice *bytes, struct slice *data) {
    for (;;) {
        if (body->state == BODY_END) return BODY_EVENT_END;
        if (body->state == BODY_BROKEN) return BODY_EVENT_BAD;
        if (bytes->length == 0) return BODY_EVENT_MORE;
        if (body->state == BODY_LENGTH || body->state == BODY_CHUNK_DATA) {
            size_t take = body->remaining < bytes->length ? (size_t)body->remaining : bytes->length;
            *data = (struct slice){bytes->at, take};
            bytes->at += take;
            bytes->length -= take;
            body->remaining -= take;
            if (body->remaining == 0) body->state = body->state == BODY_LENGTH ? BODY_END : BODY_CHUNK_CR;
            return BODY_EVENT_DATA;
        }
        if (body->state == BODY_TRAILER) {
            body->state = trailer_bytes(body, bytes);
            continue;
        }
        body->state = chunk_byte(body, bytes->at[0]);
        bytes->at++;
        bytes->length--;
    }
}

bool http_body_trailers(const struct http_body *body, struct http_headers *trailers) {
    trailers->count = 0;
    return body->trailer == NULL || parse_headers((struct slice){body->trailer, body->trailer_length}, trailers) == 0;
}
