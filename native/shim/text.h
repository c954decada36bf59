/* Building texts in buffers of fixed size. Overflow is remembered, never written. */
#ifndef SHIM_TEXT_H
#define SHIM_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "frames.h"

struct text {
    char *at;
    size_t length;
    size_t capacity;
    bool overflowed;
};

void text_bytes(struct text *text, const void *bytes, size_t length);
void text_string(struct text *text, const char *string);
void text_number(struct text *text, uint64_t number);
/* As a header's value: control characters become spaces, so that nothing can add a header. */
void text_header_value(struct text *text, const void *bytes, size_t length);
/* As the inside of a JSON string. */
void text_json(struct text *text, const char *string);
/* Copies at most `capacity - 1` bytes and a NUL. */
void copy_string(char *into, size_t capacity, const void *bytes, size_t length);

#endif
