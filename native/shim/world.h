/*
 * What the sandbox's state machine asks of the world. The shim links the real world (main.c, server.c, guest.c,
 * process.c); tests link one of their own.
 */
#ifndef SHIM_WORLD_H
#define SHIM_WORLD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "configuration.h"

/* Monotonic time, read once for all that happens in one pass of the event loop. */
uint64_t world_now_us(void);
/* Unix time on the same footing. */
uint64_t world_unix_us(void);
/* The host's Unix time as it was when it sent: corrects the guest's clock when that is off. */
void world_set_unix_us(uint64_t unix_us);

/*
 * Builds the function's root from the runtime's drives; then the function's own part in it: code, layers, /tmp and
 * limits. A process that was started between the two sees what the second one mounts. NULL when good, else what failed.
 */
const char *world_mount_root(const struct configuration *configuration);
const char *world_mount_function(const struct configuration *configuration);
/* Names of the programs in /opt/extensions, at most EXTENSIONS_MAX + 1. Returns how many. */
size_t world_list_extensions(char names[][EXTENSION_NAME_CHARS_MAX + 1]);
/* Starts a program as the function. The error number, 0 when it runs. */
int world_spawn(const struct configuration *configuration, char *const arguments[], char *const environment[],
                pid_t *pid);
void world_terminate(pid_t pid);
/* Sends SIGKILL to all that the function has started. They are gone when the world says so (sandbox_all_gone). */
void world_kill_all(void);
/* How often the kernel killed in the function's cgroup because its memory ran out. */
uint64_t world_oom_kills(void);

struct memory_use {
    uint64_t bytes_current;
    uint64_t bytes_peak;
    uint64_t pids;
};

struct memory_use world_memory(bool with_pids);

/* Writes to the host what the outbox holds, as far as it goes. */
void world_flush(void);
/* Answers the request that waits on a connection. Both parts are copied where they cannot be sent at once. */
void world_reply(int connection, const void *head, size_t head_length, const void *body, size_t body_length);
/* Closes a connection, after what is still to be sent on it when `flush`. */
void world_close(int connection, bool flush);
void world_random(void *bytes, size_t length);

#endif
