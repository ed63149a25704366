/* SPDX-License-Identifier: MIT */
/*
 * The parts of a yoyo: which edits lead from one list of mappings to another, frames, and the way
 * home: all of what came is taken in, or nothing. A stream of changes is made by hand and received
 * by this very process.
 */
#include "arch/arch.h"
#include "core/base/own.h"
#include "core/capture/changes.h"
#include "core/channel/frames.h"
#include "core/restore/merge.h"
#include "tests/unit/image_sample.h"
#include "tests/unit/suite.h"

#include <check.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#define RW (PROT_READ | PROT_WRITE)

static uint64_t page;

/* --- edits --- */

struct edits_case {
	struct tf_map before[4], after[4]; /* in pages; ends with end 0 */
	bool protections;
	struct tf_edit edits[4]; /* likewise */
};

#define M(s, e, p)                                    \
	{                                             \
		.start = (s), .end = (e), .prot = (p) \
	}
#define SHARED(s, e, p)                                                       \
	{                                                                     \
		.start = (s), .end = (e), .prot = (p), .flags = TF_MAP_SHARED \
	}
#define HEAP(s, e)                                                        \
	{                                                                 \
		.start = (s), .end = (e), .prot = RW, .kind = TF_MAP_HEAP \
	}
#define VDSO(s, e)                                                               \
	{                                                                        \
		.start = (s), .end = (e), .prot = PROT_READ, .kind = TF_MAP_VDSO \
	}
#define E(s, e, o, p)                                                    \
	{                                                                \
		.start = (s), .end = (e), .op = TF_EDIT_##o, .prot = (p) \
	}

static const struct edits_case edits_cases[] = {
	{{M(1, 2, RW)}, {M(1, 2, RW)}, true, {{0}}},
	{{M(1, 2, RW)}, {{0}}, true, {E(1, 2, UNMAP, 0)}},
	{{{0}}, {M(1, 2, RW)}, true, {E(1, 2, MAP, RW)}},
	/* grown at both ends, merged with a neighbour: only what is new counts */
	{{M(4, 6, RW)}, {M(2, 9, RW)}, true, {E(2, 4, MAP, RW), E(6, 9, MAP, RW)}},
	/* a hole in the middle */
	{{M(1, 9, RW)}, {M(1, 3, RW), M(5, 9, RW)}, true, {E(3, 5, UNMAP, 0)}},
	/* split by a protection, and merged again */
	{{M(1, 9, RW)}, {M(1, 3, RW), M(3, 5, PROT_READ), M(5, 9, RW)}, true,
		{E(3, 5, PROTECT, PROT_READ)}},
	{{M(1, 9, RW)}, {M(1, 3, RW), M(3, 5, PROT_READ), M(5, 9, RW)}, false, {{0}}},
	{{M(1, 3, RW), M(3, 5, PROT_READ)}, {M(1, 5, RW)}, true, {E(3, 5, PROTECT, RW)}},
	/* neighbours with one fate are one edit */
	{{M(1, 3, RW), M(3, 5, PROT_READ)}, {{0}}, true, {E(1, 5, UNMAP, 0)}},
	{{M(1, 3, RW)}, {SHARED(1, 3, RW)}, true,
		{{.start = 1,
			.end = 3,
			.op = TF_EDIT_REPLACE,
			.prot = RW,
			.flags = TF_MAP_SHARED}}},
	/* brk tells about the heap, the kernel's own pages are its own */
	{{HEAP(2, 4)}, {HEAP(2, 9)}, true, {{0}}},
	{{VDSO(2, 4)}, {{0}}, true, {{0}}},
	{{M(8, 9, RW)}, {M(2, 3, RW), M(8, 9, PROT_NONE)}, true,
		{E(2, 3, MAP, RW), E(8, 9, PROTECT, PROT_NONE)}},
};

