/* SPDX-License-Identifier: MIT */
/*
 * libFuzzer target: everything that a receiver does with what arrives, up to the complete plan: the
 * stream's header and the head's extents, decoding, the check against a destination on paper, and
 * the plan, which is then played on paper (plan_model.h). First inputs: tests/golden, heads without
 * a stream around them.
 *
 * Checksums are right nowhere by chance: they are set right here, unless the input begins with 'x'.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core/base/crc32c.h"
#include "core/image/stream.h"

#define PLAN_BROKEN(...)                      \
	do {                                  \
		fprintf(stderr, __VA_ARGS__); \
		abort();                      \
	} while (0)
#include "tests/unit/plan_model.h"
#include "tests/unit/plan_sample.h"

#define MAX_INPUT ((size_t)256 << 10)
#define MAX_MAPS  200u /* the paper model is slow */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct tf_arena arena;
static uint8_t bytes[MAX_INPUT];
static size_t n_bytes;

static void put_bytes(const void *p, size_t n)
{
	if (n > MAX_INPUT - n_bytes)
		n = MAX_INPUT - n_bytes;
	memcpy(bytes + n_bytes, p, n);
	n_bytes += n;
}

/* A head becomes a stream of two extents. */
static void wrap_head(const uint8_t *head, size_t size)
{
	struct tf_stream_header h = {.version = TELEFORK_FORMAT};
	struct tf_extent x = {.size = (uint32_t)size / 2};
	uint64_t head_size = size;
	uint32_t machine;

	if (size >= TF_HEAD_PEEK)
		(void)tf_image_peek(head, &machine, &head_size, NULL);
	memcpy(h.magic, TF_STREAM_MAGIC, 8);
	h.head_size = head_size;
	put_bytes(&h, sizeof(h));
	put_bytes(&x, sizeof(x));
	put_bytes(head, x.size);
	x = (struct tf_extent){.offset = x.size, .size = (uint32_t)(size - x.size)};
	put_bytes(&x, sizeof(x));
	put_bytes(head + x.offset, x.size);
}

static void set_checksums(void)
{
	size_t at = sizeof(struct tf_stream_header);
	struct tf_extent x;
	uint32_t crc;

	if (n_bytes < at)
		return;
	crc = tf_crc32c(0, bytes, offsetof(struct tf_stream_header, crc));
	memcpy(bytes + offsetof(struct tf_stream_header, crc), &crc, 4);
	for (; n_bytes - at >= sizeof(x); at += sizeof(x) + x.size) {
		memcpy(&x, bytes + at, sizeof(x));
		if (x.size > n_bytes - at - sizeof(x))
			return;
		x.crc = tf_extent_crc(x.offset, x.size, bytes + at + sizeof(x));
		memcpy(bytes + at, &x, sizeof(x));
	}
}

/* The input, taken for what it looks like, as an open file. */
static int open_input(const uint8_t *data, size_t size)
{
	static int fd = -1;
	bool right = !size || data[0] != 'x';

	n_bytes = 0;
	if (!right)
		data++, size--;
	if (size > 4 && !memcmp(data, "\177ELF", 4))
		wrap_head(data, size);
	else
		put_bytes(data, size);
	if (right)
		set_checksums();
	if (fd < 0)
		fd = memfd_create("fuzz", MFD_CLOEXEC);
	if (fd < 0 || ftruncate(fd, 0) || pwrite(fd, bytes, n_bytes, 0) != (ssize_t)n_bytes ||
		lseek(fd, 0, SEEK_SET))
		abort();
	return fd;
}

static int read_image(int fd, struct tf_image *img, struct tf_err *e)
{
	struct tf_stream_header h;
	uint32_t chain, count;
	struct tf_io io;
	uint8_t *head;
	int rc;

	tf_io_init(&io, fd, NULL);
	rc = tf_stream_read_header(&io, &h, e);
	if (rc || h.head_size > MAX_INPUT)
		return rc ? rc : TELEFORK_E_LIMIT;
	head = tf_arena_alloc(&arena, h.head_size);
	rc = tf_stream_read_head(&io, head, h.head_size, &chain, &count, e);
	return rc ? rc : tf_image_decode(img, &arena, head, h.head_size, e);
}

static void plan(const struct tf_image *img, const char *text, bool equal)
{
	static struct model model;
	struct tf_restore r = {0};
	struct tf_facts f;
	struct tf_err e = {0};
	char line[512];
	int rc;

	if (sample_facts(&f, &arena, text, &e))
		abort();
	if (equal)
		f.vdso.digest = img->vdso.digest;
	rc = tf_compat_check(img, &f, 0, &e);
	if (!rc)
		rc = tf_restore_choose_fds(&r, img, &f, true, false, &e);
	if (!rc)
		rc = tf_restore_build(&r, img, &f, 3000, &arena, &e);
	if (rc) {
		if (rc != e.code || !e.text[0])
			abort();
		return;
	}
	for (uint64_t i = 0; i < r.plan.n_steps; i++)
		tf_step_text(&r.plan.steps[i], line, sizeof(line));
	if (img->n_maps <= MAX_MAPS)
		model_play(&model, &r, img, &f);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct tf_image img;
	struct tf_err e = {0};

	if (!arena.base && tf_arena_init(&arena, (size_t)256 << 20))
		abort();
	if (!read_image(open_input(data, size), &img, &e)) {
		img.n_threads = 1; /* more are refused, and the golden heads have two */
		plan(&img, sample_facts_native, false);
		plan(&img, sample_facts_native, true);
		plan(&img, sample_facts_emulated, false);
	} else if (e.code && !e.text[0]) {
		abort();
	}
	memset(arena.base, 0, arena.used);
	arena.used = 0;
	return 0;
}
