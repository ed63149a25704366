/* SPDX-License-Identifier: MIT */
/*
 * The stream and its file form: what a sink writes, the readers take back. Then every byte of the
 * header, of each extent's header and of the trailer is flipped, one byte of each extent's data,
 * and the stream is cut at every boundary and beside it: always an error, never a crash. Memory is
 * read by the restorer itself, in a forked child, by a plan of two steps: fill, and tell.
 */
#include <check.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "arch/arch.h"
#include "core/base/crc32c.h"
#include "core/channel/channel.h"
#include "core/image/stream.h"
#include "tests/unit/image_sample.h"
#include "tests/unit/suite.h"

#define ROOM       ((size_t)4 << 20)
#define N_PIECES   5
#define MAX_BOUNDS 64
#define WATCHED    0x10000 /* bytes of memory that are, by userfaultfd */

static struct tf_arena arena;
static struct tf_image image;
static uint8_t *head, *memory; /* memory: where the restorer fills, shared with the child */
static struct tf_err e;
static uint64_t max_bytes = UINT64_MAX; /* of all extents, for the restorer */
static bool puts_pages;                 /* the restorer is to put pages where none are */
static unsigned sections;               /* that it asked for */

/* A stream: its bytes, and where its records begin. */
static uint8_t *stream;
static size_t stream_size, bounds[MAX_BOUNDS], n_bounds;

/* Pieces of the sample's memory that travel: [from, from + size) of a segment. */
static const struct {
	uint32_t segment;
	uint64_t from, size;
} pieces[N_PIECES] = {{0, 0, 1}, {0, 5, 4096}, {0, 0x8000, 0x8000}, {2, 0, 100}, {2, 0x7000, 17}};

static uint8_t content(uint64_t offset)
{
	return (uint8_t)(offset * 11 + (offset >> 8) + 3);
}

