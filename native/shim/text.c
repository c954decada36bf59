#include "text.h"

#include <string.h>

void text_bytes(struct text *text, const void *bytes, size_t length) {
    if (text->capacity - text->length < length) {
        text->overflowed = true;
        return;
    }
    if (length > 0) memcpy(text->at + text->length, bytes, length);
    text->length += length;
}

void text_string(struct text *text, const char *string) { text_bytes(text, string, strlen(string)); }

void text_number(struct text *text, uint64_t number) {
    char digits[20];
    size_t at = sizeof digits;
    do {
        digits[--at] = (char)('0' + number % 10);
        number /= 10;
    } while (number > 0);
    text_bytes(text, digits + at, sizeof digits - at);
}

void text_header_value(struct text *text, const void *bytes, size_t length) {
    size_t from = text->length;
    text_bytes(text, bytes, length);
    for (size_t i = from; i < text->length; i++) {
        unsigned char c = (unsigned char)text->at[i];
        if (c < 0x20 || c == 0x7f) text->at[i] = ' ';
    }
}

void text_json(struct text *text, const char *string) {
    static const char hex[] = "0123456789abcdef";
    for (; *string != 0; string++) {
        unsigned char c = (unsigned char)*string;
        if (c == '"' || c == '\\') {
            text_bytes(text, "\\", 1);
            text_bytes(text, string, 1);
        } else if (c < 0x20) {
            char escape[6] = {'\\', 'u', '0', '0', hex[c >> 4], hex[c & 15]};
            text_bytes(text, escape, sizeof escape);
        } else {
            text_bytes(text, string, 1);
        }
    }
}

void copy_string(char *into, size_t capacity, const void *bytes, size_t length) {
    if (length > capacity - 1) length = capacity - 1;
    if (length > 0) memcpy(into, bytes, length);
    into[length] = 0;
}
