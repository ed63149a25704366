/* SPDX-License-Identifier: MIT */
/*
 * core/base: the parser of /proc/PID/maps and smaps on texts that kernels and emulators write and
 * on ones that nobody should, CRC32C in both ways, and the time limits of input and output. What
 * errors of the system can be had on any machine (a closed peer, a full pipe, a short file) is
 * provoked.
 */
#include <check.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "arch/arch.h"
#include "core/base/crc32c.h"
#include "core/base/host.h"
#include "core/base/io.h"
#include "core/base/maps.h"
#include "core/telefork_internal.h"
#include "tests/unit/suite.h"

static struct tf_arena arena;
static struct tf_map *maps;
static uint32_t n_maps;
static struct tf_err e;

static void set_up(void)
{
	ck_assert_int_eq(tf_arena_init(&arena, (size_t)256 << 20), 0);
	e = (struct tf_err){0};
}

static void tear_down(void)
{
	tf_arena_done(&arena);
}

static int parse(const char *text)
{
	return tf_maps_parse(&arena, text, strlen(text), &maps, &n_maps, &e);
}

static const struct tf_map *parse_one(const char *text)
{
	ck_assert_msg(!parse(text), "%s", e.text);
	ck_assert_uint_eq(n_maps, 1);
	return maps;
}

/* --- mappings --- */

START_TEST(maps_fields)
{
	const struct tf_map *m = parse_one(
		"7f0000001000-7f0000003000 rw-s 0000a000 fe:12 1234567    /usr/lib/libc.so.6\n");

	ck_assert_uint_eq(m->start, 0x7f0000001000);
	ck_assert_uint_eq(m->end, 0x7f0000003000);
	ck_assert_uint_eq(m->data_end, m->end);
	ck_assert_uint_eq(m->prot, PROT_READ | PROT_WRITE);
	ck_assert_uint_eq(m->flags, TF_MAP_SHARED);
	ck_assert_uint_eq(m->offset, 0xa000);
	ck_assert_uint_eq(m->dev, (uint64_t)0xfe << 32 | 0x12);
	ck_assert_uint_eq(m->ino, 1234567);
	ck_assert_uint_eq(m->kind, TF_MAP_FILE);
	ck_assert_str_eq(m->path, "/usr/lib/libc.so.6");
	m = parse_one("1000-2000 --xp 00000000 00:00 0 \n");
	ck_assert_uint_eq(m->prot, PROT_EXEC);
	ck_assert_uint_eq(m->flags, 0);
	ck_assert_uint_eq(m->kind, TF_MAP_ANON);
	ck_assert_str_eq(m->path, "");
}
END_TEST

/* proc(5): a newline in a name is shown as \012, everything else as it is. */
START_TEST(maps_paths)
{
	static const struct {
		const char *line, *path;
		uint32_t kind;
	} cases[] = {
		{"00:00 0", "", TF_MAP_ANON},
		{"00:00 0    ", "", TF_MAP_ANON},
		{"00:00 0    [heap]", "[heap]", TF_MAP_HEAP},
		{"00:00 0    [stack]", "[stack]", TF_MAP_STACK},
		{"00:00 0    [stack:77]", "[stack:77]", TF_MAP_ANON},
		{"00:00 0    [vdso]", "[vdso]", TF_MAP_VDSO},
		{"00:00 0    [vvar]", "[vvar]", TF_MAP_VVAR},
		{"00:00 0    [vvar_vclock]", "[vvar_vclock]", TF_MAP_VVAR},
		{"00:00 0    [anon: stack pool]", "[anon: stack pool]", TF_MAP_ANON},
		{"00:01 77   /dev/zero (deleted)", "/dev/zero", TF_MAP_ANON},
		{"fe:01 9    /tmp/a b  c", "/tmp/a b  c", TF_MAP_FILE},
		{"fe:01 9    /tmp/line\\012break", "/tmp/line\\012break", TF_MAP_FILE},
		{"fe:01 9    /tmp/gone (deleted)", "/tmp/gone", TF_MAP_FILE},
		{"fe:01 9    /tmp/x (deleted) (deleted)", "/tmp/x (deleted)", TF_MAP_FILE},
		{"fe:01 9     (deleted)", "(deleted)", TF_MAP_FILE},
		{"fe:01 9    /tmp/\xc3\xa4\xff", "/tmp/\xc3\xa4\xff", TF_MAP_FILE},
		{"00:01 5    /memfd:name (deleted)", "/memfd:name", TF_MAP_FILE},
		{"00:0c 5    anon_inode:[perf_event]", "anon_inode:[perf_event]", TF_MAP_FILE},
	};
	char text[256];

	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		const struct tf_map *m;

		snprintf(text, sizeof(text), "1000-2000 r--p 00000000 %s\n", cases[i].line);
		m = parse_one(text);
		ck_assert_str_eq(m->path, cases[i].path);
		ck_assert_msg(m->kind == cases[i].kind, "%s is %u", cases[i].line, m->kind);
	}
}
END_TEST

