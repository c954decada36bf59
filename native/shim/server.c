/* Connections to the Runtime API: sockets on one side, requests of the sandbox on the other. */
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "loop.h"
#include "world.h"

struct connection {
    int fd;
    bool open;
    /* The request's body is being read. */
    bool in_body;
    /* A reply is owed: nothing further is parsed until it was given. */
    bool waits;
    bool keep_alive;
    bool close_after;
    /* Its reader waits for room in the outbox. */
    bool paused;
    /* What epoll has been told. */
    uint32_t events;
    /* Where the search for the end of a head in `stash` has come to. */
    size_t scanned;
    char *stash;
    size_t stash_length;
    char *out;
    size_t out_at;
    size_t out_length;
    struct http_body body;
};

static struct connection connections[CONNECTIONS_MAX];
static int listener = -1;
/* One buffer for all reads: between two of them only what is unfinished is kept, in the connection's stash. */
static char buffer[PIPELINED_BYTES_MAX + HTTP_HEAD_BYTES_MAX + CONNECTION_READ_BYTES];

/* A reply was given on a connection whose next request may already be here. */
static bool has_stashed;
static size_t stashed_bytes;

void server_listen(void) {
    listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int on = 1;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(guest_api_port())};
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    /* Accepted sockets inherit it. */
    setsockopt(listener, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) < 0 || listen(listener, LISTEN_BACKLOG) < 0) {
        sandbox_fault(&loop.sandbox, "cannot listen for the Runtime API");
        return;
    }
    loop_watch(listener, SOURCE_LISTENER, 0, EPOLLIN, true);
}

static void watch(uint32_t index) {
    struct connection *c = &connections[index];
    uint32_t events = (c->paused ? 0 : EPOLLIN) | (c->out_length > c->out_at ? EPOLLOUT : 0);
    if (events == c->events) return;
    c->events = events;
    loop_watch(c->fd, SOURCE_CONNECTION, index, events, false);
}

void server_accept(void) {
    int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) return;
    for (uint32_t i = 0; i < CONNECTIONS_MAX; i++) {
        if (connections[i].open) continue;
        connections[i] = (struct connection){.fd = fd, .open = true, .events = EPOLLIN};
        loop_watch(fd, SOURCE_CONNECTION, i, EPOLLIN, true);
        return;
    }
    close(fd);
}

static void unstash(struct connection *c) {
    free(c->stash);
    stashed_bytes -= c->stash_length;
    c->stash = NULL;
    c->stash_length = 0;
}

static void destroy(uint32_t index) {
    struct connection *c = &connections[index];
    if (!c->open) return;
    c->open = false;
    close(c->fd);
    http_body_release(&c->body);
    unstash(c);
    free(c->out);
    c->out = NULL;
    sandbox_closed(&loop.sandbox, (int)index);
}

void world_close(int index, bool flush) {
    struct connection *c = &connections[index];
    if (!c->open) return;
    if (flush && c->out_length > c->out_at) c->close_after = true;
    else destroy((uint32_t)index);
}

/* --- writing -------------------------------------------------------------------------------------------------- */

/* Keeps what could not be sent at once. */
static bool keep(struct connection *c, const struct iovec *parts, size_t sent) {
    size_t total = parts[0].iov_len + parts[1].iov_len;
    size_t waiting = c->out_length - c->out_at;
    char *grown = malloc(waiting + total - sent);
    if (grown == NULL) return false;
    if (waiting > 0) memcpy(grown, c->out + c->out_at, waiting);
    size_t at = waiting;
    for (int i = 0; i < 2; i++) {
        size_t skip = sent < parts[i].iov_len ? sent : parts[i].iov_len;
        size_t take = parts[i].iov_len - skip;
        if (take > 0) memcpy(grown + at, (const char *)parts[i].iov_base + skip, take);
        at += take;
        sent -= skip;
    }
    free(c->out);
    c->out = grown;
    c->out_at = 0;
    c->out_length = at;
    return true;
}

