/* SPDX-License-Identifier: MIT */
/*
 * The head of an image, both ways: round trips of both architectures on any host, golden bytes,
 * every byte flipped, every truncation, more mappings than an ELF header can count. Golden files
 * are written anew with TF_GOLDEN=write; sources are looked for in $TF_SRCDIR, or here.
 */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "core/base/host.h"
#include "core/image/file.h"
#include "core/image/notes.h"
#include "tests/unit/image_sample.h"
#include "tests/unit/suite.h"

#define ARENA ((size_t)256 << 20)

static struct tf_arena arena; /* lives as long as the test */
static struct tf_image image; /* a sample */
static uint8_t *head;         /* its head */

static const uint32_t machines[] = {EM_X86_64, EM_AARCH64};

/* A check that holds costs nothing: libcheck writes a file at each of its own, and these are made
 * millions of times. */
#define must(x)                                         \
	do {                                            \
		if (!(x))                               \
			ck_abort_msg("broken: %s", #x); \
	} while (0)

static void set_up(void)
{
	ck_assert_int_eq(tf_arena_init(&arena, ARENA), 0);
}

static void tear_down(void)
{
	tf_arena_done(&arena);
}

static void make(uint32_t machine, uint32_t page, uint32_t threads)
{
	ck_assert_int_eq(sample_image(&image, &arena, machine, page, threads), 0);
	ck_assert_int_eq(tf_image_encode(&image, &arena, &head), 0);
}

/* Gives back what was allocated behind mark, zeroed as tf_arena_alloc() promises. */
static void rewind_arena(size_t mark)
{
	memset(arena.base + mark, 0, arena.used - mark);
	arena.used = mark;
}

/* --- comparing --- */

static void assert_same_record(const struct tf_kind *k, const void *a, const void *b)
{
	for (uint32_t i = 0; i < k->n_fields; i++) {
		const struct tf_field *f = &k->fields[i];

		if (tf_field_string(f, a)) {
			must(!strcmp(tf_field_string(f, a), tf_field_string(f, b)));
			continue;
		}
		for (unsigned n = 0; n < f->count; n++)
			if (tf_field_number(f, a, n) != tf_field_number(f, b, n))
				ck_abort_msg("%s.%s[%u]", k->name, f->name, n);
	}
}

static void assert_same_regs(const struct tf_regs *a, const struct tf_regs *b)
{
	ck_assert_uint_eq(a->n, b->n);
	for (uint32_t i = 0; i < a->n; i++) {
		ck_assert_uint_eq(a->set[i].type, b->set[i].type);
		ck_assert_uint_eq(a->set[i].size, b->set[i].size);
		ck_assert_mem_eq(a->set[i].data, b->set[i].data, a->set[i].size);
	}
}

static void assert_same(const struct tf_image *a, const struct tf_image *b)
{
	for (size_t i = 0; i < tf_n_kinds; i++) {
		const struct tf_kind *k = &tf_kinds[i];

		ck_assert_uint_eq(tf_kind_count(k, a), tf_kind_count(k, b));
		for (uint32_t n = 0; n < tf_kind_count(k, a); n++)
			assert_same_record(k, tf_kind_item(k, a, n), tf_kind_item(k, b, n));
	}
	for (uint32_t i = 0; i < a->n_threads; i++)
		assert_same_regs(&a->threads[i].regs, &b->threads[i].regs);
	ck_assert_uint_eq(a->n_auxv, b->n_auxv);
	ck_assert_mem_eq(a->auxv, b->auxv, (size_t)a->n_auxv * 16);
	ck_assert_uint_eq(a->n_segments, b->n_segments);
	ck_assert_mem_eq(a->segments, b->segments, a->n_segments * sizeof(*a->segments));
	ck_assert_uint_eq(a->head_size, b->head_size);
	ck_assert_uint_eq(a->data_end, b->data_end);
}

/* What image.h promises of a decoded image, checked in another way than the decoder does. */
static void assert_invariants(const struct tf_image *img)
{
	uint64_t page = img->source.page_size, offset = img->head_size;
	const struct tf_arch *arch = tf_arch_by_machine(img->source.machine);
	uint32_t n = 0;

	must(arch);
	must(page == 4096 || page == 16384 || page == 65536);
	must(img->n_threads && (!img->n_sigactions || img->n_sigactions == TF_SIGNALS));
	for (uint32_t i = 0; i < img->n_maps; i++) {
		const struct tf_map *m = &img->maps[i];
		uint64_t at = m->start;

		must(m->start < m->end && m->start % page == 0 && m->end % page == 0);
		must(!i || m->start >= m[-1].end);
		must(m->end <= (uint64_t)1 << arch->max_user_bits);
		must(m->data_end >= m->start && m->data_end <= m->end);
		must(m->kind < TF_MAP_KINDS && m->prot < 8 && m->path);
		for (; at < m->end; n++) {
			const struct tf_segment *s = &img->segments[n];

			must(n < img->n_segments && s->vaddr == at && s->memsz);
			must(s->filesz <= s->memsz && s->offset == offset);
			must(!s->filesz || at + s->filesz <= m->data_end);
			at += s->memsz;
			offset += s->filesz;
		}
		must(at == m->end);
	}
	must(n == img->n_segments);
	must(offset == img->data_end);
	for (uint32_t i = 0; i < img->n_threads; i++)
		must(tf_regs_find(&img->threads[i].regs, NT_PRSTATUS));
}

/* --- tests --- */

START_TEST(round_trip)
{
	static const uint32_t pages[] = {4096, 16384, 65536};
	struct tf_image out, again;
	struct tf_err e = {0};
	uint32_t machine;
	uint64_t size;
	uint8_t *bytes;

	make(machines[_i % 2], pages[_i / 2], 1 + (uint32_t)_i);
	ck_assert_int_eq(tf_image_peek(head, &machine, &size, &e), 0);
	ck_assert_uint_eq(machine, machines[_i % 2]);
	ck_assert_uint_eq(size, image.head_size);
	ck_assert_msg(!tf_image_decode(&out, &arena, head, size, &e), "%s", e.text);
	assert_same(&image, &out);
	assert_invariants(&out);
	again = out;
	ck_assert_int_eq(tf_image_encode(&again, &arena, &bytes), 0);
	ck_assert_uint_eq(again.head_size, size);
	ck_assert_mem_eq(bytes, head, size);
}
END_TEST

START_TEST(kernel_note_sizes)
{
	static const struct {
		uint32_t machine, prstatus;
	} expected[] = {{EM_X86_64, 336}, {EM_AARCH64, 392}};
	const Elf64_Ehdr *eh;
	const Elf64_Phdr *ph;
	unsigned seen = 0;
	uint64_t at;

	make(expected[_i].machine, 4096, 2);
	eh = (const void *)head;
	ph = (const void *)(head + eh->e_phoff);
	ck_assert_uint_eq(ph->p_type, PT_NOTE);
	for (at = ph->p_offset; at < ph->p_offset + ph->p_filesz;) {
		const Elf64_Nhdr *nh = (const void *)(head + at);
		const char *owner = (const char *)(nh + 1);

		if (!strcmp(owner, "CORE") && nh->n_type == NT_PRSTATUS) {
			ck_assert_uint_eq(nh->n_descsz, expected[_i].prstatus);
			seen++;
		}
		if (!strcmp(owner, "CORE") && nh->n_type == NT_PRPSINFO)
			ck_assert_uint_eq(nh->n_descsz, 136);
		at += sizeof(*nh) + ((nh->n_namesz + 3) & ~3u) + ((nh->n_descsz + 3) & ~3u);
	}
	ck_assert_uint_eq(at, ph->p_offset + ph->p_filesz);
	ck_assert_uint_eq(seen, 2);
}
END_TEST

START_TEST(golden)
{
	const char *name = tf_arch_by_machine(machines[_i])->name;
	const char *dir = getenv("TF_SRCDIR"), *mode = getenv("TF_GOLDEN");
	bool writing = mode && !strcmp(mode, "write");
	static uint8_t bytes[65536];
	struct tf_image out;
	struct tf_err e = {0};
	char path[4096];
	size_t n;
	FILE *f;

	make(machines[_i], 4096, 2);
	snprintf(path, sizeof(path), "%s/tests/golden/head-%s.bin", dir ? dir : ".", name);
	f = fopen(path, writing ? "w" : "r");
	ck_assert_msg(f, "%s: cannot be opened (set TF_SRCDIR)", path);
	if (writing)
		ck_assert_uint_eq(fwrite(head, 1, image.head_size, f), image.head_size);
	n = writing ? image.head_size : fread(bytes, 1, sizeof(bytes), f);
	ck_assert_int_eq(fclose(f), 0);
	ck_assert_uint_eq(n, image.head_size);
	if (writing)
		return;
	ck_assert_mem_eq(bytes, head, n);
	ck_assert_msg(!tf_image_decode(&out, &arena, bytes, n, &e), "%s", e.text);
	assert_same(&image, &out);
}
END_TEST

/* Decodes a changed head: an error, or an image that still holds to everything. */
static int decode_changed(const uint8_t *bytes, size_t n)
{
	size_t mark = arena.used;
	struct tf_err e = {0};
	struct tf_image out;
	int r = tf_image_decode(&out, &arena, bytes, n, &e);

	if (r) {
		must(r == e.code);
		must(r == TELEFORK_E_IMAGE || r == TELEFORK_E_VERSION);
		must(strstr(e.text, "offset") || r == TELEFORK_E_VERSION);
	} else {
		assert_invariants(&out);
	}
	rewind_arena(mark);
	return r;
}

/* Heads of both architectures are decoded by both builds: under an emulator, which is slow, every
 * seventh byte is enough. */
static unsigned step_of_bytes(void)
{
	return tf_host_emulated() ? 7 : 1;
}

/* Each byte whole, and one bit of it in turn. */
START_TEST(every_byte_flipped)
{
	unsigned refused = 0, step = step_of_bytes();

	make(machines[_i % 2], 4096, 2);
	for (size_t i = 0; i < image.head_size; i += step) {
		uint8_t mask = _i / 2 ? (uint8_t)(1u << i % 8) : 0xff;

		head[i] ^= mask;
		refused += decode_changed(head, image.head_size) != 0;
		head[i] ^= mask;
	}
	ck_assert_uint_gt(refused, 1000 / step);
	ck_assert_int_eq(decode_changed(head, image.head_size), 0);
}
END_TEST

/* The head of every other length, and heads whose notes claim to end at every possible place. */
START_TEST(every_truncation)
{
	uint8_t *bytes;
	uint64_t notes, size;

	make(machines[_i], 4096, 2);
	for (size_t n = 0; n < image.head_size; n += step_of_bytes())
		must(decode_changed(head, n));
	memcpy(&notes, head + 128 + 8, 8);
	memcpy(&size, head + 128 + 32, 8);
	bytes = tf_arena_alloc(&arena, image.head_size);
	for (uint64_t n = 0; n < size; n += step_of_bytes()) {
		uint64_t end = (notes + n + 4095) & ~(uint64_t)4095;

		memset(bytes, 0, image.head_size);
		memcpy(bytes, head, notes + n);
		sample_u64(bytes + 128 + 32, n);
		must(decode_changed(bytes, end));
	}
}
END_TEST

/* n mappings of two pages with a page between them; the first page of every other one is present.
 */
static void make_many(uint32_t n, uint32_t machine)
{
	struct tf_run *runs = tf_arena_array(&arena, n, sizeof(*runs));
	size_t n_runs = 0;

	ck_assert_int_eq(sample_image(&image, &arena, machine, 4096, 1), 0);
	image.vdso = (struct tf_vdso){0};
	image.n_known = 0; /* was of the sample's mappings */
	image.n_signatures = image.n_tags = 0;
	image.n_maps = n;
	image.maps = tf_arena_array(&arena, n, sizeof(*image.maps));
	for (uint32_t i = 0; i < n; i++) {
		uint64_t start = 0x10000000 + (uint64_t)i * 0x3000;

		image.maps[i] = (struct tf_map){.start = start,
			.end = start + 0x2000,
			.data_end = start + 0x2000,
			.prot = PROT_READ,
			.path = ""};
		if (i % 2)
			runs[n_runs++] = (struct tf_run){start, start + 0x1000};
	}
	ck_assert_int_eq(tf_image_make_segments(&image, &arena, runs, n_runs, 1 << 20), 0);
	ck_assert_int_eq(tf_image_encode(&image, &arena, &head), 0);
}

START_TEST(many_mappings)
{
	static const uint32_t counts[] = {65533, 65534, 65535, 70001};
	uint32_t n = counts[_i];
	const Elf64_Ehdr *eh;
	const Elf64_Shdr *sh;
	struct tf_image out;
	struct tf_err e = {0};

	make_many(n, machines[_i % 2]);
	eh = (const void *)head;
	sh = (const void *)(head + eh->e_shoff);
	ck_assert_uint_eq(eh->e_phnum, n + 1 < PN_XNUM ? n + 1 : PN_XNUM);
	ck_assert_uint_eq(sh->sh_info, n + 1 < PN_XNUM ? 0 : n + 1);
	ck_assert_msg(!tf_image_decode(&out, &arena, head, image.head_size, &e), "%s", e.text);
	assert_same(&image, &out);
	assert_invariants(&out);
}
END_TEST

/* --- segments and files --- */

START_TEST(segments_split)
{
	static const struct tf_run runs[] = {
		{0x10000, 0x11000}, {0x13000, 0x14000}, {0x40000, 0x41000}};
	static const struct tf_segment expected[] = {
		{0x10000, 0x4000, 0x4000, 0, 1},
		{0x14000, 0x2c000, 0, 0, 1},
		{0x40000, 0x1000, 0x1000, 0, 1},
		{0x41000, 0x3f000, 0, 0, 1},
	};
	struct tf_map map = {.start = 0x10000, .end = 0x80000, .data_end = 0x80000, .prot = 1};
	struct tf_image img = {.source = {.page_size = 4096}, .n_maps = 1, .maps = &map};

	ck_assert_int_eq(tf_image_make_segments(&img, &arena, runs, 3, 0x2000), 0);
	ck_assert_uint_eq(img.n_segments, 4);
	ck_assert_mem_eq(img.segments, expected, sizeof(expected));
	ck_assert_int_eq(tf_image_make_segments(&img, &arena, runs, 3, UINT64_MAX), 0);
	ck_assert_uint_eq(img.n_segments, 1);
	ck_assert_uint_eq(img.segments[0].filesz, 0x31000);
	ck_assert_int_eq(tf_image_make_segments(&img, &arena, NULL, 0, 0), 0);
	ck_assert_uint_eq(img.n_segments, 1);
	ck_assert_uint_eq(img.segments[0].filesz, 0);
	map.data_end = 0x40000;
	ck_assert_int_eq(tf_image_make_segments(&img, &arena, runs, 3, 0), TELEFORK_E_INVAL);
	map.kind = TF_MAP_VVAR;
	ck_assert_int_eq(tf_image_make_segments(&img, &arena, runs, 1, 0), TELEFORK_E_INVAL);
}
END_TEST

START_TEST(offsets_and_addresses)
{
	uint64_t room, next = 0;

	make(machines[_i], 4096, 1);
	for (uint32_t i = 0; i < image.n_segments; i++) {
		const struct tf_segment *s = &image.segments[i];

		ck_assert_uint_eq(s->offset % 4096, s->vaddr % 4096);
		ck_assert_uint_eq(tf_image_offset(&image, s->vaddr - 1) != UINT64_MAX,
			i && s[-1].filesz == s[-1].memsz && s[-1].vaddr + s[-1].memsz == s->vaddr);
		ck_assert_uint_eq(tf_image_offset(&image, s->vaddr + s->filesz) != UINT64_MAX,
			i + 1 < image.n_segments && s[1].vaddr == s->vaddr + s->filesz &&
				s[1].filesz);
		for (uint64_t n = 0; n < s->filesz; n += 4095) {
			must(tf_image_offset(&image, s->vaddr + n) == s->offset + n);
			must(tf_image_address(&image, s->offset + n, &room) == s->vaddr + n);
			must(room == s->filesz - n);
		}
		next = s->offset + s->filesz;
	}
	ck_assert_uint_eq(next, image.data_end);
	ck_assert_uint_eq(tf_image_address(&image, next, NULL), UINT64_MAX);
	ck_assert_uint_eq(tf_image_address(&image, image.head_size - 1, NULL), UINT64_MAX);
	ck_assert_ptr_eq(tf_image_map_at(&image, image.maps[0].end - 1), &image.maps[0]);
	ck_assert_ptr_null(tf_image_map_at(&image, image.maps[0].end));
	ck_assert_ptr_null(tf_image_map_at(&image, 0));
}
END_TEST

/* Memory that would come later, but for what is in mappings of files that are there. */
START_TEST(known_files_need_not_come)
{
	struct tf_map maps[] = {{.start = 0x1000, .end = 0x3000}, {.start = 0x3000, .end = 0x5000},
		{.start = 0x5000, .end = 0x8000}, {.start = 0x9000, .end = 0xa000}};
	struct tf_run later[] = {{0x1000, 0x2000}, {0x3000, 0x4000}, {0x4000, 0x5000},
		{0x5000, 0x6000}, {0x7000, 0x8000}, {0x9000, 0xa000}};
	const struct tf_known known[] = {{.map = 1}, {.map = 3}};

	image = (struct tf_image){.maps = maps, .n_maps = 4, .later = later, .n_later = 6};
	ck_assert_uint_eq(tf_image_drop_later(&image, known, 0), 0);
	ck_assert_uint_eq(image.n_later, 6);
	ck_assert_uint_eq(tf_image_drop_later(&image, known, 2), 0x3000);
	ck_assert_uint_eq(image.n_later, 3);
	ck_assert_uint_eq(later[0].start, 0x1000);
	ck_assert_uint_eq(later[1].start, 0x5000);
	ck_assert_uint_eq(later[2].start, 0x7000);
	ck_assert_uint_eq(
		tf_image_drop_later(&image, (struct tf_known[]){{.map = 0}, {.map = 2}}, 2),
		0x3000);
	ck_assert_uint_eq(image.n_later, 0);
}
END_TEST

/* Of which memory all comes later: in one run, in several, over its end; not of what lacks a page.
 */
START_TEST(memory_that_waits)
{
	struct tf_map maps[] = {{.start = 0x1000, .end = 0x4000}, {.start = 0x4000, .end = 0x8000},
		{.start = 0x8000, .end = 0x9000}, {.start = 0x9000, .end = 0xb000},
		{.start = 0xb000, .end = 0xc000}};
	struct tf_segment segments[] = {{.vaddr = 0x1000, .filesz = 0x2000, .memsz = 0x3000},
		{.vaddr = 0x4000, .filesz = 0x1000, .memsz = 0x2000},
		{.vaddr = 0x6000, .filesz = 0x2000, .memsz = 0x2000},
		{.vaddr = 0x8000, .filesz = 0x1000, .memsz = 0x1000},
		{.vaddr = 0x9000, .filesz = 0x2000, .memsz = 0x2000},
		{.vaddr = 0xb000, .filesz = 0, .memsz = 0x1000}};
	struct tf_run later[] = {{0x1000, 0x2000}, {0x2000, 0x3000}, {0x4000, 0x5000},
		{0x6000, 0x7000}, {0x7000, 0x9000}, {0xa000, 0xb000}};
	const bool waits[] = {true, true, true, false, true};

	image = (struct tf_image){.maps = maps,
		.n_maps = 5,
		.segments = segments,
		.n_segments = 6,
		.later = later,
		.n_later = 6};
	tf_image_note_waiting(&image);
	for (unsigned i = 0; i < 5; i++)
		ck_assert_msg(maps[i].waits == waits[i], "mapping %u", i);
	image.n_later = 5; /* its last page */
	segments[4].filesz = 0x1000;
	tf_image_note_waiting(&image);
	ck_assert(!maps[3].waits);
	image.n_later = 3;
	tf_image_note_waiting(&image);
	ck_assert(maps[0].waits && !maps[1].waits && !maps[2].waits);
}
END_TEST

START_TEST(file_reads_memory)
{
	char path[] = "/tmp/test_image.XXXXXX", text[] = "across", got[0x3000];
	int fd = mkstemp(path);
	struct tf_err e = {0};
	struct tf_file f;

	make(machines[_i], 4096, 1);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(pwrite(fd, head, image.head_size, 0), (ssize_t)image.head_size);
	ck_assert_int_eq(tf_file_open(&f, path, &e), TELEFORK_E_IMAGE);
	ck_assert_msg(strstr(e.text, "truncated"), "%s", e.text);
	ck_assert_int_eq(ftruncate(fd, (off_t)image.data_end), 0);
	ck_assert_int_eq(
		pwrite(fd, text, sizeof(text), (off_t)tf_image_offset(&image, 0x7f00001ffffd)),
		sizeof(text));
	e.code = 0;
	ck_assert_msg(!tf_file_open(&f, path, &e), "%s", e.text);
	assert_same(&image, &f.image);
	/* From the stack's last bytes into vvar, which is mapped and has no bytes. */
	memset(got, 1, sizeof(got));
	ck_assert_int_eq(tf_file_read(&f, 0x7f00001ffffd, got, 16), 16);
	ck_assert_mem_eq(got, "acr\0\0\0\0\0\0\0\0\0\0\0\0", 16);
	ck_assert_int_eq(tf_file_read(&f, 0x43f000, got, sizeof(got)), sizeof(got));
	ck_assert_int_eq(tf_file_read(&f, 0x41fff0, got, 17), TELEFORK_E_INVAL);
	ck_assert_int_eq(tf_file_read(&f, UINT64_MAX - 3, got, 16), TELEFORK_E_INVAL);
	ck_assert_int_eq(tf_file_read(&f, 0x410000, got, 0), 0);
	tf_file_close(&f);
	tf_file_close(&f);
	unlink(path);
	ck_assert_int_eq(tf_file_open(&f, path, &e), TELEFORK_E_IO);
	close(fd);
}
END_TEST

START_TEST(encoder_refuses)
{
	char longest[TF_MAX_STR + 2];

	make(EM_X86_64, 4096, 1);
	memset(longest, 'a', sizeof(longest) - 1);
	longest[0] = '/';
	longest[sizeof(longest) - 1] = '\0';
	image.maps[0].path = longest;
	ck_assert_int_eq(tf_image_encode(&image, &arena, &head), TELEFORK_E_LIMIT);
	longest[TF_MAX_STR] = '\0';
	ck_assert_int_eq(tf_image_encode(&image, &arena, &head), 0);
	ck_assert_int_eq(decode_changed(head, image.head_size), 0);
	image.source.machine = EM_SPARC;
	ck_assert_int_eq(tf_image_encode(&image, &arena, &head), TELEFORK_E_INVAL);
	image.source.machine = EM_X86_64;
	image.threads[0].regs.n = 0;
	ck_assert_int_eq(tf_image_encode(&image, &arena, &head), TELEFORK_E_INVAL);
	make(EM_X86_64, 4096, 1);
	arena.size = arena.used + 100;
	ck_assert_int_eq(tf_image_encode(&image, &arena, &head), TELEFORK_E_NOMEM);
	arena.size = ARENA;
}
END_TEST

int main(void)
{
	Suite *s = suite_create("image");
	TCase *t = tcase_create("image");

	tcase_add_checked_fixture(t, set_up, tear_down);
	tcase_set_timeout(t, SUITE_LIMIT_S);
	tcase_add_loop_test(t, round_trip, 0, 6);
	tcase_add_loop_test(t, kernel_note_sizes, 0, 2);
	tcase_add_loop_test(t, golden, 0, 2);
	tcase_add_loop_test(t, every_byte_flipped, 0, 4);
	tcase_add_loop_test(t, every_truncation, 0, 2);
	tcase_add_loop_test(t, many_mappings, 0, 4);
	tcase_add_test(t, segments_split);
	tcase_add_loop_test(t, offsets_and_addresses, 0, 2);
	tcase_add_test(t, known_files_need_not_come);
	tcase_add_test(t, memory_that_waits);
	tcase_add_loop_test(t, file_reads_memory, 0, 2);
	tcase_add_test(t, encoder_refuses);
	suite_add_tcase(s, t);
	return suite_run(s);
}
