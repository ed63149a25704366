/* SPDX-License-Identifier: MIT */
/*
 * Images made to do harm, sent to a receiver: it says what is wrong with them before anything is
 * torn down, to the sender, too, and holds what it held. Whatever may be believed is checked: the
 * worst is a process that this user could have started anyway.
 */
#include "tests/unit/line.h"

#include <elf.h>
#include <sys/stat.h>

static void line_open(struct line *l)
{
	struct order order = {.options.idle_ms = 5000};
	int fd[2];

	ck_assert(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd));
	*l = (struct line){.fd = fd[0]};
	l->receiver = receiver_start(fd[1], &order, &l->talk);
	close(fd[1]);
}

/* Both were told the same. */
static void line_refused(struct line *l, int code, const char *what)
{
	char message[TELEFORK_MESSAGE_MAX];
	struct tf_err e = {0};
	struct tf_reply reply;
	struct tf_io io;
	int rc;

	tf_io_init(&io, l->fd, NULL);
	rc = tf_reply_read(&io, &reply, message, &e);
	ck_assert_msg(!rc, "%s: no answer: %s", what, e.text);
	close(l->fd);
	receiver_end(l->receiver, l->talk);
	ck_assert_msg(reply.code == code, "%s: told %d: %s", what, reply.code, message);
	ck_assert_msg(report.pid == code, "%s: receiver: %d", what, report.pid);
	ck_assert_str_eq(report.result.message, message);
	ck_assert_msg(message[0], "%s: no word", what);
	ck_assert_msg(!report.differs[0], "%s: receiver: %s", what, report.differs);
}

/* --- images --- */

static void maps_overlap(void)
{
	image.maps[1].start = image.maps[0].start;
}

static void map_backwards(void)
{
	image.maps[0].end = image.maps[0].start;
}

static void map_in_the_kernel(void)
{
	image.maps[image.n_maps - 1].end = UINT64_C(1) << 63;
}

static void map_unaligned(void)
{
	image.maps[0].start++;
}

static void map_of_a_strange_kind(void)
{
	image.maps[0].kind = 77;
}

static void map_data_outside(void)
{
	image.maps[0].data_end = image.maps[0].end + image.source.page_size;
}

static void segment_elsewhere(void)
{
	image.segments[0].vaddr = UINT64_C(0x100000000000);
}

static void segment_grown(void)
{
	image.segments[0].memsz += (uint64_t)1 << 40;
}

static void vdso_over_the_restorer(void)
{
	image.vdso.base = UINT64_C(0x1ffffff00000);
	image.vdso.size = 0x1000;
	image.vdso.vvar_base = image.vdso.vvar_size = 0;
	image.vdso.n_symbols = 0;
}

static void channel_out_of_reach(void)
{
	image.source.channel_fd = INT32_MAX;
}

static void held_out_of_reach(void)
{
	static struct tf_fd fd = {.fd = INT32_MAX - 1, .path = ""};

	image.fds = &fd;
	image.n_fds = 1;
}

static void descriptors_twice(void)
{
	static struct tf_fd fd[2] = {{.fd = 7, .path = ""}, {.fd = 7, .path = ""}};

	image.fds = fd;
	image.n_fds = 2;
}

static void other_page_size(void)
{
	image.source.page_size = 16384;
}

static void what_a_yoyo_changed(void)
{
	image.source.origin = TF_ORIGIN_RETURN;
}

static void negative_tid(void)
{
	image.threads[0].tid = -1;
}

START_TEST(images)
{
	static const struct {
		void (*spoil)(void);
		int code;
		const char *what;
	} kind[] = {
#define K(fn, code) {fn, TELEFORK_E_##code, #fn}
		K(maps_overlap, IMAGE),
		K(map_backwards, IMAGE),
		K(map_in_the_kernel, IMAGE),
		K(map_unaligned, IMAGE),
		K(map_of_a_strange_kind, IMAGE),
		K(map_data_outside, IMAGE),
		K(segment_elsewhere, IMAGE),
		K(segment_grown, IMAGE),
		K(vdso_over_the_restorer, IMAGE),
		K(channel_out_of_reach, LIMIT),
		K(held_out_of_reach, LIMIT),
		K(descriptors_twice, IMAGE),
		K(other_page_size, IMAGE),
		K(what_a_yoyo_changed, INCOMPATIBLE),
		K(negative_tid, IMAGE),
#undef K
	};
	struct tf_map *maps = image.maps;
	struct tf_segment *segments = image.segments;
	struct tf_thread *threads = image.threads;
	struct tf_image good = image;

	for (size_t i = 0; i < sizeof(kind) / sizeof(*kind); i++) {
		struct line l;

		image = good;
		image.maps = tf_arena_dup(&arena, maps, image.n_maps * sizeof(*maps));
		image.segments =
			tf_arena_dup(&arena, segments, image.n_segments * sizeof(*segments));
		image.threads = tf_arena_dup(&arena, threads, sizeof(*threads));
		kind[i].spoil();
		encode();
		line_open(&l);
		put_head(&l, head, image.head_size);
		line_refused(&l, kind[i].code, kind[i].what);
	}
}
END_TEST

