/* SPDX-License-Identifier: MIT */
/*
 * The codec of qemu/agent.h: a growing buffer to write messages into, and the one bounded
 * reader through which everything that came over the wire is looked at. Built for the host
 * and for the guest; neither prints nor exits.
 */
#ifndef TF_QEMU_WIRE_H
#define TF_QEMU_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Bytes on their way: [start, end) is the content. Zero-initialise, release with _done. */
struct tf_wire_buf {
	uint8_t *data;
	size_t start;
	size_t end;
	size_t cap;
	bool failed; /* an allocation failed; content is incomplete and must not be used */
};

/* A view of received bytes; once something did not fit, `failed` stays set, reads give 0. */
struct tf_wire_reader {
	const uint8_t *at;
	size_t left;
	bool failed;
};

/* A decoded message; `body` looks into the buffer it came from. */
struct tf_wire_message {
	uint16_t type;
	uint32_t tag;
	struct tf_wire_reader body;
	size_t size; /* header and payload */
};

/* Number of content bytes. */
size_t tf_wire_size(const struct tf_wire_buf *b);

/* Make room for @n more bytes; NULL (and failed) if memory is short. Then call _grew. */
uint8_t *tf_wire_room(struct tf_wire_buf *b, size_t n);
void tf_wire_grew(struct tf_wire_buf *b, size_t n);

/* Forget the first @n content bytes. */
void tf_wire_drop(struct tf_wire_buf *b, size_t n);

/* Free the memory; @b is empty afterwards. */
void tf_wire_done(struct tf_wire_buf *b);

/* Append one value, little-endian; a blob with its u32 length; a string without its NUL. */
void tf_wire_u8(struct tf_wire_buf *b, uint8_t v);
void tf_wire_u32(struct tf_wire_buf *b, uint32_t v);
void tf_wire_u64(struct tf_wire_buf *b, uint64_t v);
void tf_wire_bytes(struct tf_wire_buf *b, const void *data, size_t len);
void tf_wire_blob(struct tf_wire_buf *b, const void *data, size_t len);
void tf_wire_string(struct tf_wire_buf *b, const char *s);

/*
 * Begin a message: returns a mark for tf_wire_end, which fills in the length. If the payload
 * exceeds TF_AGENT_MAX_PAYLOAD, tf_wire_end takes the message back and returns -E2BIG;
 * -ENOMEM if memory was short (taken back as well).
 */
size_t tf_wire_begin(struct tf_wire_buf *b, uint16_t type, uint32_t tag);
int tf_wire_end(struct tf_wire_buf *b, size_t mark);

/* Read one value; 0 once failed. */
uint8_t tf_wire_get_u8(struct tf_wire_reader *r);
uint32_t tf_wire_get_u32(struct tf_wire_reader *r);
uint64_t tf_wire_get_u64(struct tf_wire_reader *r);

/* The next @len bytes, or NULL once failed. */
const void *tf_wire_get_bytes(struct tf_wire_reader *r, size_t len);

/* A blob of at most @max bytes; a pointer into the buffer, NULL once failed. */
const void *tf_wire_get_blob(struct tf_wire_reader *r, size_t max, size_t *ret_len);

/*
 * A string of at most @max bytes as a malloc'ed copy, NULL once failed (a NUL inside, too
 * long, cut off, no memory).
 */
char *tf_wire_get_string(struct tf_wire_reader *r, size_t max);

/*
 * Look at the front of @b. 1: a whole message is in *@m (valid until @b changes; drop
 * m->size bytes when done). 0: more bytes are needed. -EBADMSG: not this protocol.
 */
int tf_wire_next(const struct tf_wire_buf *b, struct tf_wire_message *m);

#endif
