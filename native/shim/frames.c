#include "frames.h"

#include <string.h>

#include "limits.h"
#include "protocol.h"

#define FIELD_HEADER_BYTES 8
#define NO_FRAME SIZE_MAX

static void put_u16(uint8_t *at, uint16_t value) {
    at[0] = (uint8_t)value;
    at[1] = (uint8_t)(value >> 8);
}

static void put_u32(uint8_t *at, uint32_t value) {
    put_u16(at, (uint16_t)value);
    put_u16(at + 2, (uint16_t)(value >> 16));
}

void put_u64(uint8_t *at, uint64_t value) {
    put_u32(at, (uint32_t)value);
    put_u32(at + 4, (uint32_t)(value >> 32));
}

static uint16_t get_u16(const uint8_t *at) { return (uint16_t)(at[0] | at[1] << 8); }

static uint32_t get_u32(const uint8_t *at) { return get_u16(at) | (uint32_t)get_u16(at + 2) << 16; }

void outbox_init(struct outbox *box, uint8_t *bytes) {
    *box = (struct outbox){.last = NO_FRAME, .bytes = bytes};
}

size_t outbox_room(const struct outbox *box) {
    size_t used = outbox_used(box);
    return used >= OUTBOX_DATA_BYTES_MAX ? 0 : OUTBOX_DATA_BYTES_MAX - used;
}

uint8_t *outbox_space(struct outbox *box, size_t length) {
    if (OUTBOX_BYTES - box->tail < length && box->head > 0) {
        memmove(box->bytes, box->bytes + box->head, outbox_used(box));
        box->last = box->last == NO_FRAME || box->last < box->head ? NO_FRAME : box->last - box->head;
        box->tail -= box->head;
        box->head = 0;
    }
    if (OUTBOX_BYTES - box->tail < length) {
        box->overflowed = true;
        return NULL;
    }
    return box->bytes + box->tail;
}

void outbox_sent(struct outbox *box, size_t length) {
    box->head += length;
    /* Starting again at the front keeps the memory touched small. */
    if (box->head == box->tail) outbox_init(box, box->bytes);
}

void frame_header(uint8_t *at, size_t payload_bytes, uint8_t type, uint8_t flags) {
    put_u32(at, (uint32_t)payload_bytes);
    at[4] = type;
    at[5] = flags;
    put_u16(at + 6, 0);
}

void frame_begin(struct outbox *box, uint8_t type, uint8_t flags) {
    uint8_t *at = outbox_space(box, FRAME_HEADER_BYTES);
    if (at == NULL) return;
    frame_header(at, 0, type, flags);
    box->last = box->tail;
    box->tail += FRAME_HEADER_BYTES;
}

void frame_bytes(struct outbox *box, uint16_t key, const void *value, size_t length) {
    uint8_t *at = outbox_space(box, FIELD_HEADER_BYTES + length);
    if (at == NULL) return;
    put_u16(at, key);
    put_u16(at + 2, 0);
    put_u32(at + 4, (uint32_t)length);
    if (length > 0) memcpy(at + FIELD_HEADER_BYTES, value, length);
    box->tail += FIELD_HEADER_BYTES + length;
}

void frame_number(struct outbox *box, uint16_t key, uint64_t value) {
    uint8_t bytes[8];
    put_u64(bytes, value);
    frame_bytes(box, key, bytes, sizeof bytes);
}

void frame_end(struct outbox *box) {
    if (box->overflowed || box->last == NO_FRAME) return;
    put_u32(box->bytes + box->last, (uint32_t)(box->tail - box->last - FRAME_HEADER_BYTES));
}

void frame_data(struct outbox *box, uint8_t type, const void *bytes, size_t length) {
    const char *from = bytes;
    while (length > 0) {
        bool join = box->last != NO_FRAME && box->last >= box->head && box->bytes[box->last + 4] == type;
        size_t present = join ? get_u32(box->bytes + box->last) : 0;
        if (!join || present == FRAME_PAYLOAD_BYTES_MAX) {
            frame_begin(box, type, 0);
            present = 0;
        }
        size_t take = FRAME_PAYLOAD_BYTES_MAX - present < length ? FRAME_PAYLOAD_BYTES_MAX - present : length;
        uint8_t *at = outbox_space(box, take);
        if (at == NULL) return;
        memcpy(at, from, take);
        box->tail += take;
        put_u32(box->bytes + box->last, (uint32_t)(present + take));
        from += take;
        length -= take;
    }
}

long frame_parse(const uint8_t *bytes, size_t length, struct frame *frame) {
    if (length < FRAME_HEADER_BYTES) return 0;
    uint32_t payload_bytes = get_u32(bytes);
    if (payload_bytes > FRAME_PAYLOAD_BYTES_MAX || get_u16(bytes + 6) != 0) return -1;
    if (length - FRAME_HEADER_BYTES < payload_bytes) return 0;
    *frame = (struct frame){bytes[4], bytes[5], bytes + FRAME_HEADER_BYTES, payload_bytes};
    return FRAME_HEADER_BYTES + (long)payload_bytes;
}

int field_next(struct slice *payload, struct field *field) {
    if (payload->length == 0) return 0;
    if (payload->length < FIELD_HEADER_BYTES) return -1;
    const uint8_t *at = (const uint8_t *)payload->at;
    uint32_t length = get_u32(at + 4);
    if (get_u16(at + 2) != 0 || length > payload->length - FIELD_HEADER_BYTES) return -1;
    *field = (struct field){get_u16(at), at + FIELD_HEADER_BYTES, length};
    payload->at += FIELD_HEADER_BYTES + length;
    payload->length -= FIELD_HEADER_BYTES + length;
    return 1;
}

bool field_number(const struct field *field, uint64_t *value) {
    if (field->length != 8) return false;
    *value = get_u32(field->value) | (uint64_t)get_u32(field->value + 4) << 32;
    return true;
}