START_TEST(maps_longest_path)
{
	static char text[3 * TF_MAX_STR];
	int n = snprintf(text, sizeof(text), "1000-2000 r--p 00000000 fe:01 9 /");

	memset(text + n, 'a', 2 * TF_MAX_STR);
	ck_assert_uint_eq(strlen(parse_one(text)->path), TF_MAX_STR - 1);
}
END_TEST

/* Addresses of the kernel's half are no part of a process: neither they nor their flags count. */
START_TEST(maps_leaves_out_vsyscall)
{
	ck_assert_int_eq(
		parse("1000-2000 r--p 00000000 00:00 0\n"
		      "VmFlags: rd hg \n"
		      "ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0 [vsyscall]\n"
		      "VmFlags: ex nh \n"),
		0);
	ck_assert_uint_eq(n_maps, 1);
	ck_assert_uint_eq(maps[0].vmflags, TF_VMF_HUGEPAGE);
}
END_TEST

START_TEST(smaps_flags)
{
	char names[128];

	ck_assert_int_eq(parse("1000-2000 rw-p 00000000 00:00 0\n"
			       "Size:                  4 kB\n"
			       "THPeligible:           0\n"
			       "VmFlags: rd wr mr mw me ac sd dd dc wf mg sr rr nr gd lo hg \n"
			       "2000-3000 rw-p 00000000 00:00 0\n"
			       "Size:                  4 kB\n"
			       "3000-4000 rw-p 00000000 00:00 0\n"
			       "VmFlags: rd bt mt nh"),
		0);
	ck_assert_uint_eq(n_maps, 3);
	ck_assert_uint_eq(
		maps[0].vmflags, TF_VMF_ALL & ~(TF_VMF_BTI | TF_VMF_MTE | TF_VMF_NOHUGEPAGE |
						      TF_VMF_HUGETLB | TF_VMF_ONFAULT));
	ck_assert_uint_eq(maps[1].vmflags, 0);
	ck_assert_uint_eq(maps[2].vmflags, TF_VMF_BTI | TF_VMF_MTE | TF_VMF_NOHUGEPAGE);
	ck_assert_int_eq(parse("1000-2000 rw-s 00000000 00:01 5 /dev/zero (deleted)\n"
			       "VmFlags: rd wr sh mr mw me ms lo ?? \n"
			       "2000-3000 rw-p 00000000 00:00 0\n"
			       "VmFlags: rd wr mr me ?? \n"),
		0);
	ck_assert_uint_eq(maps[0].vmflags, TF_VMF_MAYWRITE | TF_VMF_LOCKED | TF_VMF_ONFAULT);
	ck_assert_uint_eq(maps[1].vmflags, 0);
	tf_vmflags_text(TF_VMF_HUGEPAGE | TF_VMF_LOCKED, names, sizeof(names));
	ck_assert_str_eq(names, "hg lo");
	tf_vmflags_text(TF_VMF_ALL, names, 6);
	ck_assert_str_eq(names, "hg nh");
	tf_vmflags_text(0, names, sizeof(names));
	ck_assert_str_eq(names, "");
}
END_TEST

struct seen {
	uint32_t n;
	uint64_t sum;      /* of start times vmflags */
	uint64_t resident; /* of start times that */
};

static void see(void *ctx, const struct tf_smap *m)
{
	struct seen *s = ctx;

	s->n++;
	s->sum += m->start * m->vmflags + m->end;
	s->resident += m->start * m->resident;
}

