/* What the parts with descriptors share: the event loop's set, and the one sandbox. */
#ifndef SHIM_LOOP_H
#define SHIM_LOOP_H

#include <stdbool.h>
#include <stdint.h>

#include "sandbox.h"

/* What an event belongs to: a kind in the upper half, an index in the lower. */
enum source { SOURCE_HOST, SOURCE_SIGNAL, SOURCE_LISTENER, SOURCE_LOG, SOURCE_CONNECTION };

struct loop {
    int epoll;
    struct sandbox sandbox;
    struct outbox outbox;
    /* Somebody waits for room in the outbox. */
    bool has_paused;
};

extern struct loop loop;

/* Registers a descriptor, or changes what is waited for. */
void loop_watch(int fd, enum source source, uint32_t index, uint32_t events, bool is_new);

/* server.c */
void server_listen(void);
void server_accept(void);
void server_ready(uint32_t connection, uint32_t events);
/* Goes on with requests that were sent ahead. */
void server_revisit(void);
/* The outbox has room again. */
void server_resume(void);

/* logs.c */
void logs_open(void);
/* Ends of the pipes for the function's stdout and stderr. */
extern int log_write_fds[2];
void logs_ready(uint32_t which);
/* Takes what is in the pipes now; true when nothing (of before the call) is left in them. */
bool logs_drain(void);
void logs_resume(void);

/* guest.c, or its stand-in on a host */
int guest_connect(void);
/* Mounts and network, after the hello. */
const char *guest_prepare(void);
uint16_t guest_api_port(void);
_Noreturn void guest_power_off(void);
void guest_set_clock(uint64_t unix_us);

#endif