static void set_up(void)
{
	ck_assert_int_eq(tf_arena_init(&arena, (size_t)64 << 20), 0);
	e = (struct tf_err){0};
	memory = mmap(NULL, ROOM, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ck_assert_ptr_ne(memory, MAP_FAILED);
	ck_assert_int_eq(sample_image(&image, &arena, tf_arch_native()->machine, 4096, 1), 0);
	ck_assert_int_eq(tf_image_encode(&image, &arena, &head), 0);
}

static void tear_down(void)
{
	tf_arena_done(&arena);
	munmap(memory, ROOM);
}

static int new_file(void)
{
	int fd = memfd_create("stream", MFD_CLOEXEC);

	ck_assert_int_ge(fd, 0);
	return fd;
}

static void send_pieces(struct tf_sink *s)
{
	static uint8_t data[N_PIECES][0x8000];

	ck_assert_int_eq(tf_sink_data(s, 0, head, image.head_size, NULL, &e), 0);
	for (int i = 0; i < N_PIECES; i++) {
		uint64_t offset = image.segments[pieces[i].segment].offset + pieces[i].from;

		ck_assert_uint_le(
			pieces[i].from + pieces[i].size, image.segments[pieces[i].segment].filesz);
		for (uint64_t k = 0; k < pieces[i].size; k++)
			data[i][k] = content(offset + k);
		ck_assert_int_eq(tf_sink_data(s, offset, data[i], pieces[i].size, NULL, &e), 0);
	}
	ck_assert_int_eq(tf_sink_end(s, &image, &e), 0);
}

/* Writes the sample to fd, as a stream or as a file; leaves the position at the beginning. */
static void send_sample(int fd, bool file)
{
	static struct tf_sink sink;
	struct tf_io io;

	tf_io_init(&io, fd, NULL);
	ck_assert_int_eq(tf_sink_begin(&sink, &io, file, &image, 0, 0, 100, &arena, &e), 0);
	send_pieces(&sink);
	ck_assert_uint_eq(sink.count, N_PIECES + 1);
	ck_assert_int_eq(lseek(fd, 0, SEEK_SET), 0);
}

/* The sample as bytes, with the places of its records. */
static void make_stream(void)
{
	int fd = new_file();
	struct tf_extent x;

	send_sample(fd, false);
	stream_size = (size_t)lseek(fd, 0, SEEK_END);
	stream = tf_arena_alloc(&arena, stream_size);
	ck_assert_int_eq(pread(fd, stream, stream_size, 0), (ssize_t)stream_size);
	close(fd);
	n_bounds = 0;
	bounds[n_bounds++] = 0;
	for (size_t at = sizeof(struct tf_stream_header); at < stream_size;) {
		memcpy(&x, stream + at, sizeof(x));
		bounds[n_bounds++] = at;
		bounds[n_bounds++] = at + sizeof(x);
		at += sizeof(x) + (x.offset == TF_TRAILER_OFFSET ? 0 : x.size);
	}
	ck_assert_uint_eq(bounds[n_bounds - 1], stream_size);
}

/* --- the receiver --- */

/* Segments land one behind the other in memory; the second one is read into nowhere. */
static uint64_t make_fills(struct tf_fill *fills)
{
	uint64_t n = 0, at = (uint64_t)memory;

	for (uint32_t i = 0; i < image.n_segments; i++) {
		const struct tf_segment *s = &image.segments[i];

		if (!s->filesz)
			continue;
		fills[n++] = (struct tf_fill){s->offset, s->filesz, i == 2 ? 0 : at,
			puts_pages ? TF_FILL_PUT : TF_FILL_WRITE};
		at += s->filesz;
	}
	ck_assert_uint_le(at, (uint64_t)memory + ROOM);
	return n;
}

static uint8_t *address_of(uint64_t offset)
{
	static struct tf_fill fills[16];
	uint64_t n = make_fills(fills);

	for (uint64_t i = 0; i < n; i++)
		if (offset >= fills[i].offset && offset - fills[i].offset < fills[i].size)
			return fills[i].address
				       ? (uint8_t *)(fills[i].address + offset - fills[i].offset)
				       : NULL;
	return NULL;
}

/* A userfaultfd, or -1 where there is none: the restorer does without. Only the beginning is
 * watched. */
static int64_t watch(void)
{
	struct uffdio_api api = {.api = UFFD_API};
	struct uffdio_register reg = {
		.range = {(uint64_t)memory, WATCHED}, .mode = UFFDIO_REGISTER_MODE_MISSING};
	int fd = (int)syscall(SYS_userfaultfd, 1 /* UFFD_USER_MODE_ONLY */);

	if (fd < 0 || ioctl(fd, UFFDIO_API, &api) || ioctl(fd, UFFDIO_REGISTER, &reg))
		return -1;
	return fd;
}

static _Noreturn void child(int fd, int control, uint32_t chain, uint32_t count, bool table)
{
	static struct tf_fill fills[16];
	static uint32_t crc_table[8][256];
	static uint8_t buffer[TF_PLAN_BUFFER];
	static struct tf_step steps[2] = {{.op = TF_OP_FILL}, {.op = TF_OP_BARRIER}};
	struct tf_plan_header plan = {
		.steps = (uint64_t)steps,
		.n_steps = 2,
		.fills = (uint64_t)fills,
		.n_fills = make_fills(fills),
		.crc_table = (uint64_t)crc_table,
		.crc_instruction = !table,
		.control_fd = control,
		.buffer = (uint64_t)buffer,
		.page = (uint64_t)sysconf(_SC_PAGESIZE),
		.count = count,
		.chain = chain,
		.max_bytes = max_bytes,
	};

	tf_crc32c_table(crc_table);
	steps[0].arg[0] = (uint64_t)fd;
	steps[0].arg[1] = puts_pages ? (uint64_t)watch() : UINT64_MAX;
	steps[1].arg[0] = (uint64_t)control;
	tf_restorer_main(&plan);
}

/* What a receiver does in a section of packed extents, of which none is. */
static void pass_section(int fd, int control)
{
	static uint8_t bytes[TF_EXTENT_MAX];
	struct tf_extent x;

	sections++;
	do {
		uint32_t n;

		ck_assert_int_eq(read(fd, &x, sizeof(x)), sizeof(x));
		n = x.offset == TF_PACKED_OFFSET ? 0 : x.size;
		ck_assert_int_eq(read(fd, bytes, n), n);
		ck_assert_int_eq(write(control, &x, sizeof(x)), sizeof(x));
		ck_assert_int_eq(write(control, bytes, n), n);
	} while (x.offset != TF_PACKED_OFFSET);
}

/* 0 when the restorer filled memory, else its error; *ret_bytes is what it filled. */
static int32_t run_restorer(int fd, uint32_t chain, uint32_t count, bool table, uint64_t *ret_bytes)
{
	struct tf_report r = {0};
	int control[2], status;
	pid_t pid;

	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, control), 0);
	pid = fork();
	if (!pid) {
		close(control[0]);
		child(fd, control[1], chain, count, table);
	}
	close(control[1]);
	while (read(control[0], &r, sizeof(r)) == sizeof(r) && r.tag == 'p')
		pass_section(fd, control[0]);
	close(control[0]); /* the barrier then ends the child */
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_msg(WIFEXITED(status) || WTERMSIG(status) == SIGPIPE, "status %d", status);
	*ret_bytes = r.value;
	ck_assert(r.tag == 'r' || (r.tag == 'e' && r.error));
	return r.tag == 'r' ? 0 : r.error;
}

