#include "configuration.h"

#include <stdlib.h>
#include <string.h>

#include "protocol.h"

/* All texts live as long as the shim: one copy of the payload, with a NUL behind every value. */
static char *text(char **arena, const struct field *field) {
    char *at = *arena;
    memcpy(at, field->value, field->length);
    at[field->length] = 0;
    *arena += field->length + 1;
    return at;
}

static const char *read_number(struct configuration *c, const struct field *field) {
    uint64_t *value;
    switch (field->key) {
    case CONFIGURE_MEMORY_BYTES_MAX: value = &c->memory_bytes_max; break;
    case CONFIGURE_TMP_BYTES_MAX: value = &c->tmp_bytes_max; break;
    case CONFIGURE_PIDS_MAX: value = &c->pids_max; break;
    case CONFIGURE_INIT_TIMEOUT_MS: value = &c->init_timeout_ms; break;
    case CONFIGURE_TIMEOUT_MS: value = &c->timeout_ms; break;
    case CONFIGURE_OPEN_FILES_MAX: value = &c->open_files_max; break;
    case CONFIGURE_UNIX_TIME_US: value = &c->unix_time_us; break;
    case CONFIGURE_TAKE_PREPARED: value = &c->take_prepared; break;
    default: return NULL;
    }
    return field_number(field, value) ? NULL : "configure: a number is not 8 bytes long";
}

static const char *read_field(struct configuration *c, const struct field *field, char **arena) {
    switch (field->key) {
    case CONFIGURE_ROOT_DRIVE:
        if (c->root_drive_count == ROOT_DRIVES_MAX) return "configure: too many root drives";
        c->root_drives[c->root_drive_count++] = text(arena, field);
        return NULL;
    case CONFIGURE_LAYER_DRIVE:
        if (c->layer_drive_count == LAYER_DRIVES_MAX) return "configure: too many layer drives";
        c->layer_drives[c->layer_drive_count++] = text(arena, field);
        return NULL;
    case CONFIGURE_ARGUMENT:
        if (c->argument_count == ARGUMENTS_MAX) return "configure: too many arguments";
        c->arguments[c->argument_count++] = text(arena, field);
        return NULL;
    case CONFIGURE_ENVIRONMENT:
        if (c->environment_count == ENVIRONMENT_MAX) return "configure: too many environment variables";
        c->environment[c->environment_count++] = text(arena, field);
        return NULL;
    case CONFIGURE_NAME_SERVER:
        if (c->name_server_count == NAME_SERVERS_MAX) return "configure: too many name servers";
        c->name_servers[c->name_server_count++] = text(arena, field);
        return NULL;
    case CONFIGURE_CODE_DRIVE: c->code_drive = text(arena, field); return NULL;
    case CONFIGURE_SCRATCH_DRIVE: c->scratch_drive = text(arena, field); return NULL;
    case CONFIGURE_WORKING_DIRECTORY: c->working_directory = text(arena, field); return NULL;
    case CONFIGURE_FUNCTION_NAME: c->function_name = text(arena, field); return NULL;
    case CONFIGURE_FUNCTION_VERSION: c->function_version = text(arena, field); return NULL;
    case CONFIGURE_HANDLER: c->handler = text(arena, field); return NULL;
    case CONFIGURE_ACCOUNT_ID: c->account_id = text(arena, field); return NULL;
    case CONFIGURE_NETWORK_ADDRESS: c->network_address = text(arena, field); return NULL;
    case CONFIGURE_NETWORK_GATEWAY: c->network_gateway = text(arena, field); return NULL;
    default: return read_number(c, field);
    }
}

const char *configuration_read(struct configuration *c, struct slice payload) {
    *c = (struct configuration){
        .working_directory = "/",
        .function_name = "",
        .function_version = "",
        .handler = "",
        .account_id = "",
        .init_timeout_ms = 10000,
        .tmp_bytes_max = (uint64_t)512 * MIB,
        .pids_max = 1024,
        .open_files_max = 1024,
    };
    /* A field's header is larger than a NUL, so the payload's size is enough. */
    char *arena = malloc(payload.length + 1);
    if (arena == NULL) return "configure: no memory";
    c->texts = arena;
    struct field field;
    int rc;
    while ((rc = field_next(&payload, &field)) > 0) {
        const char *wrong = read_field(c, &field, &arena);
        if (wrong != NULL) return wrong;
    }
    if (rc < 0) return "configure: malformed fields";
    if (c->argument_count == 0 || c->arguments[0][0] != '/') return "configure: no absolute path of a runtime";
    if (c->init_timeout_ms == 0 || c->open_files_max == 0 || c->pids_max == 0) return "configure: a limit is zero";
    return NULL;
}