/* A text of many reads, whose lines end anywhere in them, gives what the parser of whole texts
 * gives. */
START_TEST(smaps_streamed)
{
	char path[] = "/tmp/telefork-smaps.XXXXXX", *text = NULL;
	int fd = mkstemp(path);
	struct seen seen = {0}, want = {0};
	size_t size = 0;
	FILE *f = open_memstream(&text, &size);

	for (uint64_t i = 1; i < 3000; i++)
		fprintf(f,
			"%llx-%llx rw-p 00000000 00:00 0 %.*s\nSize: %llu kB\n"
			"Rss: %llu kB\nShared_Dirty: 3 kB\nSwap:      5 kB\nSwapPss: 1 kB\n"
			"VmFlags: rd wr %s\n",
			(unsigned long long)i << 12, (unsigned long long)(i + 1) << 12,
			(int)(i % 40), "/a/path/whose/length/is/not/always/the/same",
			(unsigned long long)i, (unsigned long long)i, i % 3 ? "nh dd" : "hg mt");
	fclose(f);
	ck_assert_int_eq(write(fd, text, size), (ssize_t)size);
	ck_assert_int_eq(parse(text), 0);
	for (uint32_t i = 0; i < n_maps; i++)
		see(&want, &(struct tf_smap){.start = maps[i].start,
				   .end = maps[i].end,
				   .resident = ((maps[i].start >> 12) + 5) << 10,
				   .vmflags = maps[i].vmflags});
	ck_assert_int_eq(tf_smaps_each(&arena, path, see, &seen, &e), 0);
	ck_assert_uint_eq(seen.n, 2999);
	ck_assert_uint_eq(seen.n, want.n);
	ck_assert_uint_eq(seen.sum, want.sum);
	ck_assert_uint_eq(seen.resident, want.resident);
	/* a line that does not end, and one that is nothing */
	ck_assert_int_eq(ftruncate(fd, (off_t)size - 1), 0);
	ck_assert_int_eq(tf_smaps_each(&arena, path, see, &seen, &e), TELEFORK_E_SYSTEM);
	ck_assert_int_eq(pwrite(fd, "?", 1, 0), 1);
	ck_assert_int_eq(tf_smaps_each(&arena, path, see, &seen, &e), TELEFORK_E_SYSTEM);
	unlink(path);
	close(fd);
	free(text);
}
END_TEST

/* As long as those of smaps are at least; the last line differs in length. */
static void print_mapping(FILE *f, unsigned i)
{
	fprintf(f, "%x000-%x000 rw-p 00000000 00:00 0\n", i, i + 1);
	for (unsigned k = 0; k < 22 + i % 3; k++)
		fprintf(f, "Private_Hugetlb:       %u kB\n", k);
	fprintf(f, "VmFlags: %s%s\n", i % 2 ? "rd wr mr mw me ac sd nh " : "mr mw me ",
		i % 5 ? "" : "hg ");
}

/* No byte is asked for of the text behind them: the kernel would look at pages for it. */
START_TEST(smaps_first)
{
	char path[] = "/tmp/telefork-smaps.XXXXXX", *text = NULL, rest[4096];
	size_t size = 0;
	ssize_t n;
	FILE *f;
	int fd;

	ck_assert(mkdtemp(path));
	rmdir(path);
	ck_assert(!mkfifo(path, 0600));
	fd = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
	for (unsigned first = 0; first < 12; first++) {
		for (unsigned i = 0; i <= first; i++) {
			f = open_memstream(&text, &size);
			print_mapping(f, i + 1);
			fclose(f);
			ck_assert_int_eq(write(fd, text, size), (ssize_t)size);
			if (i < first)
				free(text);
		}
		ck_assert_msg(
			!tf_maps_read_first(&arena, path, first, &maps, &n_maps, &e), "%s", e.text);
		ck_assert_uint_eq(n_maps, first);
		for (unsigned i = 0; i < first; i++)
			ck_assert_uint_eq(maps[i].vmflags,
				((i + 1) % 2 ? TF_VMF_NOHUGEPAGE : 0) |
					((i + 1) % 5 ? 0 : TF_VMF_HUGEPAGE) | TF_VMF_MAYWRITE);
		n = read(fd, rest, sizeof(rest));
		ck_assert_int_eq(n, (ssize_t)size);
		ck_assert(!memcmp(rest, text, size));
		free(text);
	}
	close(fd);
	unlink(path);
}
END_TEST

