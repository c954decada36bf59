/*
 * Hearth's shim: PID 1 in every microVM. Starts the function, serves it the Lambda Runtime API, relays to the Micro
 * Manager. Built from all .c files of this folder:
 *
 *   cc -std=c17 -static -O2 -Wall -Wextra -Werror -s native/shim/[a-z]*.c -o build/native/shim
 *
 * main.c       the event loop, the stream to the host
 * guest.c      boot, mounts, loopback, clock          process.c  starting and killing in the cgroup, memory
 * network.c    the function's network
 * server.c     connections to the Runtime API         logs.c     the function's output
 * sandbox.c    the state machine: frames, exits, time; runtime-api.c and extensions.c: requests
 * frames.c, http.c, configuration.c, text.c           bytes in memory
 *
 * Single-threaded and never blocking. A guest system call costs microseconds where the hypervisor is user-mode
 * Linux, so a warm invocation is made of as few as possible: the wait itself, one read and one write per message;
 * deadlines are the wait's timeout and need no timer.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "loop.h"
#include "protocol.h"
#include "world.h"

#define EVENTS_MAX 32

struct loop loop;
static uint8_t outbox_bytes[OUTBOX_BYTES];
static uint8_t inbox[2 * FRAME_PAYLOAD_BYTES_MAX];
static size_t inbox_length;
static int host = -1;
static bool host_is_full;
static int signals = -1;
/* A child ended. It is reaped after all else of the pass: what it said before comes first. */
static bool is_reap_due;

/* --- time ----------------------------------------------------------------------------------------------------- */

static uint64_t now_us;
static int64_t unix_offset_us;

static uint64_t read_clock_us(clockid_t clock) {
    struct timespec time;
    clock_gettime(clock, &time);
    return (uint64_t)time.tv_sec * 1000000 + (uint64_t)time.tv_nsec / 1000;
}

/* One reading of the clock serves a whole pass of the loop. */
uint64_t world_now_us(void) {
    if (now_us == 0) now_us = read_clock_us(CLOCK_MONOTONIC);
    return now_us;
}

uint64_t world_unix_us(void) { return world_now_us() + (uint64_t)unix_offset_us; }

void world_set_unix_us(uint64_t unix_us) {
    /* The frame took time to come here, so being ahead of it is normal; being behind never is. */
    int64_t ahead_us = (int64_t)(world_unix_us() - unix_us);
    if (ahead_us > -1000 && ahead_us < 100000) return;
    guest_set_clock(unix_us);
    unix_offset_us = (int64_t)(unix_us - world_now_us());
}

void world_random(void *bytes, size_t length) {
    if (getrandom(bytes, length, 0) != (ssize_t)length) sandbox_fault(&loop.sandbox, "no random numbers");
}

/* --- the event loop's set --------------------------------------------------------------------------------------- */

void loop_watch(int fd, enum source source, uint32_t index, uint32_t events, bool is_new) {
    struct epoll_event event = {.events = events, .data.u64 = (uint64_t)source << 32 | index};
    if (epoll_ctl(loop.epoll, is_new ? EPOLL_CTL_ADD : EPOLL_CTL_MOD, fd, &event) < 0) {
        sandbox_fault(&loop.sandbox, "epoll_ctl failed");
    }
}

/* --- the stream to the host ------------------------------------------------------------------------------------- */

void world_flush(void) {
    struct outbox *box = &loop.outbox;
    if (box->overflowed) guest_power_off();
    while (!host_is_full && outbox_used(box) > 0) {
        ssize_t sent = send(host, box->bytes + box->head, outbox_used(box), MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0 && errno == EINTR) continue;
        if (sent < 0 && errno != EAGAIN) guest_power_off();
        if (sent < 0) {
            host_is_full = true;
            loop_watch(host, SOURCE_HOST, 0, EPOLLIN | EPOLLOUT, false);
            return;
        }
        outbox_sent(box, (size_t)sent);
    }
}

static void host_writable(void) {
    host_is_full = false;
    loop_watch(host, SOURCE_HOST, 0, EPOLLIN, false);
    world_flush();
}

/* Who waited for room in the outbox may go on. */
static void resume(void) {
    if (!loop.has_paused || outbox_used(&loop.outbox) > OUTBOX_RESUME_BYTES) return;
    loop.has_paused = false;
    server_resume();
    logs_resume();
}

static void host_readable(void) {
    ssize_t got = recv(host, inbox + inbox_length, sizeof inbox - inbox_length, MSG_DONTWAIT);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
    /* Nobody is left to serve. */
    if (got <= 0) guest_power_off();
    inbox_length += (size_t)got;
    size_t at = 0;
    struct frame frame;
    while (loop.sandbox.fault == NULL) {
        long size = frame_parse(inbox + at, inbox_length - at, &frame);
        if (size < 0) sandbox_fault(&loop.sandbox, "a malformed frame came");
        if (size <= 0) break;
        sandbox_frame(&loop.sandbox, &frame);
        at += (size_t)size;
    }
    inbox_length -= at;
    if (inbox_length > 0 && at > 0) memmove(inbox, inbox + at, inbox_length);
}