/* Everything that a receiver does with a stream. 0, or the code of what it found. */
static int receive(const uint8_t *bytes, size_t n, bool table)
{
	struct tf_stream_header h;
	uint32_t chain, count;
	uint64_t filled;
	size_t mark = arena.used;
	struct tf_image got;
	struct tf_io io;
	uint8_t *copy;
	int fd = new_file(), rc;

	ck_assert_int_eq(write(fd, bytes, n), (ssize_t)n);
	ck_assert_int_eq(lseek(fd, 0, SEEK_SET), 0);
	e = (struct tf_err){0};
	tf_io_init(&io, fd, NULL);
	rc = tf_stream_read_header(&io, &h, &e);
	if (!rc) {
		copy = tf_arena_alloc(&arena, h.head_size);
		rc = tf_stream_read_head(&io, copy, h.head_size, &chain, &count, &e);
	}
	if (!rc)
		rc = tf_image_decode(&got, &arena, copy, h.head_size, &e);
	ck_assert_int_eq(rc, e.code);
	if (!rc)
		rc = run_restorer(fd, chain, count, table, &filled);
	memset(arena.base + mark, 0, arena.used - mark);
	arena.used = mark;
	close(fd);
	return rc;
}

/* --- tests --- */

START_TEST(round_trip)
{
	make_stream();
	puts_pages = _i & 2;
	ck_assert_int_eq(receive(stream, stream_size, _i & 1), 0);
	for (int i = 0; i < N_PIECES; i++) {
		uint64_t offset = image.segments[pieces[i].segment].offset + pieces[i].from;

		for (uint64_t k = 0; k < pieces[i].size && address_of(offset); k++)
			if (*address_of(offset + k) != content(offset + k))
				ck_abort_msg("piece %d, byte %llu", i, (unsigned long long)k);
	}
}
END_TEST