/* False when the connection broke. */
static bool send_parts(uint32_t index, const void *head, size_t head_length, const void *body, size_t body_length) {
    struct connection *c = &connections[index];
    struct iovec parts[2] = {{(void *)head, head_length}, {(void *)body, body_length}};
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = body_length > 0 ? 2 : 1};
    ssize_t sent = 0;
    if (c->out_length == c->out_at) {
        sent = sendmsg(c->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0 && errno != EAGAIN && errno != EINTR) return false;
        if (sent < 0) sent = 0;
    }
    if ((size_t)sent < head_length + body_length && !keep(c, parts, (size_t)sent)) return false;
    watch(index);
    return true;
}

static void reply_given(uint32_t index) {
    struct connection *c = &connections[index];
    c->waits = false;
    has_stashed = has_stashed || c->stash_length > 0;
    if (!c->keep_alive) c->close_after = true;
    if (c->close_after && c->out_length == c->out_at) shutdown(c->fd, SHUT_WR);
}

void world_reply(int index, const void *head, size_t head_length, const void *body, size_t body_length) {
    if (index < 0 || !connections[index].open) return;
    struct connection *c = &connections[index];
    if (!send_parts((uint32_t)index, head, head_length, body, body_length)) {
        /* Not closed here: who replies may be in the middle of reading it. The next event on it closes it. */
        shutdown(c->fd, SHUT_RDWR);
        return;
    }
    reply_given((uint32_t)index);
}

/* False when it was closed. */
static bool flush_out(uint32_t index) {
    struct connection *c = &connections[index];
    while (c->out_at < c->out_length) {
        ssize_t sent = send(c->fd, c->out + c->out_at, c->out_length - c->out_at, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0 && errno == EINTR) continue;
        if (sent < 0 && errno == EAGAIN) return true;
        if (sent < 0) {
            destroy(index);
            return false;
        }
        c->out_at += (size_t)sent;
    }
    free(c->out);
    c->out = NULL;
    c->out_at = c->out_length = 0;
    if (c->close_after) shutdown(c->fd, SHUT_WR);
    watch(index);
    return true;
}

/* --- reading -------------------------------------------------------------------------------------------------- */

static void refuse(uint32_t index, int status) {
    static const char bad[] = "HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
    static const char large[] = "HTTP/1.1 431 Request Header Fields Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
    const char *text = status == 431 ? large : bad;
    connections[index].keep_alive = false;
    world_reply((int)index, text, strlen(text), NULL, 0);
}

static bool stash(struct connection *c, struct slice bytes) {
    unstash(c);
    if (bytes.length == 0) return true;
    size_t most = c->waits ? PIPELINED_BYTES_MAX : HTTP_HEAD_BYTES_MAX;
    if (bytes.length > most || bytes.length > STASHED_BYTES_MAX - stashed_bytes) return false;
    c->stash = malloc(bytes.length);
    if (c->stash == NULL) return false;
    memcpy(c->stash, bytes.at, bytes.length);
    c->stash_length = bytes.length;
    stashed_bytes += bytes.length;
    return true;
}

static void body_ended(uint32_t index) {
    struct connection *c = &connections[index];
    struct http_headers trailers;
    bool good = http_body_trailers(&c->body, &trailers);
    c->in_body = false;
    c->waits = true;
    sandbox_body_end(&loop.sandbox, (int)index, good && trailers.count > 0 ? &trailers : NULL);
    if (c->open) http_body_release(&c->body);
}

/* False when the connection cannot go on. */
static bool take_body(uint32_t index, struct slice *bytes) {
    struct connection *c = &connections[index];
    struct slice data;
    for (;;) {
        switch (http_body_step(&c->body, bytes, &data)) {
        case BODY_EVENT_DATA:
            sandbox_body(&loop.sandbox, (int)index, data);
            if (!c->open) return false;
            break;
        case BODY_EVENT_MORE: return true;
        case BODY_EVENT_BAD: return false;
        case BODY_EVENT_END: body_ended(index); return true;
        }
    }
}