START_TEST(edits)
{
	const struct edits_case *c = &edits_cases[_i];
	struct tf_edit out[8];
	uint32_t n_before = 0, n_after = 0, n = 0, got;

	while (n_before < 4 && c->before[n_before].end)
		n_before++;
	while (n_after < 4 && c->after[n_after].end)
		n_after++;
	while (n < 4 && c->edits[n].end)
		n++;
	got = tf_changes_edits(c->before, n_before, c->after, n_after, c->protections, out, 8);
	ck_assert_uint_eq(got, n);
	for (uint32_t i = 0; i < n; i++) {
		ck_assert_uint_eq(out[i].start, c->edits[i].start);
		ck_assert_uint_eq(out[i].end, c->edits[i].end);
		ck_assert_uint_eq(out[i].op, c->edits[i].op);
		ck_assert_uint_eq(out[i].prot, c->edits[i].prot);
		ck_assert_uint_eq(out[i].flags, c->edits[i].flags);
	}
}
END_TEST

START_TEST(edits_are_counted_beyond_the_room)
{
	const struct tf_map before[] = {M(1, 2, RW), M(3, 4, RW), M(5, 6, RW)};
	struct tf_edit out[1];

	ck_assert_uint_eq(tf_changes_edits(before, 3, NULL, 0, true, out, 1), 3);
	ck_assert_uint_eq(out[0].start, 1);
}
END_TEST

/* --- frames --- */

static void pair(int fd[2])
{
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, fd), 0);
}

START_TEST(data_passes_the_frames)
{
	struct tf_io in, out;
	struct tf_err e = {0};
	int32_t status = 0;
	char got[6] = "";
	int fd[2];

	pair(fd);
	tf_io_init(&out, fd[0], NULL);
	tf_io_init(&in, fd[1], NULL);
	tf_frames_read(&in);
	ck_assert_int_eq(tf_frame_write(&out, TF_FRAME_ALIVE, NULL, 0, &e), 0);
	ck_assert_int_eq(tf_frame_write(&out, TF_FRAME_DATA, "ab", 2, &e), 0);
	ck_assert_int_eq(tf_frame_write(&out, TF_FRAME_DATA, NULL, 0, &e), 0);
	ck_assert_int_eq(tf_frame_write(&out, TF_FRAME_DATA, "cde", 3, &e), 0);
	ck_assert_int_eq(tf_frame_write(&out, TF_FRAME_END, &status, 4, &e), 0);
	ck_assert_int_eq(tf_io_read(&in, got, 5, &e), 0);
	ck_assert_str_eq(got, "abcde");
	ck_assert_int_eq(tf_frames_finish(&in, &e), 0);
}
END_TEST

static const struct {
	struct tf_frame frame;
	int32_t status; /* of an END */
	int code;
	const char *words;
} frame_errors[] = {
	{{TF_FRAME_END, 4}, 11, TELEFORK_E_CRASHED, "signal 11"},
	{{TF_FRAME_END, 4}, 3 << 8, TELEFORK_E_CRASHED, "exited with 3"},
	{{TF_FRAME_END, 4}, -1, TELEFORK_E_CRASHED, "ended before"},
	{{TF_FRAME_END, 8}, 0, TELEFORK_E_PROTOCOL, "type 5"},
	{{TF_FRAME_OUT, TF_FRAME_MAX + 1}, 0, TELEFORK_E_PROTOCOL, "65537 bytes"},
	{{0, 4}, 0, TELEFORK_E_PROTOCOL, "type 0"},
	{{77, 4}, 0, TELEFORK_E_PROTOCOL, "type 77"},
	{{TF_FRAME_DATA, 100}, 0, TELEFORK_E_CLOSED, "closed"},
};