/* Data longer than an extent, than a batch, and more extents than one batch takes. */
START_TEST(sink_splits)
{
	static const uint64_t sizes[] = {
		1, TF_EXTENT_MAX - 1, TF_EXTENT_MAX, TF_EXTENT_MAX + 1, 3 * TF_EXTENT_MAX + 7};
	static struct tf_sink sink;
	static uint8_t data[3 * TF_EXTENT_MAX + 7], got[TF_EXTENT_MAX];
	uint32_t chain = 0, count = 0;
	uint64_t offset = 1000, end = 1000;
	struct tf_extent x;
	struct tf_io io;
	int fd = new_file();

	tf_io_init(&io, fd, NULL);
	ck_assert_int_eq(tf_sink_begin(&sink, &io, false, &image, 0, 0, 0, &arena, &e), 0);
	for (size_t i = 0; i < sizeof(data); i++)
		data[i] = (uint8_t)(i ^ i >> 9);
	for (size_t i = 0; i < 5; i++, end += sizes[i - 1])
		ck_assert_int_eq(tf_sink_data(&sink, end, data, sizes[i], NULL, &e), 0);
	for (size_t i = 0; i < 600; i++)
		ck_assert_int_eq(tf_sink_data(&sink, end++, data, 1, NULL, &e), 0);
	ck_assert_int_eq(tf_sink_end(&sink, &image, &e), 0);
	ck_assert_uint_eq(sink.data, end - 1000);
	ck_assert_int_eq(lseek(fd, sizeof(struct tf_stream_header), SEEK_SET), 40);
	for (;; offset += x.size, count++) {
		ck_assert_int_eq(tf_io_read(&io, &x, sizeof(x), &e), 0);
		if (x.offset == TF_TRAILER_OFFSET)
			break;
		ck_assert_uint_eq(x.offset, offset);
		ck_assert_uint_le(x.size, TF_EXTENT_MAX);
		ck_assert_int_eq(tf_io_read(&io, got, x.size, &e), 0);
		ck_assert_uint_eq(x.crc, tf_extent_crc(x.offset, x.size, got));
		chain = tf_chain_crc(chain, x.crc);
	}
	ck_assert_uint_eq(offset, end);
	ck_assert_uint_eq(x.size, count);
	ck_assert_uint_eq(x.crc, chain);
	close(fd);
}
END_TEST

/* Flips a byte and expects the stream refused. */
static void refuse_flip(size_t at, uint8_t mask, bool table)
{
	stream[at] ^= mask;
	if (!receive(stream, stream_size, table))
		ck_abort_msg("byte %zu of %zu flipped, and accepted", at, stream_size);
	stream[at] ^= mask;
}

START_TEST(every_header_flipped)
{
	make_stream();
	for (size_t at = 0; at < sizeof(struct tf_stream_header); at++)
		refuse_flip(at, _i ? 0x10 : 0xff, false);
	for (size_t i = 1; i < n_bounds; i += 2)
		for (size_t at = bounds[i]; at < bounds[i + 1]; at++)
			refuse_flip(at, _i ? (uint8_t)(1u << at % 8) : 0xff, at & 1);
}
END_TEST

START_TEST(one_byte_of_each_extent_flipped)
{
	make_stream();
	for (size_t i = 1; i + 2 < n_bounds; i += 2) {
		size_t data = bounds[i + 1], size = bounds[i + 2] - data;

		refuse_flip(data, 1, false);
		refuse_flip(data + size / 2, 0x80, true);
		refuse_flip(data + size - 1, 4, false);
	}
	ck_assert_int_eq(receive(stream, stream_size, false), 0);
}
END_TEST

START_TEST(every_truncation)
{
	make_stream();
	for (size_t i = 0; i < n_bounds; i++)
		for (int beside = -1; beside <= 1; beside++) {
			size_t n = bounds[i] + (size_t)beside;

			if (n < stream_size && !receive(stream, n, i & 1))
				ck_abort_msg("cut at %zu of %zu, and accepted", n, stream_size);
		}
}
END_TEST

/* Extents that are whole but lost, doubled, or in another order: the chain tells. */
START_TEST(extents_rearranged)
{
	size_t a, b, c, n = 0;
	uint8_t *other;

	make_stream();
	a = bounds[3];
	b = bounds[5];
	c = bounds[7];
	other = tf_arena_alloc(&arena, 2 * stream_size);
	memcpy(other, stream, a);
	n = a;
	if (_i == 0) { /* exchanged */
		memcpy(other + n, stream + b, c - b);
		memcpy(other + n + c - b, stream + a, b - a);
		n += c - a;
	} else if (_i == 1) { /* doubled */
		memcpy(other + n, stream + a, b - a);
		memcpy(other + n + b - a, stream + a, c - a);
		n += b - a + c - a;
	} else { /* lost */
		memcpy(other + n, stream + b, c - b);
		n += c - b;
	}
	memcpy(other + n, stream + c, stream_size - c);
	n += stream_size - c;
	ck_assert_int_eq(receive(other, n, false), TF_REPORT_CHECKSUM);
}
END_TEST