START_TEST(maps_nonsense)
{
	static const char *const lines[] = {
		"\n",
		"x\n",
		"-\n",
		"1000\n",
		"1000-\n",
		"1000-2000\n",
		"1000-2000 \n",
		"1000-2000 rw\n",
		"1000-2000 rw-p\n",
		"1000-2000 rw-p 00000000\n",
		"1000-2000 rw-p 00000000 00:00\n",
		"1000-2000 rw-p 00000000 0000 0\n",
		"1000-2000 rw-p  00:00 0\n",
		"2000-1000 rw-p 00000000 00:00 0\n",
		"1000-1000 rw-p 00000000 00:00 0\n",
		"1000_2000 rw-p 00000000 00:00 0\n",
		" 1000-2000 rw-p 00000000 00:00 0\n",
	};
	char text[256];

	for (size_t i = 0; i < sizeof(lines) / sizeof(*lines); i++) {
		snprintf(text, sizeof(text), "1000-2000 rw-p 00000000 00:00 0\n%s", lines[i]);
		e = (struct tf_err){0};
		ck_assert_msg(parse(text) == TELEFORK_E_SYSTEM, "accepted: %s", lines[i]);
		ck_assert_ptr_nonnull(strstr(e.text, "line 2"));
	}
}
END_TEST

