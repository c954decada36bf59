/* Frames and fields as bytes in memory. Pure. */
#ifndef SHIM_FRAMES_H
#define SHIM_FRAMES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct slice {
    const char *at;
    size_t length;
};

/* Bytes on their way to the host: [head, tail) of `bytes`. */
struct outbox {
    size_t head;
    size_t tail;
    /* Where the frame written last begins, or SIZE_MAX. */
    size_t last;
    /* More was produced than fits: the host does not read, or we broke our own bounds. */
    bool overflowed;
    uint8_t *bytes;
};

void outbox_init(struct outbox *box, uint8_t *bytes);
static inline size_t outbox_used(const struct outbox *box) { return box->tail - box->head; }
/* Data that may be added before back-pressure must set in. */
size_t outbox_room(const struct outbox *box);
/* Room for `length` contiguous bytes at the tail, or NULL (and overflowed). Nothing is added yet. */
uint8_t *outbox_space(struct outbox *box, size_t length);
/* `length` bytes from the head were written to the host. */
void outbox_sent(struct outbox *box, size_t length);

/* A frame of fields: begin, any number of fields, end. */
void frame_begin(struct outbox *box, uint8_t type, uint8_t flags);
void frame_number(struct outbox *box, uint16_t key, uint64_t value);
void frame_bytes(struct outbox *box, uint16_t key, const void *value, size_t length);
void frame_end(struct outbox *box);
/* Raw bytes as frames of `type`. Joins them to the last frame when that is of the same type and still unsent. */
void frame_data(struct outbox *box, uint8_t type, const void *bytes, size_t length);
/* Writes the header of a frame whose payload the caller has put in place. */
void frame_header(uint8_t *at, size_t payload_bytes, uint8_t type, uint8_t flags);

struct frame {
    uint8_t type;
    uint8_t flags;
    const uint8_t *payload;
    size_t length;
};

/* The first frame in `bytes`: its size including the header, 0 when more bytes are needed, -1 when it is malformed. */
long frame_parse(const uint8_t *bytes, size_t length, struct frame *frame);

struct field {
    uint16_t key;
    const uint8_t *value;
    size_t length;
};

/* Takes the next field off `payload`: 1, 0 at the end, -1 when malformed. */
int field_next(struct slice *payload, struct field *field);
/* A u64le; false when the field is not 8 bytes long. */
bool field_number(const struct field *field, uint64_t *value);

void put_u64(uint8_t *at, uint64_t value);

#endif
