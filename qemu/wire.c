/* SPDX-License-Identifier: MIT */
/*
 * See wire.h. Every length that is read is compared with what is left before it is used, and
 * nothing is allocated for a length that has not been checked.
 */
#include "qemu/wire.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "qemu/agent.h"

size_t tf_wire_size(const struct tf_wire_buf *b)
{
	return b->end - b->start;
}

uint8_t *tf_wire_room(struct tf_wire_buf *b, size_t n)
{
	if (b->cap - b->end >= n)
		return b->data + b->end;
	if (b->start) {
		memmove(b->data, b->data + b->start, b->end - b->start);
		b->end -= b->start;
		b->start = 0;
	}
	if (b->cap - b->end < n) {
		size_t cap = b->cap ? b->cap : 4096;
		uint8_t *data;

		while (cap - b->end < n)
			cap *= 2;
		data = realloc(b->data, cap);
		if (!data) {
			b->failed = true;
			return NULL;
		}
		b->data = data;
		b->cap = cap;
	}
	return b->data + b->end;
}

void tf_wire_grew(struct tf_wire_buf *b, size_t n)
{
	b->end += n;
}

void tf_wire_drop(struct tf_wire_buf *b, size_t n)
{
	b->start += n;
	if (b->start == b->end)
		b->start = b->end = 0;
}

void tf_wire_done(struct tf_wire_buf *b)
{
	free(b->data);
	*b = (struct tf_wire_buf){};
}

void tf_wire_bytes(struct tf_wire_buf *b, const void *data, size_t len)
{
	uint8_t *to = b->failed ? NULL : tf_wire_room(b, len);

	if (!to || !len)
		return;
	memcpy(to, data, len);
	b->end += len;
}

void tf_wire_u8(struct tf_wire_buf *b, uint8_t v)
{
	tf_wire_bytes(b, &v, 1);
}

static void store_u32(uint8_t to[static 4], uint32_t v)
{
	for (int i = 0; i < 4; i++)
		to[i] = (uint8_t)(v >> (8 * i));
}

void tf_wire_u32(struct tf_wire_buf *b, uint32_t v)
{
	uint8_t raw[4];

	store_u32(raw, v);
	tf_wire_bytes(b, raw, sizeof(raw));
}

void tf_wire_u64(struct tf_wire_buf *b, uint64_t v)
{
	tf_wire_u32(b, (uint32_t)v);
	tf_wire_u32(b, (uint32_t)(v >> 32));
}

void tf_wire_blob(struct tf_wire_buf *b, const void *data, size_t len)
{
	tf_wire_u32(b, (uint32_t)len);
	tf_wire_bytes(b, data, len);
}

void tf_wire_string(struct tf_wire_buf *b, const char *s)
{
	tf_wire_blob(b, s, strlen(s));
}

/* The mark is relative to the content's start, since making room may move the content. */
size_t tf_wire_begin(struct tf_wire_buf *b, uint16_t type, uint32_t tag)
{
	size_t mark = tf_wire_size(b);

	b->failed = false;
	tf_wire_u32(b, 0);
	tf_wire_u32(b, type);
	tf_wire_u32(b, tag);
	return mark;
}

int tf_wire_end(struct tf_wire_buf *b, size_t mark)
{
	size_t total = tf_wire_size(b) - mark;
	int rc = 0;

	if (b->failed)
		rc = -ENOMEM;
	else if (total - TF_AGENT_HEADER > TF_AGENT_MAX_PAYLOAD)
		rc = -E2BIG;
	if (rc < 0) {
		b->end = b->start + mark;
		b->failed = false;
		return rc;
	}
	store_u32(b->data + b->start + mark, (uint32_t)(total - TF_AGENT_HEADER));
	return 0;
}

const void *tf_wire_get_bytes(struct tf_wire_reader *r, size_t len)
{
	const uint8_t *at = r->at;

	if (r->failed || len > r->left) {
		r->failed = true;
		return NULL;
	}
	r->at += len;
	r->left -= len;
	return at;
}

uint8_t tf_wire_get_u8(struct tf_wire_reader *r)
{
	const uint8_t *p = tf_wire_get_bytes(r, 1);

	return p ? *p : 0;
}

uint32_t tf_wire_get_u32(struct tf_wire_reader *r)
{
	const uint8_t *p = tf_wire_get_bytes(r, 4);
	uint32_t v = 0;

	for (int i = 3; p && i >= 0; i--)
		v = v << 8 | p[i];
	return v;
}

uint64_t tf_wire_get_u64(struct tf_wire_reader *r)
{
	uint64_t low = tf_wire_get_u32(r);

	return low | (uint64_t)tf_wire_get_u32(r) << 32;
}

const void *tf_wire_get_blob(struct tf_wire_reader *r, size_t max, size_t *ret_len)
{
	size_t len = tf_wire_get_u32(r);
	const void *p;

	if (len > max)
		r->failed = true;
	p = tf_wire_get_bytes(r, len);
	*ret_len = p ? len : 0;
	return p;
}

char *tf_wire_get_string(struct tf_wire_reader *r, size_t max)
{
	size_t len;
	const char *p = tf_wire_get_blob(r, max, &len);
	char *s;

	if (!p)
		return NULL;
	s = memchr(p, '\0', len) ? NULL : malloc(len + 1);
	if (!s) {
		r->failed = true;
		return NULL;
	}
	memcpy(s, p, len);
	s[len] = '\0';
	return s;
}

int tf_wire_next(const struct tf_wire_buf *b, struct tf_wire_message *m)
{
	struct tf_wire_reader r = {.at = b->data + b->start, .left = tf_wire_size(b)};
	uint32_t len, type;

	if (r.left < TF_AGENT_HEADER)
		return 0;
	len = tf_wire_get_u32(&r);
	type = tf_wire_get_u32(&r);
	if (len > TF_AGENT_MAX_PAYLOAD || type > UINT16_MAX)
		return -EBADMSG;
	m->type = (uint16_t)type;
	m->tag = tf_wire_get_u32(&r);
	if (r.left < len)
		return 0;
	m->body = (struct tf_wire_reader){.at = r.at, .left = len};
	m->size = TF_AGENT_HEADER + len;
	return 1;
}
