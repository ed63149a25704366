/* SPDX-License-Identifier: MIT */
/*
 * The bounded writer and reader of buf.h. Each function checks before it touches; nothing here may
 * trust a length that it was not given by the caller. No allocator, no lock, no stdio.
 */
#include "core/base/buf.h"

#include <endian.h>
#include <string.h>

#define X(name, rule, text) static const char RULE_##name[] = rule ": " text;
TF_READER_RULES(X)
#undef X

/* --- writer --- */

void tf_writer_measure(struct tf_writer *w, size_t max)
{
	*w = (struct tf_writer){.size = max};
}

void tf_writer_init(struct tf_writer *w, uint8_t *to, size_t size)
{
	*w = (struct tf_writer){.to = to, .size = size};
}

void tf_writer_compare(struct tf_writer *w, const uint8_t *expect, size_t size)
{
	*w = (struct tf_writer){.expect = expect, .size = size};
}

/* Moves at to the first byte that differs from p (NULL: from zero); true if there is none. */
static bool matches(struct tf_writer *w, const uint8_t *p, size_t n)
{
	const uint8_t *q = w->expect + w->at;

	if (p && !memcmp(q, p, n))
		return true;
	for (size_t i = 0; i < n; i++) {
		if (q[i] != (p ? p[i] : 0)) {
			w->at += i;
			return false;
		}
	}
	return true;
}

static void put(struct tf_writer *w, const uint8_t *p, size_t n)
{
	if (w->failed || !n)
		return;
	if (n > w->size - w->at || (w->expect && !matches(w, p, n))) {
		w->failed = true;
		return;
	}
	if (w->to && p)
		memcpy(w->to + w->at, p, n);
	else if (w->to)
		memset(w->to + w->at, 0, n);
	w->at += n;
}

void tf_put(struct tf_writer *w, const void *p, size_t n)
{
	put(w, p, n);
}

void tf_put_zero(struct tf_writer *w, size_t n)
{
	put(w, NULL, n);
}

/* n is a constant, v little-endian. */
static inline void put_number(struct tf_writer *w, uint64_t v, size_t n)
{
	if (w->failed || n > w->size - w->at || (w->expect && memcmp(w->expect + w->at, &v, n))) {
		put(w, (const uint8_t *)&v, n);
		return;
	}
	if (w->to)
		memcpy(w->to + w->at, &v, n);
	w->at += n;
}

void tf_put_u16(struct tf_writer *w, uint16_t v)
{
	put_number(w, htole64(v), sizeof(v));
}

void tf_put_u32(struct tf_writer *w, uint32_t v)
{
	put_number(w, htole64(v), sizeof(v));
}

void tf_put_u64(struct tf_writer *w, uint64_t v)
{
	put_number(w, htole64(v), sizeof(v));
}

void tf_put_align(struct tf_writer *w, size_t align)
{
	put(w, NULL, -w->at & (align - 1));
}

void tf_put_str(struct tf_writer *w, const char *s, size_t max)
{
	size_t n = s ? strnlen(s, max + 1) : 0;

	if (n > max) {
		w->failed = true;
		return;
	}
	tf_put_u32(w, (uint32_t)n);
	tf_put(w, s, n);
}

/* --- reader --- */

void tf_reader_init(struct tf_reader *r, const void *base, size_t size)
{
	*r = (struct tf_reader){.base = base, .size = size};
}

int tf_reader_fail(struct tf_reader *r, int code, size_t offset, const char *rule)
{
	if (!r->code) {
		r->code = code;
		r->failed_at = offset;
		r->rule = rule;
	}
	return r->code;
}

int tf_reader_error(const struct tf_reader *r, struct tf_err *e, const char *what)
{
	if (r->code)
		tf_fail(e, r->code, "%s: offset %zu: %s", what, r->failed_at, r->rule);
	return r->code;
}

size_t tf_reader_left(const struct tf_reader *r)
{
	return r->code ? 0 : r->size - r->at;
}

size_t tf_reader_limit(struct tf_reader *r, size_t n)
{
	size_t old = r->size;

	if (n > tf_reader_left(r))
		tf_reader_fail(r, TELEFORK_E_IMAGE, r->at, RULE_TRUNCATED);
	else
		r->size = r->at + n;
	return old;
}

void tf_reader_unlimit(struct tf_reader *r, size_t old)
{
	if (!r->code && r->at != r->size)
		tf_reader_fail(r, TELEFORK_E_IMAGE, r->at, RULE_CONSUMED);
	r->size = old;
}

const uint8_t *tf_get(struct tf_reader *r, size_t n)
{
	const uint8_t *p = r->base + r->at;

	if (r->code)
		return NULL;
	if (n > r->size - r->at) {
		tf_reader_fail(r, TELEFORK_E_IMAGE, r->at, RULE_TRUNCATED);
		return NULL;
	}
	r->at += n;
	return p;
}

/* n is a constant. */
static inline uint64_t number(struct tf_reader *r, size_t n)
{
	const uint8_t *p = tf_get(r, n);
	uint64_t v = 0;

	if (p)
		memcpy(&v, p, n);
	return le64toh(v);
}

uint16_t tf_get_u16(struct tf_reader *r)
{
	return (uint16_t)number(r, 2);
}

uint32_t tf_get_u32(struct tf_reader *r)
{
	return (uint32_t)number(r, 4);
}

uint64_t tf_get_u64(struct tf_reader *r)
{
	return number(r, 8);
}

void tf_get_align(struct tf_reader *r, size_t align)
{
	size_t at = r->at, n = -at & (align - 1);
	const uint8_t *p = tf_get(r, n);

	for (size_t i = 0; p && i < n; i++) {
		if (p[i])
			tf_reader_fail(r, TELEFORK_E_IMAGE, at + i, RULE_PADDING);
	}
}

const char *tf_get_str(struct tf_reader *r, struct tf_arena *a, size_t max)
{
	size_t at = r->at, n = tf_get_u32(r);
	const uint8_t *p;
	char *s;

	if (n > max)
		tf_reader_fail(r, TELEFORK_E_IMAGE, at, RULE_STRING_LENGTH);
	p = tf_get(r, n);
	if (!p || !n)
		return "";
	if (memchr(p, 0, n)) {
		tf_reader_fail(r, TELEFORK_E_IMAGE, at, RULE_STRING_ZERO);
		return "";
	}
	s = tf_arena_strn(a, (const char *)p, n);
	if (!s)
		tf_reader_fail(r, TELEFORK_E_NOMEM, at, RULE_MEMORY);
	return s ? s : "";
}
