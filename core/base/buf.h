/* SPDX-License-Identifier: MIT */
/*
 * The one bounded writer and the one bounded reader. Every byte that came from outside is read
 * through tf_reader and nothing else: each access is checked against a hard end, the first
 * violation sticks (with its byte offset and the rule that it breaks), and after it every read
 * gives zero. Numbers are little-endian on the wire whatever the host. No allocator but the
 * caller's arena, no lock: both run in a forked child and in a signal handler.
 */
#ifndef TF_BASE_BUF_H
#define TF_BASE_BUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/arena.h"
#include "core/base/err.h"

/*
 * One writer, three uses: it measures (neither to nor expect), writes (to) or compares what would
 * be written with bytes that exist already (expect). So one piece of code lays out a record, tells
 * its size and checks a foreign one. A failed writer stays where it failed: at is that offset.
 */
struct tf_writer {
	uint8_t *to;
	const uint8_t *expect;
	size_t at, size;
	bool failed; /* past the end, or (comparing) a byte differs */
};

/* Measures: at is what would have been written; fails beyond max bytes. */
void tf_writer_measure(struct tf_writer *w, size_t max);

/* Writes into size bytes at to, owned by the caller. */
void tf_writer_init(struct tf_writer *w, uint8_t *to, size_t size);

/* Compares with size bytes at expect, owned by the caller. */
void tf_writer_compare(struct tf_writer *w, const uint8_t *expect, size_t size);

/* Puts n bytes; n zero bytes; a number; zero bytes up to a multiple of align (a power of two). */
void tf_put(struct tf_writer *w, const void *p, size_t n);
void tf_put_zero(struct tf_writer *w, size_t n);
void tf_put_u16(struct tf_writer *w, uint16_t v);
void tf_put_u32(struct tf_writer *w, uint32_t v);
void tf_put_u64(struct tf_writer *w, uint64_t v);
void tf_put_align(struct tf_writer *w, size_t align);

/* Puts a string: u32 length, then the bytes without the zero. NULL counts as "". Fails if it is
 * longer than max bytes. */
void tf_put_str(struct tf_writer *w, const char *s, size_t max);

/* What the reader itself refuses: X(NAME, name, text). An error names the rule. */
#define TF_READER_RULES(X)                                          \
	X(TRUNCATED, "truncated", "the bytes end too early")        \
	X(CONSUMED, "consumed", "nothing is left over")             \
	X(PADDING, "padding", "bytes between fields are zero")      \
	X(STRING_LENGTH, "string-length", "strings have a maximum") \
	X(STRING_ZERO, "string-zero", "strings hold no zero byte")  \
	X(MEMORY, "memory", "everything fits into the arena")

struct tf_reader {
	const uint8_t *base;
	size_t at, size;  /* size: the end for now, see tf_reader_limit() */
	int code;         /* 0, or the code of the first failure */
	size_t failed_at; /* byte offset from base of the first failure */
	const char *rule; /* static text of the rule that was broken there */
};

/* Reads size bytes at base, owned by the caller. */
void tf_reader_init(struct tf_reader *r, const void *base, size_t size);

/* Records a failure at offset; the first one wins. Returns code. rule must be static. */
int tf_reader_fail(struct tf_reader *r, int code, size_t offset, const char *rule);

/* Turns the recorded failure, if any, into an error text: "what: offset N: rule". Returns the code.
 */
int tf_reader_error(const struct tf_reader *r, struct tf_err *e, const char *what);

/* Bytes left before the end; 0 after a failure. */
size_t tf_reader_left(const struct tf_reader *r);

/* Narrows the end to n bytes from here and returns the old end, to be put back by
 * tf_reader_unlimit(), which fails unless exactly all n bytes were read. */
size_t tf_reader_limit(struct tf_reader *r, size_t n);
void tf_reader_unlimit(struct tf_reader *r, size_t old);

/* The next n bytes in place, or NULL (failure recorded). Skipping is ignoring the result. */
const uint8_t *tf_get(struct tf_reader *r, size_t n);

/* The next number; 0 after a failure. */
uint16_t tf_get_u16(struct tf_reader *r);
uint32_t tf_get_u32(struct tf_reader *r);
uint64_t tf_get_u64(struct tf_reader *r);

/* Skips to a multiple of align (of the offset from base); the bytes between must be zero. */
void tf_get_align(struct tf_reader *r, size_t align);

/* A string of at most max bytes without a zero among them, copied into the arena and terminated.
 * "" after a failure, never NULL. */
const char *tf_get_str(struct tf_reader *r, struct tf_arena *a, size_t max);

#endif