/* What no mapping takes, with a right checksum. */
START_TEST(extent_outside)
{
	struct tf_extent x;
	size_t at;

	make_stream();
	at = bounds[3];
	memcpy(&x, stream + at, sizeof(x));
	switch (_i) {
	case 0: /* into the head again */
		x.offset = 0;
		break;
	case 1: /* across the end of what is there */
		x.offset = image.data_end - 1;
		x.size = 2;
		break;
	case 2:
		x.offset = UINT64_MAX - 1;
		break;
	case 3:
		x.size = 0;
		break;
	default:
		x.size = TF_EXTENT_MAX + 1;
	}
	x.crc = tf_extent_crc(x.offset, x.size < 2 ? x.size : 1, stream + at + sizeof(x));
	memcpy(stream + at, &x, sizeof(x));
	ck_assert_int_eq(receive(stream, stream_size, false), TF_REPORT_IMAGE);
}
END_TEST

/* More than the header promised. */
START_TEST(too_many_bytes)
{
	make_stream();
	max_bytes = 0x8000;
	ck_assert_int_eq(receive(stream, stream_size, false), TF_REPORT_IMAGE);
}
END_TEST

static size_t put_mark(uint8_t *to, uint32_t inside)
{
	struct tf_extent x = {.offset = TF_PACKED_OFFSET, .size = inside};

	memcpy(to, &x, sizeof(x));
	return sizeof(x);
}

/* Two sections, with an extent before, between and behind: the same arrives. */
START_TEST(sections_of_packed_extents)
{
	const size_t from[] = {5, 9}, to[] = {7, 11};
	size_t n = 0, at = 0;
	uint8_t *other;

	make_stream();
	other = tf_arena_alloc(&arena, 2 * stream_size);
	for (unsigned i = 0; i < 2; i++) {
		memcpy(other + n, stream + at, bounds[from[i]] - at);
		n += bounds[from[i]] - at;
		n += put_mark(other + n, 1);
		at = bounds[from[i]];
		memcpy(other + n, stream + at, bounds[to[i]] - at);
		n += bounds[to[i]] - at;
		n += put_mark(other + n, 0);
		at = bounds[to[i]];
	}
	memcpy(other + n, stream + at, stream_size - at);
	sections = 0;
	ck_assert_int_eq(receive(other, n + stream_size - at, false), 0);
	ck_assert_uint_eq(sections, 2);
	for (int i = 0; i < N_PIECES; i++) {
		uint64_t offset = image.segments[pieces[i].segment].offset + pieces[i].from;

		for (uint64_t k = 0; k < pieces[i].size && address_of(offset); k++)
			ck_assert_uint_eq(*address_of(offset + k), content(offset + k));
	}
}
END_TEST

START_TEST(header_says_why)
{
	struct tf_stream_header h;
	static const struct {
		size_t offset;
		int code;
	} cases[] = {{0, TELEFORK_E_PROTOCOL}, {7, TELEFORK_E_PROTOCOL}, {8, TELEFORK_E_VERSION},
		{12, TELEFORK_E_CHECKSUM}, {16, TELEFORK_E_CHECKSUM}, {32, TELEFORK_E_CHECKSUM},
		{36, TELEFORK_E_CHECKSUM}};

	make_stream();
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		memcpy(&h, stream, sizeof(h));
		((uint8_t *)&h)[cases[i].offset] ^= 1;
		e = (struct tf_err){0};
		ck_assert_int_eq(tf_stream_check_header(&h, &e), cases[i].code);
		ck_assert_int_eq(e.code, cases[i].code);
	}
	memcpy(&h, stream, sizeof(h));
	for (int i = 0; i < 2; i++) {
		h.head_size = i ? TF_MAX_HEAD + 1 : TF_HEAD_PEEK - 1;
		h.crc = tf_crc32c(0, &h, offsetof(struct tf_stream_header, crc));
		e = (struct tf_err){0};
		ck_assert_int_eq(tf_stream_check_header(&h, &e), TELEFORK_E_IMAGE);
	}
}
END_TEST

/* --- files --- */