START_TEST(frames_that_are_refused)
{
	struct tf_err e = {0};
	struct tf_io in;
	char got[100];
	int fd[2];

	pair(fd);
	ck_assert_int_eq(write(fd[0], &frame_errors[_i].frame, 8), 8);
	ck_assert_int_eq(write(fd[0], &frame_errors[_i].status, 4), 4);
	close(fd[0]);
	tf_io_init(&in, fd[1], NULL);
	tf_frames_read(&in);
	ck_assert_int_eq(tf_io_read(&in, got, 100, &e), frame_errors[_i].code);
	ck_assert_msg(strstr(e.text, frame_errors[_i].words), "%s", e.text);
}
END_TEST

/* --- the way home --- */

/* A stream of changes under construction. */
struct changes {
	struct tf_arena arena;
	struct tf_image image;
	struct tf_run runs[8];
	const uint8_t *bytes[8]; /* of each run */
	uint32_t n;
};

static struct changes changes;
static struct tf_merge merge;

/* A sample in everything but mappings, edits and memory. */
static void changes_begin(struct changes *c)
{
	struct tf_image *img = &c->image;

	*c = (struct changes){0};
	ck_assert_int_eq(tf_arena_init(&c->arena, 64u << 20), 0);
	ck_assert_int_eq(
		sample_image(img, &c->arena, tf_arch_native()->machine, (uint32_t)page, 1), 0);
	img->source.origin = TF_ORIGIN_RETURN;
	img->source.max_map_end = UINT64_C(1) << 47;
	img->vdso = (struct tf_vdso){0};
	img->mm.brk = (uint64_t)syscall(SYS_brk, 0);
	img->n_maps = img->n_edits = img->n_signatures = img->n_tags = img->n_known = 0;
	img->maps = tf_arena_array(&c->arena, 8, sizeof(*img->maps));
	img->edits = tf_arena_array(&c->arena, 8, sizeof(*img->edits));
}

/* In ascending order: n bytes (whole pages) for address. */
static void changes_add(struct changes *c, void *address, const void *bytes, uint64_t n)
{
	uint64_t at = (uint64_t)address;

	c->image.maps[c->image.n_maps++] = (struct tf_map){
		.start = at, .end = at + n, .data_end = at + n, .prot = RW, .path = ""};
	c->runs[c->n] = (struct tf_run){at, at + n};
	c->bytes[c->n++] = bytes;
}

static void changes_edit(
	struct changes *c, void *start, uint64_t n, enum tf_edit_op op, uint32_t prot)
{
	c->image.edits[c->image.n_edits++] = (struct tf_edit){
		.start = (uint64_t)start, .end = (uint64_t)start + n, .op = op, .prot = prot};
}

/* Into a socket large enough to hold it; damage: the last byte of memory arrives changed. */
static int changes_send(struct changes *c, bool damage)
{
	struct tf_err e = {0};
	struct tf_sink *sink = tf_arena_alloc(&c->arena, sizeof(*sink));
	struct tf_io io;
	uint64_t memory = 0;
	uint8_t *head, *last = NULL;
	int fd[2], size = 4 << 20;

	pair(fd);
	setsockopt(fd[0], SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof(size));
	tf_io_init(&io, fd[0], NULL);
	for (uint32_t i = 0; i < c->n; i++)
		memory += c->runs[i].end - c->runs[i].start;
	ck_assert_int_eq(tf_image_make_segments(&c->image, &c->arena, c->runs, c->n, 1 << 30), 0);
	ck_assert_int_eq(tf_image_encode(&c->image, &c->arena, &head), 0);
	ck_assert_int_eq(
		tf_sink_begin(sink, &io, false, &c->image, memory, 0, 64, &c->arena, &e), 0);
	ck_assert_int_eq(tf_sink_data(sink, 0, head, c->image.head_size, NULL, &e), 0);
	for (uint32_t i = 0; i < c->n; i++) {
		uint64_t n = c->runs[i].end - c->runs[i].start;
		uint8_t *copy = tf_arena_dup(&c->arena, c->bytes[i], n);

		ck_assert_int_eq(tf_sink_data(sink, tf_image_offset(&c->image, c->runs[i].start),
					 copy, n, NULL, &e),
			0);
		last = &copy[n - 1];
	}
	if (damage && last)
		*last ^= 1;
	ck_assert_int_eq(tf_sink_end(sink, &c->image, &e), 0);
	close(fd[0]);
	return fd[1];
}