static void hello(void) {
    frame_begin(&loop.outbox, FROM_SHIM_HELLO, 0);
    frame_number(&loop.outbox, HELLO_PROTOCOL_VERSION, SHIM_PROTOCOL_VERSION);
    frame_number(&loop.outbox, HELLO_UPTIME_US, world_now_us());
    frame_end(&loop.outbox);
    world_flush();
}

/* --- children ----------------------------------------------------------------------------------------------------- */

static void reap(void) {
    for (;;) {
        int status;
        pid_t pid = waitpid(-1, &status, WNOHANG);
        if (pid > 0) sandbox_exited(&loop.sandbox, pid, status);
        /* Every process of the function is or becomes a child of PID 1, so no child means that none is left. */
        if (pid < 0 && errno == ECHILD) sandbox_all_gone(&loop.sandbox);
        if (pid <= 0 && !(pid < 0 && errno == EINTR)) return;
    }
}

static void open_signals(void) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    sigprocmask(SIG_BLOCK, &set, NULL);
    signals = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
    loop_watch(signals, SOURCE_SIGNAL, 0, EPOLLIN, true);
}

/* --- the loop ------------------------------------------------------------------------------------------------------- */

static void dispatch(const struct epoll_event *event) {
    uint32_t index = (uint32_t)event->data.u64;
    struct signalfd_siginfo ignored;
    switch ((enum source)(event->data.u64 >> 32)) {
    case SOURCE_HOST:
        if ((event->events & EPOLLOUT) != 0) host_writable();
        if ((event->events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0) host_readable();
        break;
    case SOURCE_SIGNAL:
        if (read(signals, &ignored, sizeof ignored) > 0) is_reap_due = true;
        break;
    case SOURCE_LISTENER: server_accept(); break;
    case SOURCE_LOG: logs_ready(index); break;
    case SOURCE_CONNECTION: server_ready(index, event->events); break;
    }
}

static int wait_for(struct epoll_event *events) {
    uint64_t deadline = sandbox_deadline(&loop.sandbox);
    if (deadline == NEVER) return epoll_wait(loop.epoll, events, EVENTS_MAX, -1);
    uint64_t left = deadline > world_now_us() ? deadline - world_now_us() : 0;
    struct timespec timeout = {(time_t)(left / 1000000), (long)(left % 1000000) * 1000};
    /* The system call: not every C library has a wrapper for it. */
    return (int)syscall(SYS_epoll_pwait2, loop.epoll, events, EVENTS_MAX, &timeout, NULL, 0);
}

/* Powering off drops what the host has not taken yet, so its end of the stream goes first. */
static _Noreturn void leave(void) {
    shutdown(host, SHUT_WR);
    struct timeval patience = {LEAVE_WAIT_MS / 1000, LEAVE_WAIT_MS % 1000 * 1000};
    setsockopt(host, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    while (recv(host, inbox, sizeof inbox, 0) > 0) continue;
    guest_power_off();
}

static _Noreturn void give_up(void) {
    const char *text = loop.sandbox.fault;
    frame_begin(&loop.outbox, FROM_SHIM_FAULT, 0);
    uint8_t *at = outbox_space(&loop.outbox, strlen(text));
    if (at != NULL) {
        memcpy(at, text, strlen(text));
        loop.outbox.tail += strlen(text);
    }
    frame_end(&loop.outbox);
    host_is_full = false;
    world_flush();
    leave();
}

/* What follows from the events of a pass, beside what they did themselves. */
static void settle(void) {
    struct sandbox *sandbox = &loop.sandbox;
    server_revisit();
    if (is_reap_due) reap();
    is_reap_due = false;
    uint64_t deadline = sandbox_deadline(sandbox);
    if (deadline != NEVER && deadline <= world_now_us()) sandbox_timer(sandbox);
    if (sandbox->phase == PHASE_ENDING && !sandbox->settling) reap();
    while (sandbox->settling && !host_is_full) {
        if (logs_drain()) sandbox_settled(sandbox);
        else world_flush();
    }
    if (sandbox->fault != NULL) give_up();
    world_flush();
    resume();
    if (sandbox->phase == PHASE_OFF && outbox_used(&loop.outbox) == 0) leave();
}

int main(void) {
    host = guest_connect();
    outbox_init(&loop.outbox, outbox_bytes);
    sandbox_init(&loop.sandbox, &loop.outbox);
    hello();
    /* All of this happens while the host prepares its Configure. */
    now_us = 0;
    unix_offset_us = (int64_t)(read_clock_us(CLOCK_REALTIME) - world_now_us());
    loop.epoll = epoll_create1(EPOLL_CLOEXEC);
    loop_watch(host, SOURCE_HOST, 0, EPOLLIN, true);
    open_signals();
    const char *wrong = guest_prepare();
    if (wrong != NULL) sandbox_fault(&loop.sandbox, wrong);
    logs_open();
    server_listen();
    struct epoll_event events[EVENTS_MAX];
    for (;;) {
        settle();
        int count = wait_for(events);
        now_us = 0;
        for (int i = 0; i < count; i++) dispatch(&events[i]);
    }
}