/* What a receiver does with a saved image's table and extents. */
static int read_file(int fd)
{
	struct tf_table_header h;
	struct tf_extent *table;
	size_t mark = arena.used;
	int rc;

	e = (struct tf_err){0};
	rc = tf_table_read(fd, &image, &arena, &h, &table, &e);
	for (uint32_t i = 0; !rc && i < h.count; i++) {
		uint8_t *data = tf_arena_alloc(&arena, table[i].size);

		rc = tf_io_pread(fd, data, table[i].size, table[i].offset, &e);
		if (!rc && tf_extent_crc(table[i].offset, table[i].size, data) != table[i].crc)
			rc = TELEFORK_E_CHECKSUM;
	}
	memset(arena.base + mark, 0, arena.used - mark);
	arena.used = mark;
	return rc;
}

static void flip_file(int fd, uint64_t at, uint8_t mask)
{
	uint8_t byte;

	ck_assert_int_eq(pread(fd, &byte, 1, (off_t)at), 1);
	byte ^= mask;
	ck_assert_int_eq(pwrite(fd, &byte, 1, (off_t)at), 1);
}

START_TEST(file_damaged)
{
	int fd = new_file();
	uint64_t size;

	send_sample(fd, true);
	size = (uint64_t)lseek(fd, 0, SEEK_END);
	ck_assert_uint_eq(size, image.data_end + sizeof(struct tf_table_header) +
					(N_PIECES + 1) * sizeof(struct tf_extent));
	ck_assert_int_eq(read_file(fd), 0);
	for (uint64_t at = image.data_end; at < size; at++) {
		uint8_t mask = _i ? (uint8_t)(1u << at % 8) : 0xff;

		flip_file(fd, at, mask);
		if (!read_file(fd))
			ck_abort_msg("byte %llu flipped, and accepted", (unsigned long long)at);
		flip_file(fd, at, mask);
	}
	for (int i = 0; i < N_PIECES; i++) {
		uint64_t at = image.segments[pieces[i].segment].offset + pieces[i].from;

		flip_file(fd, at, 1);
		ck_assert_int_eq(read_file(fd), TELEFORK_E_CHECKSUM);
		flip_file(fd, at, 1);
	}
	ck_assert_int_eq(read_file(fd), 0);
	for (uint64_t n = size - 1; n >= image.data_end - 1; n--) {
		ck_assert_int_eq(ftruncate(fd, (off_t)n), 0);
		ck_assert_int_eq(read_file(fd), TELEFORK_E_IMAGE);
	}
	close(fd);
}
END_TEST

START_TEST(file_table_is_bounded)
{
	static struct tf_sink sink;
	struct tf_io io;
	int fd = new_file();

	tf_io_init(&io, fd, NULL);
	ck_assert_int_eq(tf_sink_begin(&sink, &io, true, &image, 0, 0, 2, &arena, &e), 0);
	ck_assert_int_eq(tf_sink_data(&sink, 0, head, 10, NULL, &e), 0);
	ck_assert_int_eq(tf_sink_data(&sink, 10, head, 10, NULL, &e), 0);
	ck_assert_int_eq(tf_sink_data(&sink, 20, head, 10, NULL, &e), TELEFORK_E_LIMIT);
	close(fd);
	e = (struct tf_err){0};
	arena.used = arena.size - 100;
	ck_assert_int_eq(
		tf_sink_begin(&sink, &io, true, &image, 0, 0, 1000, &arena, &e), TELEFORK_E_NOMEM);
}
END_TEST

/* --- the greeting --- */

/* What a receiver says is shown, not obeyed. */
START_TEST(greeting_commands_nobody)
{
	static const char text[] = "no \033[2J";
	int32_t answer[4] = {0, 0, TELEFORK_E_LIMIT, sizeof(text) - 1};
	struct tf_io io;
	int pair[2];

	memcpy(answer, "TFHELLO1", 8);
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	ck_assert_int_eq(write(pair[0], answer, sizeof(answer)), sizeof(answer));
	ck_assert_int_eq(write(pair[0], text, sizeof(text) - 1), sizeof(text) - 1);
	tf_io_init(&io, pair[1], NULL);
	ck_assert_int_eq(tf_greet_server(&io, NULL, NULL, NULL, &e), TELEFORK_E_LIMIT);
	ck_assert_str_eq(e.text, "no \\x1b[2J");
	close(pair[0]);
	close(pair[1]);
}
END_TEST