static int come_home(int fd, struct tf_err *e)
{
	struct tf_stream_header h;
	struct tf_io io;
	int rc;

	tf_io_init(&io, fd, NULL);
	rc = tf_io_read(&io, &h, sizeof(h), e);
	if (!rc)
		rc = tf_merge_receive(&merge, &io, &h, e);
	if (!rc)
		rc = tf_merge_apply(&merge, e);
	close(fd);
	tf_merge_done(&merge);
	return rc;
}

static uint8_t *memory(uint64_t pages, int prot, int byte)
{
	uint8_t *p = mmap(NULL, pages * page, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	ck_assert_ptr_ne(p, MAP_FAILED);
	memset(p, byte, pages * page);
	ck_assert_int_eq(mprotect(p, pages * page, prot), 0);
	return p;
}

static bool is_mapped(void *p)
{
	return !msync(p, page, MS_ASYNC);
}

START_TEST(everything_comes_home)
{
	uint8_t *bytes = memory(2, RW, 0x77), *mem = memory(8, RW, 0x11);
	uint8_t *locked = memory(1, PROT_READ, 0x22), *fresh = memory(2, RW, 0);
	struct tf_err e = {0};

	munmap(fresh, 2 * page);
	changes_begin(&changes);
	ck_assert_int_eq(tf_merge_init(&merge, &e), 0);
	/* ascending, wherever mmap put them */
	struct {
		uint8_t *at;
		uint64_t n;
	} put[] = {{fresh, 2}, {locked, 1}, {mem, 1}};

	for (int i = 0; i < 3; i++)
		for (int k = i + 1; k < 3; k++)
			if (put[k].at < put[i].at) {
				typeof(put[0]) t = put[i];

				put[i] = put[k];
				put[k] = t;
			}
	for (int i = 0; i < 3; i++)
		changes_add(&changes, put[i].at, bytes, put[i].n * page);
	if (mem < fresh)
		changes_edit(&changes, mem + 4 * page, page, TF_EDIT_UNMAP, 0);
	changes_edit(&changes, fresh, 2 * page, TF_EDIT_MAP, PROT_READ);
	if (mem > fresh)
		changes_edit(&changes, mem + 4 * page, page, TF_EDIT_UNMAP, 0);
	tf_merge_keep(&merge, (uint64_t)mem + 8, (uint64_t)mem + 12);
	tf_merge_keep(&merge, (uint64_t)mem + page - 4, (uint64_t)mem + page + 4);
	ck_assert_msg(!come_home(changes_send(&changes, false), &e), "%s", e.text);
	ck_assert_uint_eq(fresh[0], 0x77);
	ck_assert_uint_eq(fresh[2 * page - 1], 0x77);
	ck_assert_uint_eq(locked[0], 0x77);
	ck_assert_uint_eq(mem[0], 0x77);
	ck_assert_uint_eq(mem[7], 0x77);
	ck_assert_uint_eq(mem[8], 0x11);
	ck_assert_uint_eq(mem[11], 0x11);
	ck_assert_uint_eq(mem[12], 0x77);
	ck_assert_uint_eq(mem[page - 5], 0x77);
	ck_assert_uint_eq(mem[page - 4], 0x11);
	ck_assert_uint_eq(mem[page], 0x11);
	ck_assert(!is_mapped(mem + 4 * page));
	ck_assert(is_mapped(mem + 5 * page));
}
END_TEST

/* What fails last undoes what came first. */
START_TEST(nothing_comes_home)
{
	uint8_t *bytes = memory(1, RW, 0x77), *locked = memory(1, PROT_READ, 0x22);
	uint8_t *mem = memory(1, RW, 0x11), *taken = memory(1, RW, 0x33);
	uint8_t *low = mem < locked ? mem : locked, *high = mem < locked ? locked : mem;
	struct tf_err e = {0};

	changes_begin(&changes);
	ck_assert_int_eq(tf_merge_init(&merge, &e), 0);
	changes_add(&changes, low, bytes, page);
	changes_add(&changes, high, bytes, page);
	changes_edit(&changes, taken, page, TF_EDIT_MAP, RW);
	ck_assert_int_eq(come_home(changes_send(&changes, false), &e), TELEFORK_E_COLLISION);
	ck_assert_msg(strstr(e.text, "cannot be mapped"), "%s", e.text);
	ck_assert_uint_eq(mem[0], 0x11);
	ck_assert_uint_eq(locked[0], 0x22);
	ck_assert_uint_eq(taken[0], 0x33);
}
END_TEST

START_TEST(a_page_that_cannot_be_written_undoes_the_rest)
{
	char name[] = "/tmp/test_yoyo.XXXXXX";
	int fd = mkstemp(name), ro;
	uint8_t *bytes = memory(1, RW, 0x77), *place = memory(3, PROT_NONE, 0x22);
	uint8_t *locked = place, *file = place + 2 * page, *fresh;
	struct tf_err e = {0};

	ck_assert_int_eq(mprotect(locked, page, PROT_READ), 0);
	ck_assert_int_eq(ftruncate(fd, (off_t)page), 0);
	ro = open(name, O_RDONLY);
	unlink(name);
	/* not even by force: a shared mapping of a file that was opened for reading */
	ck_assert_ptr_eq(mmap(file, page, PROT_READ, MAP_SHARED | MAP_FIXED, ro, 0), file);
	/* A hole of a page, which nothing that is mapped meanwhile fits into. */
	fresh = memory(3, RW, 0) + page;
	munmap(fresh, page);
	changes_begin(&changes);
	ck_assert_int_eq(tf_merge_init(&merge, &e), 0);
	changes_add(&changes, locked, bytes, page);
	changes_add(&changes, file, bytes, page);
	changes_edit(&changes, fresh, page, TF_EDIT_MAP, RW);
	ck_assert_int_eq(come_home(changes_send(&changes, false), &e), TELEFORK_E_SYSTEM);
	ck_assert_msg(strstr(e.text, "cannot be made here"), "%s", e.text);
	ck_assert_uint_eq(locked[0], 0x22);
	ck_assert(!is_mapped(fresh));
	close(fd);
	close(ro);
}
END_TEST

/* What became writable is closed again when a later edit fails. */
START_TEST(what_was_opened_is_closed_again)
{
	uint8_t *place = memory(4, PROT_READ, 0x22), *taken = place + 3 * page;
	struct tf_err e = {0};
	int zero = open("/dev/zero", O_RDONLY);

	changes_begin(&changes);
	ck_assert_int_eq(tf_merge_init(&merge, &e), 0);
	changes_edit(&changes, place, 2 * page, TF_EDIT_PROTECT, RW);
	changes_edit(&changes, taken, page, TF_EDIT_MAP, RW);
	ck_assert_int_eq(come_home(changes_send(&changes, false), &e), TELEFORK_E_COLLISION);
	/* a kernel says EFAULT where it may not write */
	ck_assert_int_eq(read(zero, place, 1), -1);
	ck_assert_int_eq(read(zero, place + page, 1), -1);
	ck_assert_uint_eq(place[0], 0x22);
	close(zero);
}
END_TEST

START_TEST(mappings_that_cannot_be_opened)
{
	char name[] = "/tmp/test_yoyo.XXXXXX";
	int fd = mkstemp(name), ro;
	uint8_t *place = memory(3, PROT_READ, 0x22), *file = place + 2 * page;
	struct tf_err e = {0};

	ck_assert_int_eq(ftruncate(fd, (off_t)page), 0);
	ro = open(name, O_RDONLY);
	unlink(name);
	ck_assert_ptr_eq(mmap(file, page, PROT_READ, MAP_SHARED | MAP_FIXED, ro, 0), file);
	changes_begin(&changes);
	ck_assert_int_eq(tf_merge_init(&merge, &e), 0);
	changes_edit(&changes, place, page, TF_EDIT_PROTECT, RW);
	changes_edit(&changes, file, page, TF_EDIT_PROTECT, RW);
	ck_assert_int_eq(come_home(changes_send(&changes, false), &e), TELEFORK_E_SYSTEM);
	ck_assert_msg(strstr(e.text, "cannot be made writable"), "%s", e.text);
	close(fd);
	fd = open("/dev/zero", O_RDONLY);
	ck_assert_int_eq(read(fd, place, 1), -1);
	close(fd);
	close(ro);
}
END_TEST

/* A receiver that lies: what this process needs while it applies stays. */
static void *own_place(int i)
{
	switch (i) {
	case 0:
		return merge.arena.base;
	case 1:
		return merge.arena.base + merge.arena.size; /* where the stage will be */
	case 2:
		return (void *)((uint64_t)(uintptr_t)tf_merge_apply & ~(page - 1));
	default:
		return (void *)((uint64_t)(uintptr_t)&merge & ~(page - 1));
	}
}

START_TEST(edits_of_what_is_ours)
{
	uint8_t *mem = memory(1, RW, 0x11), *bytes = memory(1, RW, 0x77);
	struct tf_err e = {0};
	enum tf_edit_op op = _i % 2 ? TF_EDIT_PROTECT : TF_EDIT_UNMAP;

	changes_begin(&changes);
	ck_assert_int_eq(tf_merge_init(&merge, &e), 0);
	tf_merge_keep(&merge, (uint64_t)&merge, (uint64_t)(&merge + 1));
	changes_add(&changes, mem, bytes, page);
	changes_edit(&changes, own_place(_i / 2), page, op, PROT_NONE);
	ck_assert_int_eq(come_home(changes_send(&changes, false), &e), TELEFORK_E_IMAGE);
	ck_assert_msg(strstr(e.text, "own"), "%s", e.text);
	ck_assert_uint_eq(mem[0], 0x11);
}
END_TEST

/* Bytes for one place twice: an undo would bring back the first of them. */
START_TEST(changes_that_do_not_ascend)
{
	static uint8_t whole[1 << 16];
	uint8_t *bytes = memory(1, RW, 0x77), *mem = memory(1, RW, 0x11);
	struct tf_extent x, trailer;
	struct tf_err e = {0};
	ssize_t n, got = 0;
	uint8_t *last;
	int fd, p[2];

	changes_begin(&changes);
	ck_assert_int_eq(tf_merge_init(&merge, &e), 0);
	changes_add(&changes, mem, bytes, page);
	fd = changes_send(&changes, false);
	while ((n = read(fd, whole + got, sizeof(whole) - (size_t)got)) > 0)
		got += n;
	close(fd);
	/* the last extent once more, in front of a trailer that counts it */
	memcpy(&trailer, whole + got - sizeof(trailer), sizeof(trailer));
	last = whole + got - sizeof(trailer) - page - sizeof(x);
	memcpy(&x, last, sizeof(x));
	memmove(last + sizeof(x) + page, last, sizeof(x) + page);
	trailer.size++;
	trailer.crc = tf_chain_crc(trailer.crc, x.crc);
	memcpy(whole + got + page, &trailer, sizeof(trailer));
	pair(p);
	ck_assert_int_eq(write(p[0], whole, (size_t)got + page + sizeof(x)),
		got + (ssize_t)(page + sizeof(x)));
	close(p[0]);
	ck_assert_int_eq(come_home(p[1], &e), TELEFORK_E_IMAGE);
	ck_assert_uint_eq(mem[0], 0x11);
}
END_TEST

START_TEST(damage_is_noticed)
{
	uint8_t *bytes = memory(1, RW, 0x77), *mem = memory(1, RW, 0x11);
	struct tf_err e = {0};

	changes_begin(&changes);
	ck_assert_int_eq(tf_merge_init(&merge, &e), 0);
	changes_add(&changes, mem, bytes, page);
	ck_assert_int_eq(come_home(changes_send(&changes, true), &e), TELEFORK_E_CHECKSUM);
	ck_assert_uint_eq(mem[0], 0x11);
}
END_TEST

START_TEST(a_change_where_nothing_is)
{
	uint8_t *bytes = memory(1, RW, 0x77), *gone = memory(1, RW, 0);
	struct tf_err e = {0};

	munmap(gone, page);
	changes_begin(&changes);
	ck_assert_int_eq(tf_merge_init(&merge, &e), 0);
	changes_add(&changes, gone, bytes, page);
	ck_assert_int_eq(come_home(changes_send(&changes, false), &e), TELEFORK_E_IMAGE);
	ck_assert_msg(strstr(e.text, "where nothing is"), "%s", e.text);
	ck_assert(!is_mapped(gone));
}
END_TEST

START_TEST(another_kind_of_image)
{
	struct tf_err e = {0};

	changes_begin(&changes);
	changes.image.source.origin = TF_ORIGIN_CALL;
	ck_assert_int_eq(tf_merge_init(&merge, &e), 0);
	ck_assert_int_eq(come_home(changes_send(&changes, false), &e), TELEFORK_E_PROTOCOL);
}
END_TEST

START_TEST(a_cut_stream)
{
	uint8_t *bytes = memory(1, RW, 0x77), *mem = memory(1, RW, 0x11);
	static uint8_t whole[1 << 16];
	struct tf_err e = {0};
	ssize_t n, got = 0;
	int fd;

	changes_begin(&changes);
	changes_add(&changes, mem, bytes, page);
	fd = changes_send(&changes, false);
	while ((n = read(fd, whole + got, sizeof(whole) - (size_t)got)) > 0)
		got += n;
	close(fd);
	for (ssize_t cut = 0; cut < got; cut += cut < got - 200 ? 97 : 1) {
		int p[2];

		pair(p);
		e = (struct tf_err){0};
		ck_assert_int_eq(write(p[0], whole, (size_t)cut), cut);
		close(p[0]);
		ck_assert_int_eq(tf_merge_init(&merge, &e), 0);
		ck_assert_int_eq(come_home(p[1], &e), TELEFORK_E_CLOSED);
		ck_assert_uint_eq(mem[0], 0x11);
	}
}
END_TEST

int main(void)
{
	Suite *s = suite_create("yoyo");
	TCase *t = tcase_create("all");

	page = (uint64_t)sysconf(_SC_PAGESIZE);
	tcase_add_loop_test(t, edits, 0, sizeof(edits_cases) / sizeof(*edits_cases));
	tcase_add_test(t, edits_are_counted_beyond_the_room);
	tcase_add_test(t, data_passes_the_frames);
	tcase_add_loop_test(
		t, frames_that_are_refused, 0, sizeof(frame_errors) / sizeof(*frame_errors));
	tcase_add_test(t, everything_comes_home);
	tcase_add_test(t, nothing_comes_home);
	tcase_add_test(t, a_page_that_cannot_be_written_undoes_the_rest);
	tcase_add_test(t, what_was_opened_is_closed_again);
	tcase_add_test(t, mappings_that_cannot_be_opened);
	tcase_add_loop_test(t, edits_of_what_is_ours, 0, 8);
	tcase_add_test(t, changes_that_do_not_ascend);
	tcase_add_test(t, damage_is_noticed);
	tcase_add_test(t, a_change_where_nothing_is);
	tcase_add_test(t, another_kind_of_image);
	tcase_add_test(t, a_cut_stream);
	tcase_set_timeout(t, SUITE_LIMIT_S);
	suite_add_tcase(s, t);
	return suite_run(s);
}
