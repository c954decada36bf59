/* What the Configure frame says, or Prepare before it. Pure. */
#ifndef SHIM_CONFIGURATION_H
#define SHIM_CONFIGURATION_H

#include <stdbool.h>
#include <stdint.h>

#include "frames.h"
#include "limits.h"

struct configuration {
    /* Holds all texts below; malloc'ed, and kept as long as the shim lives. */
    char *texts;
    size_t root_drive_count;
    const char *root_drives[ROOT_DRIVES_MAX];
    const char *code_drive;
    /* NULL: /tmp is in memory. */
    const char *scratch_drive;
    size_t layer_drive_count;
    const char *layer_drives[LAYER_DRIVES_MAX];
    /* Both end with NULL, as execve wants them. */
    size_t argument_count;
    char *arguments[ARGUMENTS_MAX + 1];
    size_t environment_count;
    char *environment[ENVIRONMENT_MAX + 1];
    const char *working_directory;
    uint64_t memory_bytes_max;
    uint64_t tmp_bytes_max;
    uint64_t pids_max;
    uint64_t init_timeout_ms;
    uint64_t timeout_ms;
    const char *function_name;
    const char *function_version;
    const char *handler;
    const char *account_id;
    uint64_t open_files_max;
    uint64_t unix_time_us;
    uint64_t take_prepared;
    /* NULL: the function has no network but its loopback. */
    const char *network_address;
    const char *network_gateway;
    size_t name_server_count;
    const char *name_servers[NAME_SERVERS_MAX];
};

/* Copies everything out of the payload, into a configuration that holds none. NULL when good, else what is wrong. */
const char *configuration_read(struct configuration *configuration, struct slice payload);

#endif
