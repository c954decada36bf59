/* The function's stdout and stderr: pipes whose content becomes Log frames, as fast as the host takes them. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "loop.h"
#include "protocol.h"
#include "world.h"

#define LOG_HEADER_BYTES (FRAME_HEADER_BYTES + 8)

int log_write_fds[2];
static int read_fds[2];
static bool paused[2];

void logs_open(void) {
    for (uint32_t i = 0; i < 2; i++) {
        int ends[2];
        if (pipe2(ends, O_CLOEXEC) < 0 || fcntl(ends[0], F_SETFL, O_NONBLOCK) < 0) {
            sandbox_fault(&loop.sandbox, "cannot make the pipes for the function's output");
            return;
        }
        /* So that it can open /dev/stdout, which is one of these, by name. */
        if (fchown(ends[1], FUNCTION_UID, FUNCTION_GID) < 0 && geteuid() == 0) {
            sandbox_fault(&loop.sandbox, "cannot give the function its output");
            return;
        }
        read_fds[i] = ends[0];
        /* The writing end stays open here: a runtime that ends and is started again writes to the same pipe. */
        log_write_fds[i] = ends[1];
        loop_watch(read_fds[i], SOURCE_LOG, i, EPOLLIN, true);
    }
}

/* Bytes read; 0 when the pipe is empty, -1 when the outbox has no room. */
static ssize_t take(uint32_t which) {
    struct outbox *box = &loop.outbox;
    if (outbox_room(box) < LOG_HEADER_BYTES + LOG_READ_BYTES) return -1;
    uint8_t *at = outbox_space(box, LOG_HEADER_BYTES + LOG_READ_BYTES);
    if (at == NULL) return -1;
    ssize_t got = read(read_fds[which], at + LOG_HEADER_BYTES, LOG_READ_BYTES);
    if (got <= 0) return 0;
    frame_header(at, 8 + (size_t)got, FROM_SHIM_LOG, which == 1 ? LOG_STDERR : 0);
    put_u64(at + FRAME_HEADER_BYTES, world_unix_us());
    box->last = box->tail;
    box->tail += LOG_HEADER_BYTES + (size_t)got;
    return got;
}

static void pause_reading(uint32_t which) {
    if (paused[which]) return;
    paused[which] = true;
    loop.has_paused = true;
    loop_watch(read_fds[which], SOURCE_LOG, which, 0, false);
}

void logs_ready(uint32_t which) {
    if (!paused[which] && take(which) < 0) pause_reading(which);
}

/*
 * A pipe holds 64 KiB unless the function enlarged it (at most to 1 MiB, fs.pipe-max-size), so what must be read is
 * bounded: a background process that never stops writing cannot keep Done from coming.
 */
bool logs_drain(void) {
    static size_t drained[2];
    for (uint32_t which = 0; which < 2; which++) {
        ssize_t got = LOG_READ_BYTES;
        while (got == LOG_READ_BYTES && drained[which] < MIB) {
            got = take(which);
            if (got < 0) return false;
            drained[which] += (size_t)got;
        }
    }
    drained[0] = drained[1] = 0;
    return true;
}

void logs_resume(void) {
    for (uint32_t which = 0; which < 2; which++) {
        if (!paused[which]) continue;
        paused[which] = false;
        loop_watch(read_fds[which], SOURCE_LOG, which, EPOLLIN, false);
    }
}