/* A text cut anywhere, in a buffer that ends where it ends: nothing is read behind it. */
START_TEST(maps_cut)
{
	static const char text[] = "1000-2000 rw-p 00001000 fe:01 99  /bin/x (deleted)\n"
				   "VmFlags: rd wr \n"
				   "3000-4000 rw-p 00000000 00:00 0\n";
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	char *two =
		mmap(NULL, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	ck_assert_ptr_ne(two, MAP_FAILED);
	ck_assert_int_eq(mprotect(two + page, page, PROT_NONE), 0);
	for (size_t n = 0; n < sizeof(text); n++) {
		/* The text of tf_proc_read() has a zero behind it. */
		char *at = two + page - n - 1;

		memcpy(at, text, n);
		at[n] = '\0';
		e = (struct tf_err){0};
		if (!tf_maps_parse(&arena, at, n, &maps, &n_maps, &e))
			ck_assert_uint_le(n_maps, 2);
	}
	munmap(two, 2 * page);
}
END_TEST

START_TEST(maps_huge)
{
	const uint32_t n = 200000;
	size_t room = (size_t)n * 48, at = 0;
	char *text = malloc(room);

	ck_assert_ptr_nonnull(text);
	for (uint32_t i = 0; i < n; i++)
		at += (size_t)snprintf(text + at, room - at, "%x-%x r--p 00000000 00:00 0 \n",
			0x10000 + i * 0x2000, 0x11000 + i * 0x2000);
	ck_assert_int_eq(tf_maps_parse(&arena, text, at, &maps, &n_maps, &e), 0);
	ck_assert_uint_eq(n_maps, n);
	ck_assert_uint_eq(maps[n - 1].end, 0x11000 + (uint64_t)(n - 1) * 0x2000);
	arena.used = arena.size - 4096;
	ck_assert_int_eq(tf_maps_parse(&arena, text, at, &maps, &n_maps, &e), TELEFORK_E_NOMEM);
	free(text);
}
END_TEST

/* A kernel that counts (vm.overcommit_memory 2) counts what can be written, as RLIMIT_DATA does. */
START_TEST(arena_counts_what_is_used)
{
	struct rlimit was, few;
	struct tf_arena big = {0};
	char status[4096], *data;
	uint8_t *p = NULL;

	ck_assert_int_eq(tf_proc_peek("/proc/self/status", status, sizeof(status)), 0);
	data = strstr(status, "VmData:");
	ck_assert_ptr_nonnull(data);
	ck_assert_int_eq(getrlimit(RLIMIT_DATA, &was), 0);
	few = (struct rlimit){(strtoull(data + 7, NULL, 10) << 10) + (512 << 20), was.rlim_max};
	ck_assert_int_eq(setrlimit(RLIMIT_DATA, &few), 0);
	ck_assert_int_eq(tf_arena_init(&big, (size_t)1 << 30), 0);
	for (size_t n = 1; n <= (size_t)16 << 20; n *= 4) {
		p = tf_arena_alloc(&big, n);
		ck_assert_ptr_nonnull(p);
		p[0] = p[n - 1] = 1;
	}
	ck_assert_ptr_null(tf_arena_alloc(&big, (size_t)1 << 30));
	if (!tf_host_emulated()) /* an emulator does not limit */
		ck_assert_ptr_null(tf_arena_alloc(&big, (size_t)600 << 20));
	p = tf_arena_alloc(&big, 1000);
	ck_assert_ptr_nonnull(p);
	tf_arena_touch(&big, (size_t)1 << 20);
	p[999] = 1;
	tf_arena_rewind(&big, 0);
	ck_assert_int_eq(big.base[0], 0);
	ck_assert_int_eq(setrlimit(RLIMIT_DATA, &was), 0);
	tf_arena_done(&big);
}
END_TEST

/* It grows where it stands, up to its limit, and not into what is there already. */
START_TEST(arena_grows)
{
	const size_t least = (size_t)1 << 20, most = (size_t)16 << 20;
	struct tf_arena small = {0}, full = {0};
	uint8_t *first, *p;

	/* With room behind it. */
	p = mmap(NULL, most, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	ck_assert_int_eq(munmap(p, most), 0);
	ck_assert_int_eq(tf_arena_init_at(&small, (uint64_t)p, least), 0);
	small.most = most;
	first = tf_arena_alloc(&small, least - 64);
	p = tf_arena_alloc(&small, 3 * least);
	ck_assert_ptr_nonnull(first);
	ck_assert_ptr_eq(p, first + least - 64);
	ck_assert_uint_eq(p[0] | p[3 * least - 1], 0);
	first[0] = p[0] = p[3 * least - 1] = 1;
	ck_assert_ptr_null(tf_arena_alloc(&small, most - 4 * least + 128));
	ck_assert_ptr_null(tf_arena_alloc(&small, SIZE_MAX - 15));
	ck_assert_ptr_nonnull(tf_arena_alloc(&small, most - 5 * least));
	ck_assert_int_eq(first[0], 1);
	tf_arena_done(&small);
	ck_assert_int_eq(tf_arena_init_small(&full, least, most), 0);
	ck_assert_uint_eq(full.size, least);
	/* Or something is there already. */
	mmap(full.base + full.size, 4096, PROT_NONE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
	ck_assert_ptr_null(tf_arena_alloc(&full, 2 * least));
	ck_assert_ptr_nonnull(tf_arena_alloc(&full, least));
}
END_TEST

/* The file of this very process: what was just mapped is there. */
START_TEST(maps_of_this_process)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	char *p = mmap(NULL, 3 * page, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	bool found = false;

	ck_assert_ptr_ne(p, MAP_FAILED);
	ck_assert_int_eq(mprotect(p + page, page, PROT_NONE), 0);
	ck_assert_msg(!tf_maps_read(&arena, "/proc/self/maps", &maps, &n_maps, &e), "%s", e.text);
	for (uint32_t i = 0; i < n_maps; i++)
		found |= maps[i].start <= (uint64_t)p + page && maps[i].end > (uint64_t)p + page &&
			 !(maps[i].prot & PROT_WRITE);
	ck_assert(found);
	ck_assert_int_eq(
		tf_maps_read(&arena, "/proc/self/none", &maps, &n_maps, &e), TELEFORK_E_SYSTEM);
	ck_assert_ptr_nonnull(strstr(e.text, "/proc/self/none"));
	munmap(p, 3 * page);
}
END_TEST

/* --- CRC32C --- */

static uint32_t by_table(uint32_t crc, const uint8_t *p, size_t n)
{
	static uint32_t table[8][256];

	if (!table[0][1])
		tf_crc32c_table(table);
	return ~tf_crc32c_slice((const uint32_t(*)[256])table, ~crc, p, n);
}

/* RFC 3720 appendix B.4, and the check value of the catalogue of parametrised CRCs. */
START_TEST(crc32c_known)
{
	uint8_t bytes[32];

	ck_assert_uint_eq(by_table(0, (const uint8_t *)"123456789", 9), 0xe3069283);
	ck_assert_uint_eq(tf_crc32c(0, "123456789", 9), 0xe3069283);
	ck_assert_uint_eq(tf_crc32c(0, "", 0), 0);
	memset(bytes, 0, 32);
	ck_assert_uint_eq(tf_crc32c(0, bytes, 32), 0x8a9136aa);
	ck_assert_uint_eq(by_table(0, bytes, 32), 0x8a9136aa);
	memset(bytes, 0xff, 32);
	ck_assert_uint_eq(tf_crc32c(0, bytes, 32), 0x62a8ab43);
	ck_assert_uint_eq(by_table(0, bytes, 32), 0x62a8ab43);
	for (unsigned i = 0; i < 32; i++)
		bytes[i] = (uint8_t)i;
	ck_assert_uint_eq(tf_crc32c(0, bytes, 32), 0x46dd794e);
	ck_assert_uint_eq(by_table(0, bytes, 32), 0x46dd794e);
}
END_TEST

/* Table and instruction agree at every alignment and length, whole and in two parts; around three
 * blocks, which the instruction takes side by side, too. */
START_TEST(crc32c_ways_agree)
{
	const size_t blocks = 3 * TF_CRC32C_BLOCK;
	static uint8_t bytes[2 * 3 * TF_CRC32C_BLOCK + 600];

	for (size_t i = 0; i < sizeof(bytes); i++)
		bytes[i] = (uint8_t)(i * i * 31 + i);
	for (size_t at = 0; at < 9; at++)
		for (size_t n = 0; n < 2 * blocks + 520; n += n < 40     ? 1
							      : n < 1100 ? 37
									 : blocks / 4 - 3) {
			uint32_t crc = by_table(0, bytes + at, n);
			size_t half = n / 3;

			if (tf_crc32c(0, bytes + at, n) != crc ||
				tf_crc32c(tf_crc32c(0, bytes + at, half), bytes + at + half,
					n - half) != crc)
				ck_abort_msg("%zu bytes at %zu", n, at);
			if (tf_arch_has_crc32c() &&
				~tf_crc32c_instruction(~0u, bytes + at, n) != crc)
				ck_abort_msg("%zu bytes at %zu by instruction", n, at);
		}
}
END_TEST

/* --- input and output --- */

static int pair[2];
static struct tf_io io;

static void open_pair(bool socket, const struct telefork_options *o, bool writing)
{
	ck_assert_int_eq(socket ? socketpair(AF_UNIX, SOCK_STREAM, 0, pair) : pipe(pair), 0);
	signal(SIGPIPE, SIG_IGN); /* pipes raise it */
	tf_io_init(&io, pair[writing], o);
	ck_assert_int_eq(io.socket, socket);
}

static void close_pair(void)
{
	close(pair[0]);
	close(pair[1]);
}

START_TEST(io_round_trip)
{
	char text[] = "telefork", got[9];
	struct iovec iov[4] = {{text, 3}, {text, 0}, {text + 3, 5}, {text + 8, 1}};
	struct tf_io in;

	open_pair(_i, NULL, true);
	tf_io_init(&in, pair[0], NULL);
	ck_assert_int_eq(tf_io_writev(&io, iov, 4, &e), 0);
	ck_assert_int_eq(tf_io_read(&in, got, sizeof(got), &e), 0);
	ck_assert_str_eq(got, text);
	ck_assert_uint_eq(io.sent, 9);
	ck_assert_uint_eq(in.received, 9);
	ck_assert_int_eq(fcntl(pair[0], F_GETFL) & O_NONBLOCK, 0);
	close_pair();
}
END_TEST

/* The limits hold, name themselves, and do not end early. */
START_TEST(io_reader_waits)
{
	/* A deadline may pass before there was a processor for anything. */
	for (int ms = 60;; ms *= 4) {
		struct telefork_options idle = {.idle_ms = ms}, deadline = {.deadline_ms = ms};
		uint64_t start = tf_now_ns();
		char byte[2], words[16];

		e = (struct tf_err){0};
		snprintf(words, sizeof(words), "%d ms", ms);
		open_pair(_i & 1, _i & 2 ? &deadline : &idle, false);
		ck_assert_int_eq(write(pair[1], "x", 1), 1);
		ck_assert_int_eq(tf_io_read(&io, byte, 2, &e), TELEFORK_E_TIMEOUT);
		ck_assert_uint_ge(tf_now_ns() - start, (uint64_t)ms * 1000000);
		ck_assert_ptr_nonnull(strstr(e.text, _i & 2 ? "deadline" : words));
		close_pair();
		if (io.received == 1)
			break;
		ck_assert(_i & 2 && ms < 20000);
	}
}
END_TEST

START_TEST(io_writer_waits)
{
	static char much[1 << 20];

	for (int ms = 60;; ms *= 4) {
		struct telefork_options idle = {.idle_ms = ms}, deadline = {.deadline_ms = ms};
		int rc = 0;

		e = (struct tf_err){0};
		open_pair(_i & 1, _i & 2 ? &deadline : &idle, true);
		for (int n = 0; n < 64 && !rc; n++)
			rc = tf_io_write(&io, much, sizeof(much), &e);
		ck_assert_int_eq(rc, TELEFORK_E_TIMEOUT);
		close_pair();
		if (io.sent)
			break;
		ck_assert(_i & 2 && ms < 20000);
	}
}
END_TEST

START_TEST(io_peer_closes)
{
	char bytes[8];

	open_pair(_i, NULL, false);
	ck_assert_int_eq(write(pair[1], "abc", 3), 3);
	close(pair[1]);
	ck_assert_int_eq(tf_io_read(&io, bytes, 8, &e), TELEFORK_E_CLOSED);
	ck_assert_uint_eq(io.received, 3);
	close(pair[0]);
	e = (struct tf_err){0};
	open_pair(_i, NULL, true);
	close(pair[0]);
	ck_assert_int_eq(tf_io_write(&io, bytes, 8, &e), TELEFORK_E_CLOSED);
	close(pair[1]);
	e = (struct tf_err){0};
	io.fd = pair[0]; /* not open any more */
	ck_assert_int_lt(tf_io_write(&io, bytes, 8, &e), 0);
	ck_assert_int_lt(tf_io_read(&io, bytes, 8, &e), 0);
}
END_TEST

START_TEST(io_files)
{
	char path[] = "/tmp/test_base.XXXXXX", got[4];
	int fd = mkstemp(path);

	ck_assert_int_ge(fd, 0);
	unlink(path);
	ck_assert_int_eq(tf_io_pwrite(fd, "abcd", 4, 10, &e), 0);
	ck_assert_int_eq(tf_io_pread(fd, got, 4, 10, &e), 0);
	ck_assert_mem_eq(got, "abcd", 4);
	ck_assert_int_eq(tf_io_pread(fd, got, 4, 11, &e), TELEFORK_E_IMAGE);
	ck_assert_ptr_nonnull(strstr(e.text, "byte 14"));
	close(fd);
	e = (struct tf_err){0};
	ck_assert_int_eq(tf_io_pread(-1, got, 4, 7, &e), TELEFORK_E_IO);
	ck_assert_ptr_nonnull(strstr(e.text, "EBADF"));
	e = (struct tf_err){0};
	ck_assert_int_eq(tf_io_pwrite(-1, got, 4, 7, &e), TELEFORK_E_IO);
}
END_TEST

/* --- options --- */

/* Those of a header with size bytes end where nothing may be read. */
static struct telefork_options *options_of(size_t size, size_t page)
{
	char *p = mmap(NULL, 3 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	ck_assert_ptr_ne(p, MAP_FAILED);
	ck_assert_int_eq(mprotect(p, 2 * page, PROT_READ | PROT_WRITE), 0);
	memcpy(p + 2 * page - size, &size, sizeof(size));
	return (struct telefork_options *)(p + 2 * page - size);
}

START_TEST(options_of_other_headers)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE), whole = sizeof(struct telefork_options);
	struct telefork_options o = {.restore = 9}, *given;

	ck_assert_int_eq(tf_options_take(NULL, &o, &e), 0);
	ck_assert_uint_eq(o.restore, 0);
	given = options_of(offsetof(struct telefork_options, stdio), page);
	given->deadline_ms = 7, given->idle_ms = 8;
	memset(&o, 0xff, sizeof(o));
	ck_assert_int_eq(tf_options_take(given, &o, &e), 0);
	ck_assert(o.deadline_ms == 7 && o.idle_ms == 8);
	ck_assert(!o.stdio && !o.token && !o.max_memory && !o.result && !o.restore);
	given = options_of(whole, page);
	given->restore = TELEFORK_RESTORE_HOLD_FILES;
	ck_assert_int_eq(tf_options_take(given, &o, &e), 0);
	ck_assert_uint_eq(o.restore, TELEFORK_RESTORE_HOLD_FILES);
	given = options_of(whole + 24, page);
	ck_assert_int_eq(tf_options_take(given, &o, &e), 0);
	((char *)given)[whole + 23] = 1;
	o.idle_ms = 5;
	ck_assert_int_eq(tf_options_take(given, &o, &e), TELEFORK_E_INVAL);
	ck_assert_int_eq(o.idle_ms, 5);
	ck_assert_ptr_nonnull(strstr(e.text, "not known to this library"));
	e = (struct tf_err){0};
	o = (struct telefork_options){.restore = 1u << 6};
	ck_assert_int_eq(tf_options_take(&o, &o, &e), TELEFORK_E_INVAL);
	ck_assert_ptr_nonnull(strstr(e.text, "TELEFORK_RESTORE_"));
	for (size_t i = 0; i < 2; i++) {
		struct telefork_options bad = {.size = i ? sizeof(size_t) - 1 : 5000};

		e = (struct tf_err){0};
		ck_assert_int_eq(tf_options_take(&bad, &o, &e), TELEFORK_E_INVAL);
	}
}
END_TEST

/* The public calls do not look behind them either. */
START_TEST(older_options_in_every_call)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	struct telefork_options *o = options_of(sizeof(o->size) + 2 * sizeof(int), page);
	struct telefork_result r;

	o->deadline_ms = 5000;
	ck_assert_int_eq(telefork_dial("tcp://x", o, &r), TELEFORK_E_ADDRESS);
	ck_assert_int_eq(
		telefork_yoyo("tcp://x", (void (*)(void *))abort, NULL, o), TELEFORK_E_ADDRESS);
	ck_assert_int_eq(telefork_on_signal(SIGUSR1, "tcp://x", o), TELEFORK_E_ADDRESS);
	ck_assert_int_eq(telefork_save("/nowhere/image", o, &r), TELEFORK_E_IO);
	ck_assert_int_eq(telepad(-1, o, &r), TELEFORK_E_INVAL);
	ck_assert_msg(strstr(r.message, "-1: EBADF"), "%s", r.message);
	ck_assert_int_eq(telefork(-1, o, &(struct telefork_job *){NULL}), TELEFORK_E_INVAL);
	ck_assert_ptr_nonnull(strstr(telefork_why(), "-1: EBADF"));
}
END_TEST

int main(void)
{
	Suite *s = suite_create("base");
	TCase *t = tcase_create("base");

	tcase_add_checked_fixture(t, set_up, tear_down);
	tcase_set_timeout(t, SUITE_LIMIT_S);
	tcase_add_test(t, maps_fields);
	tcase_add_test(t, maps_paths);
	tcase_add_test(t, maps_longest_path);
	tcase_add_test(t, maps_leaves_out_vsyscall);
	tcase_add_test(t, smaps_flags);
	tcase_add_test(t, smaps_streamed);
	tcase_add_test(t, smaps_first);
	tcase_add_test(t, maps_nonsense);
	tcase_add_test(t, maps_cut);
	tcase_add_test(t, maps_huge);
	tcase_add_test(t, arena_counts_what_is_used);
	tcase_add_test(t, arena_grows);
	tcase_add_test(t, maps_of_this_process);
	tcase_add_test(t, crc32c_known);
	tcase_add_test(t, crc32c_ways_agree);
	tcase_add_loop_test(t, io_round_trip, 0, 2);
	tcase_add_loop_test(t, io_reader_waits, 0, 4);
	tcase_add_loop_test(t, io_writer_waits, 0, 4);
	tcase_add_loop_test(t, io_peer_closes, 0, 2);
	tcase_add_test(t, io_files);
	tcase_add_test(t, options_of_other_headers);
	tcase_add_test(t, older_options_in_every_call);
	suite_add_tcase(s, t);
	return suite_run(s);
}