/* --- bytes of the head --- */

/* Where a note of that type has its descriptor; 0: nowhere. */
static uint64_t note_at(uint32_t type)
{
	const Elf64_Ehdr *ehdr = (const Elf64_Ehdr *)(void *)head;
	const Elf64_Phdr *phdr = (const Elf64_Phdr *)(void *)(head + ehdr->e_phoff);
	uint64_t at = phdr->p_offset, end = at + phdr->p_filesz;

	while (at + sizeof(Elf64_Nhdr) <= end) {
		const Elf64_Nhdr *n = (const Elf64_Nhdr *)(void *)(head + at);

		at += sizeof(*n) + ((n->n_namesz + 3u) & ~3u);
		if (n->n_type == type)
			return at;
		at += (n->n_descsz + 3u) & ~3u;
	}
	return 0;
}

static void spoiled_word(uint64_t at, uint32_t value, int code, const char *what)
{
	struct line l;

	encode();
	memcpy(head + at, &value, sizeof(value));
	line_open(&l);
	put_head(&l, head, image.head_size);
	line_refused(&l, code, what);
}

START_TEST(counts_and_versions)
{
	static const uint32_t types[] = {
		0x54460005, 0x54460006, 0x54460007, 0x54460008, 0x54460009};

	encode();
	for (size_t i = 0; i < sizeof(types) / sizeof(*types); i++) {
		uint64_t at = note_at(types[i]);

		ck_assert_uint_gt(at, 0);
		spoiled_word(at + 4, UINT32_MAX, TELEFORK_E_IMAGE, "a count of four milliards");
		spoiled_word(at + 4, 0x00ffffff, TELEFORK_E_IMAGE, "a count of 16 millions");
	}
	spoiled_word(note_at(0x54460001), 99, TELEFORK_E_VERSION, "another format");
	spoiled_word(56, 0xfffe, TELEFORK_E_IMAGE, "65,534 program headers");
}
END_TEST

/* --- the stream --- */

START_TEST(headers)
{
	struct line l;

	line_open(&l);
	put_header(&l, (uint64_t)1 << 40, TELEFORK_FORMAT);
	line_refused(&l, TELEFORK_E_IMAGE, "a head of a TiB");
	line_open(&l);
	put_header(&l, 0, TELEFORK_FORMAT);
	line_refused(&l, TELEFORK_E_IMAGE, "no head");
	line_open(&l);
	put_header(&l, 1 << 20, TELEFORK_FORMAT + 1);
	line_refused(&l, TELEFORK_E_VERSION, "another version");
}
END_TEST

static void begin(struct line *l)
{
	encode();
	line_open(l);
	put_head(l, head, image.head_size);
}

START_TEST(extents)
{
	static uint8_t page[65536];
	uint64_t first = image.head_size;
	struct tf_extent x = {0};
	struct line l;

	begin(&l);
	put_extent(&l, image.data_end, 4096, page);
	line_refused(&l, TELEFORK_E_IMAGE, "behind the end");
	begin(&l);
	put_extent(&l, 0, 4096, page);
	line_refused(&l, TELEFORK_E_IMAGE, "the head again");
	begin(&l);
	put_extent(&l, first - 8, 4096, page);
	line_refused(&l, TELEFORK_E_IMAGE, "half in the head");
	begin(&l);
	put_extent(&l, UINT64_MAX - 4000, 4096, page);
	line_refused(&l, TELEFORK_E_IMAGE, "around the end of all numbers");
	begin(&l);
	x = (struct tf_extent){first, 0, 0};
	put(&l, &x, sizeof(x));
	line_refused(&l, TELEFORK_E_IMAGE, "empty");
	begin(&l);
	x = (struct tf_extent){first, UINT32_MAX, 0};
	put(&l, &x, sizeof(x));
	line_refused(&l, TELEFORK_E_IMAGE, "4 GiB");
	begin(&l);
	for (uint64_t sent = 0; sent <= image.data_end; sent += 4096)
		put_extent(&l, first, 4096, page);
	line_refused(&l, TELEFORK_E_IMAGE, "one page again and again");
	begin(&l);
	x = (struct tf_extent){TF_TRAILER_OFFSET, l.count + 1, l.chain};
	put(&l, &x, sizeof(x));
	line_refused(&l, TELEFORK_E_CHECKSUM, "one extent is missing");
}
END_TEST

int main(int argc, char **argv)
{
	const TTest *const tests[] = {images, counts_and_versions, headers, extents};

	return sides_main(argc, argv,
		sides_suite("hostile", set_up, NULL, tests, sizeof(tests) / sizeof(*tests)));
}
