/*
 * Hearth's native binding: what a microVM monitor needs of Linux and Node.js does not offer.
 *
 * Arguments are validated in TypeScript (src/vmm/native.ts); this side trusts their types and ranges, and never
 * throws for what the world does: a failed system call is returned as a negative errno.
 */
#ifndef HEARTH_BINDING_H
#define HEARTH_BINDING_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#define NAPI_VERSION 9
#include <node_api.h>

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Longest argument list of any function here. */
#define ARGUMENTS_MAX 10

/* A failed Node-API call in here is a programming error (wrong type past validation): stop with the place. */
#define NAPI_OK(call) check_status((call), __FILE__, __LINE__)
void check_status(napi_status status, const char *file, int line);

void arguments(napi_env env, napi_callback_info info, napi_value *values, size_t count);
int32_t to_int(napi_env env, napi_value value);
double to_double(napi_env env, napi_value value);
/* Bytes of a Uint8Array or elements of an Int32Array; valid until control returns to JavaScript. */
void *to_array(napi_env env, napi_value value, size_t *length);
napi_value from_int(napi_env env, int64_t value);
/* 0 or more as it is; -1 becomes the negative errno. */
napi_value from_result(napi_env env, int64_t result);
/* Copies a string of at most `size` - 1 bytes; false when it is longer. */
bool to_text(napi_env env, napi_value value, char *text, size_t size);
void export_function(napi_env env, napi_value exports, const char *name, napi_callback callback);

/* One per file. */
void descriptor_register(napi_env env, napi_value exports);
void loop_register(napi_env env, napi_value exports);
void memory_register(napi_env env, napi_value exports);
void network_register(napi_env env, napi_value exports);
void poller_register(napi_env env, napi_value exports);
void process_register(napi_env env, napi_value exports);
void socket_register(napi_env env, napi_value exports);

#endif
