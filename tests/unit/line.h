/* SPDX-License-Identifier: MIT */
/*
 * For tests of what a receiver makes of bytes that no sender of ours sends: a genuine image of this
 * process, which every test then spoils, and a sender by hand.
 */
#ifndef TF_TEST_LINE_H
#define TF_TEST_LINE_H

#include "tests/unit/sides.h"

#include "core/base/crc32c.h"

static struct tf_arena arena;
static struct tf_image image;
static uint8_t *head; /* encoded after a change */

static UNUSED void set_up(void)
{
	char path[] = "/tmp/telefork-hostile-XXXXXX";
	uint8_t peek[TF_HEAD_PEEK], *bytes;
	struct telefork_result r;
	struct tf_err e = {0};
	uint64_t size;
	uint32_t machine;
	int rc, fd;

	sides_setup();
	close(mkstemp(path));
	rc = telefork_save(path, NULL, &r);
	ck_assert_msg(rc == TELEFORK_PARENT, "%s", r.message);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	unlink(path);
	ck_assert(!tf_arena_init(&arena, (size_t)64 << 20));
	ck_assert(!tf_io_pread(fd, peek, sizeof(peek), 0, &e));
	ck_assert(!tf_image_peek(peek, &machine, &size, &e));
	bytes = tf_arena_alloc(&arena, size);
	ck_assert(bytes && !tf_io_pread(fd, bytes, size, 0, &e));
	rc = tf_image_decode(&image, &arena, bytes, size, &e);
	ck_assert_msg(!rc, "%s", e.text);
	close(fd);
}

/* --- a sender by hand --- */

struct line {
	int fd, talk;
	pid_t receiver;
	uint32_t count, chain;
};

static void put(struct line *l, const void *p, size_t n)
{
	/* A receiver that has refused already does not read any more. */
	for (size_t at = 0; at < n;) {
		ssize_t done = send(l->fd, (const uint8_t *)p + at, n - at, MSG_NOSIGNAL);

		if (done <= 0)
			return;
		at += (size_t)done;
	}
}

static UNUSED void put_header(struct line *l, uint64_t head_size, uint32_t version)
{
	struct tf_stream_header h = {
		.version = version, .machine = image.source.machine, .head_size = head_size};

	memcpy(h.magic, TF_STREAM_MAGIC, sizeof(h.magic));
	h.crc = tf_crc32c(0, &h, offsetof(struct tf_stream_header, crc));
	put(l, &h, sizeof(h));
}

static UNUSED void put_extent(struct line *l, uint64_t offset, uint32_t size, const void *data)
{
	struct tf_extent x = {offset, size, tf_extent_crc(offset, size, data)};

	put(l, &x, sizeof(x));
	put(l, data, size);
	l->chain = tf_chain_crc(l->chain, x.crc);
	l->count++;
}

static UNUSED void put_head(struct line *l, const uint8_t *bytes, uint64_t size)
{
	put_header(l, size, TELEFORK_FORMAT);
	for (uint64_t at = 0; at < size; at += TF_EXTENT_MAX)
		put_extent(l, at, size - at < TF_EXTENT_MAX ? (uint32_t)(size - at) : TF_EXTENT_MAX,
			bytes + at);
}

static UNUSED void encode(void)
{
	ck_assert_int_eq(tf_image_encode(&image, &arena, &head), 0);
}

#endif