/* 0 when the head is unfinished, -1 when the connection cannot go on, 1 when a request was begun. */
static int take_head(uint32_t index, struct slice *bytes) {
    struct connection *c = &connections[index];
    struct http_request request;
    long size = http_parse_head(bytes->at, bytes->length, &c->scanned, &request);
    if (size == 0) return 0;
    c->scanned = 0;
    if (size < 0) {
        refuse(index, (int)-size);
        return -1;
    }
    bytes->at += size;
    bytes->length -= (size_t)size;
    c->keep_alive = request.keep_alive;
    bool has_body = request.chunked || request.content_length > 0;
    if (has_body && slice_is(request.method, "GET")) {
        refuse(index, 400);
        return -1;
    }
    c->waits = true;
    if (sandbox_request(&loop.sandbox, (int)index, &request) == REQUEST_WAITS || !c->open) return 1;
    c->waits = false;
    c->in_body = true;
    http_body_begin(&c->body, &request);
    static const char go_on[] = "HTTP/1.1 100 Continue\r\n\r\n";
    if (request.expects_continue && has_body) return send_parts(index, go_on, sizeof go_on - 1, NULL, 0) ? 1 : -1;
    return 1;
}

/* `bytes` lie in the shared buffer. */
static void parse(uint32_t index, struct slice bytes) {
    struct connection *c = &connections[index];
    bool good = true;
    while (good && c->open && !c->waits && !c->close_after) {
        if (c->in_body) {
            good = take_body(index, &bytes);
            if (c->open && c->in_body) break;
        } else {
            int rc = bytes.length == 0 ? 0 : take_head(index, &bytes);
            if (rc == 0) break;
            good = rc > 0;
        }
    }
    if (!c->open) return;
    if (c->close_after) bytes.length = 0;
    if (good && stash(c, bytes)) return;
    if (c->close_after) return;
    destroy(index);
}

static void readable(uint32_t index) {
    struct connection *c = &connections[index];
    size_t room = CONNECTION_READ_BYTES;
    if (c->in_body && sandbox_relays(&loop.sandbox, (int)index)) {
        /* Chunks of one byte (6 on the wire) become frames of 9 unless they are joined; so half is always safe. */
        room = outbox_room(&loop.outbox) / 2;
        if (room > CONNECTION_READ_BYTES) room = CONNECTION_READ_BYTES;
        if (room < 4 * KIB) {
            c->paused = true;
            loop.has_paused = true;
            watch(index);
            return;
        }
    }
    if (c->stash_length > 0) memcpy(buffer, c->stash, c->stash_length);
    ssize_t got = recv(c->fd, buffer + c->stash_length, room, MSG_DONTWAIT);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (got <= 0) {
        destroy(index);
        return;
    }
    if (c->close_after) return;
    parse(index, (struct slice){buffer, c->stash_length + (size_t)got});
    /* Clients that write a head and a body apart wait for our acknowledgement of the head, which we would delay. */
    bool unfinished = c->open && !c->waits && (c->in_body || c->stash_length > 0);
    int on = 1;
    if (unfinished && (size_t)got < room) setsockopt(c->fd, IPPROTO_TCP, TCP_QUICKACK, &on, sizeof on);
}

/* Clients may send a request before they got the reply to the last one. */
void server_revisit(void) {
    while (has_stashed) {
        has_stashed = false;
        for (uint32_t i = 0; i < CONNECTIONS_MAX; i++) {
            struct connection *c = &connections[i];
            bool stuck = c->waits || c->in_body || c->close_after || c->scanned > 0;
            if (!c->open || c->stash_length == 0 || stuck) continue;
            memcpy(buffer, c->stash, c->stash_length);
            parse(i, (struct slice){buffer, c->stash_length});
        }
    }
}

void server_ready(uint32_t index, uint32_t events) {
    struct connection *c = &connections[index];
    if (!c->open) return;
    if ((events & EPOLLOUT) != 0 && !flush_out(index)) return;
    if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR)) == 0) return;
    if (c->paused && (events & (EPOLLHUP | EPOLLERR)) != 0) destroy(index);
    else if (!c->paused) readable(index);
}

void server_resume(void) {
    for (uint32_t i = 0; i < CONNECTIONS_MAX; i++) {
        if (!connections[i].open) continue;
        if (connections[i].paused) {
            connections[i].paused = false;
            watch(i);
        }
    }
}