/* --- the answer --- */

START_TEST(replies)
{
	struct tf_reply r = {.code = TELEFORK_E_LIMIT, .pid = 77, .memory = 1, .received = 2}, got;
	char message[TELEFORK_MESSAGE_MAX], longest[2 * TELEFORK_MESSAGE_MAX];
	struct telefork_options o = {.idle_ms = 50};
	int pair[2];
	struct tf_io in, out;

	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	tf_io_init(&out, pair[0], NULL);
	tf_io_init(&in, pair[1], &o);
	ck_assert_int_eq(tf_reply_write(&out, &r, "too much", &e), 0);
	ck_assert_int_eq(tf_reply_read(&in, &got, message, &e), 0);
	ck_assert_str_eq(message, "too much");
	ck_assert_int_eq(got.code, r.code);
	ck_assert_int_eq(got.pid, 77);
	ck_assert_int_eq(tf_reply_write(&out, &r, "red\033[31m\nnext", &e), 0);
	ck_assert_int_eq(tf_reply_read(&in, &got, message, &e), 0);
	ck_assert_str_eq(message, "red\\x1b[31m\nnext");
	ck_assert_int_eq(tf_reply_write(&out, &r, NULL, &e), 0);
	ck_assert_int_eq(tf_reply_read(&in, &got, message, &e), 0);
	ck_assert_str_eq(message, "");
	memset(longest, 'x', sizeof(longest) - 1);
	longest[sizeof(longest) - 1] = '\0';
	ck_assert_int_eq(tf_reply_write(&out, &r, longest, &e), 0);
	ck_assert_int_eq(tf_reply_read(&in, &got, message, &e), 0);
	ck_assert_uint_eq(strlen(message), TELEFORK_MESSAGE_MAX - 1);
	for (int i = 0; i < 3; i++) {
		memcpy(got.magic, TF_REPLY_MAGIC, 8);
		got.magic[0] ^= i == 0;
		got.message_size = i == 1 ? TELEFORK_MESSAGE_MAX : 0;
		got.code = i == 2 ? 1 : 0;
		ck_assert_int_eq(write(pair[0], &got, sizeof(got)), sizeof(got));
		e = (struct tf_err){0};
		ck_assert_int_eq(tf_reply_read(&in, &got, message, &e), TELEFORK_E_PROTOCOL);
	}
	e = (struct tf_err){0};
	ck_assert_int_eq(tf_reply_read(&in, &got, message, &e), TELEFORK_E_TIMEOUT);
	close(pair[0]);
	e = (struct tf_err){0};
	ck_assert_int_eq(tf_reply_read(&in, &got, message, &e), TELEFORK_E_CLOSED);
	close(pair[1]);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("stream");
	TCase *t = tcase_create("stream");

	tcase_add_checked_fixture(t, set_up, tear_down);
	tcase_set_timeout(t, SUITE_LIMIT_S);
	tcase_add_loop_test(t, round_trip, 0, 4);
	tcase_add_test(t, sink_splits);
	tcase_add_loop_test(t, every_header_flipped, 0, 2);
	tcase_add_test(t, one_byte_of_each_extent_flipped);
	tcase_add_test(t, every_truncation);
	tcase_add_loop_test(t, extents_rearranged, 0, 3);
	tcase_add_loop_test(t, extent_outside, 0, 5);
	tcase_add_test(t, too_many_bytes);
	tcase_add_test(t, sections_of_packed_extents);
	tcase_add_test(t, header_says_why);
	tcase_add_loop_test(t, file_damaged, 0, 2);
	tcase_add_test(t, file_table_is_bounded);
	tcase_add_test(t, greeting_commands_nobody);
	tcase_add_test(t, replies);
	suite_add_tcase(s, t);
	return suite_run(s);
}
