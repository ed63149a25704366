/* SPDX-License-Identifier: MIT */
/*
 * Areas that need more than a line in a table: heap, mappings of a file, generated code, holes, an
 * enormous reservation, huge pages, and 60,000 mappings.
 */
#include "tests/probes/memory.h"
#include "arch/arch.h"
#include "core/base/host.h"
#include "core/capture/capture.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define MIB(n) ((size_t)(n) << 20)
#define RW     (PROT_READ | PROT_WRITE)

static size_t page;

/* --- heap --- */

#define CHUNKS 400
#define CHUNK  6000u /* below M_MMAP_THRESHOLD: from the brk area where there is one */

static uint64_t *chunk[CHUNKS], *large;
static uint64_t *by_sbrk;
static size_t large_size;
static void *brk_before;

static void heap_make(void)
{
	for (int i = 0; i < CHUNKS; i++) {
		chunk[i] = malloc(CHUNK);
		if (chunk[i])
			mem_fill(chunk[i], CHUNK);
	}
	large_size = mem_scale(MIB(16));
	large = malloc(large_size);
	by_sbrk = sbrk((intptr_t)(2 * page));
	if (by_sbrk == (void *)-1)
		by_sbrk = NULL; /* under QEMU user mode brk may be blocked */
	else
		mem_fill((void *)(((uint64_t)by_sbrk + 7) & ~UINT64_C(7)), page);
	mem_fill(large, large_size);
	brk_before = sbrk(0);
}

/* The C library remembers the break, the kernel has to agree: what grows has to be there. */
static void brk_check(void)
{
	uint8_t *grown;

	if (sbrk(0) != brk_before || (void *)syscall(SYS_brk, 0) != brk_before) {
		probe_lost("heap: the break is not where it was");
		return;
	}
	grown = sbrk((intptr_t)(4 * page));
	if (grown != brk_before || mem_fault(grown, true) || mem_fault(grown + 4 * page - 1, true))
		probe_lost("heap: the break cannot grow");
}

static void heap_check(void)
{
	uint64_t bad = 0;

	for (int i = 0; i < CHUNKS; i++)
		bad += chunk[i] ? mem_compare(chunk[i], CHUNK) : 1;
	bad += mem_compare(large, large_size);
	if (by_sbrk)
		bad += mem_compare((void *)(((uint64_t)by_sbrk + 7) & ~UINT64_C(7)), page);
	if (bad)
		probe_lost("heap: %llu words differ", (unsigned long long)bad);
	if (tf_mailbox.flags & TF_MAILBOX_NO_BRK)
		mem_skip("growth of the brk area");
	else
		brk_check();
	for (int i = 0; i < CHUNKS; i += 2) {
		free(chunk[i]);
		chunk[i] = malloc(CHUNK * 9);
		if (!chunk[i])
			probe_lost("heap: malloc");
		else
			memset(chunk[i], i, CHUNK * 9);
	}
	for (int i = 1; i < CHUNKS; i += 2)
		bad += mem_compare(chunk[i], CHUNK);
	if (bad)
		probe_lost("heap: damaged by growing");
}

static uint64_t heap_scribble(void)
{
	for (int i = 0; i < CHUNKS; i++)
		memset(chunk[i], 0xee, CHUNK);
	memset(large, 0xee, large_size);
	return CHUNKS * CHUNK + large_size;
}

/* --- mappings of a file --- */

#define FILE_PAGES 6 /* of which the file has two and a half */

static uint8_t *clean, *written, *shared_clean;

static int make_file(void)
{
	char path[] = "/tmp/telefork-memory-XXXXXX";
	int fd = mkstemp(path);

	if (fd >= 0)
		unlink(path);
	else
		fd = memfd_create("file", 0);
	return fd;
}

/* Content depends on the address, so the file is written through where it will be compared. */
static uint8_t *map_file(const char *name, int flags)
{
	int fd = make_file(), fd_read;
	uint8_t *at = mem_map(name, FILE_PAGES * page, PROT_NONE, MAP_PRIVATE);
	char path[32];

	if (!at)
		return NULL;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	fd_read = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || fd_read < 0 || ftruncate(fd, (off_t)(2 * page + page / 2))) {
		probe_lost("%s: no file can be made (%s)", name, strerror(errno));
		return NULL;
	}
	if (mmap(at, 3 * page, RW, MAP_SHARED | MAP_FIXED, fd, 0) == MAP_FAILED)
		probe_lost("%s: the file cannot be mapped", name);
	mem_fill(at, 2 * page + page / 2);
	/* A shared mapping that could be made writable does not travel: this one cannot. */
	if (mmap(at, FILE_PAGES * page, flags & MAP_SHARED ? PROT_READ : RW, flags | MAP_FIXED,
		    fd_read, 0) == MAP_FAILED)
		probe_lost("%s: the file cannot be mapped again", name);
	close(fd);
	close(fd_read);
	mem_counts.areas++;
	return at;
}

static void file_make(void)
{
	clean = map_file("clean file mapping", MAP_PRIVATE);
	written = map_file("written file mapping", MAP_PRIVATE);
	shared_clean = map_file("shared file mapping", MAP_SHARED);
	if (written)
		written[page + 5] ^= 0xff;
}

static void check_file(const char *name, uint8_t *at)
{
	uint64_t bad = mem_compare(at, 2 * page + page / 2);

	if (bad)
		probe_lost("%s: %llu words differ", name, (unsigned long long)bad);
	for (size_t i = 2 * page + page / 2; i < 3 * page; i++)
		if (at[i]) {
			probe_lost("%s: the rest of the last page", name);
			break;
		}
	if (tf_host_emulated()) {
		mem_skip("SIGBUS beyond the end of a file");
		return;
	}
	for (size_t i = 3; i < FILE_PAGES; i++)
		if (mem_fault(at + i * page + 8, false) != SIGBUS) {
			probe_lost("%s: no SIGBUS beyond its end", name);
			break;
		}
}

static void file_check(void)
{
	if (!clean || !written || !shared_clean)
		return;
	if (written[page + 5] == (uint8_t)(mem_word(written + page) >> 40))
		probe_lost("written file mapping: the page is the file's");
	written[page + 5] ^= 0xff;
	check_file("clean file mapping", clean);
	check_file("written file mapping", written);
	check_file("shared file mapping", shared_clean);
	clean[page] ^= 1;
	clean[page] ^= 1;
	if (mem_fault(shared_clean, true) != SIGSEGV)
		probe_lost("shared file mapping: writing is possible");
}

/* --- generated code --- */

static int (*code)(void);

static void code_make(void)
{
	unsigned char bytes[32];
	size_t n = tf_arch_code_syscall(bytes, SYS_getpid);
	uint8_t *at = mem_map("generated code", page, RW, MAP_PRIVATE);

	if (!at)
		return;
	memcpy(at, bytes, n);
	mprotect(at, page, PROT_READ | PROT_EXEC);
	__builtin___clear_cache((char *)at, (char *)at + n);
	code = (int (*)(void))(uintptr_t)at;
	if (code() != getpid())
		probe_lost("generated code: does not run");
	mem_counts.areas++;
}

static void code_check(void)
{
	if (code && code() != getpid())
		probe_lost("generated code");
}

/* --- memory unmapped in holes --- */

#define HOLED 64

static uint8_t *holed;

static bool is_hole(size_t i)
{
	return mem_word((void *)(mem_seed + i * 8)) % 3 == 0 || i == HOLED / 2;
}

static void holes_make(void)
{
	holed = mem_map("holes", HOLED * page, RW, MAP_PRIVATE);
	if (!holed)
		return;
	mem_fill(holed, HOLED * page);
	for (size_t i = 0; i < HOLED; i++)
		if (is_hole(i))
			munmap(holed + i * page, page);
	mem_counts.areas++;
}

static void holes_check(void)
{
	uint64_t bad = 0;

	for (size_t i = 0; holed && i < HOLED; i++) {
		if (!is_hole(i))
			bad += mem_compare(holed + i * page, page);
		else if (mem_fault(holed + i * page + 16, true) != SIGSEGV)
			probe_lost("holes: page %zu is there", i);
	}
	if (bad)
		probe_lost("holes: %llu words around them differ", (unsigned long long)bad);
}

/* --- a sparse reservation --- */

#define SPARSE       (UINT64_C(1) << 40)
#define SPARSE_SMALL (UINT64_C(256) << 20) /* QEMU 7.2 keeps a record of each page */
#define SPARSE_PAGES 24

static uint8_t *sparse;
static uint64_t sparse_size;

static uint8_t *sparse_page(size_t i)
{
	uint64_t slot = sparse_size / SPARSE_PAGES;

	return sparse + i * slot + mem_word((void *)(i * 8 + 8)) % (slot / page - 1) * page;
}

static void sparse_make(void)
{
	sparse_size = tf_host_emulated() ? SPARSE_SMALL : SPARSE;
	if (sparse_size < SPARSE)
		mem_skip("1 TiB (256 MiB instead)");
	sparse = mem_map("reservation", sparse_size, RW, MAP_PRIVATE | MAP_NORESERVE);
	for (size_t i = 0; sparse && i < SPARSE_PAGES; i++)
		mem_fill(sparse_page(i), page);
	mem_counts.areas++;
}

static void sparse_check(void)
{
	uint64_t bad = 0;

	for (size_t i = 0; sparse && i < SPARSE_PAGES; i++) {
		uint8_t *p = sparse_page(i);

		bad += mem_compare(p, page);
		bad += p[page] != 0; /* the page behind it is absent */
	}
	if (bad)
		probe_lost("reservation: %llu words differ", (unsigned long long)bad);
}

/* --- huge pages --- */

static uint8_t *huge;
static size_t huge_size;

/* AnonHugePages of the mapping that begins at p, bytes. */
static uint64_t in_huge_pages(const void *p)
{
	FILE *f = fopen("/proc/self/smaps", "re");
	unsigned long long start, kib = 0;
	bool inside = false;
	char line[512];

	while (f && fgets(line, sizeof(line), f)) {
		if (line[0] < 'A' || line[0] > 'Z')
			inside = sscanf(line, "%llx-", &start) == 1 && start == (uint64_t)p;
		else if (inside && sscanf(line, "AnonHugePages: %llu", &kib) == 1)
			break;
	}
	if (f)
		fclose(f);
	return kib << 10;
}

static void huge_make(void)
{
	uint8_t *at;

	huge_size = mem_scale(MIB(8));
	at = mem_map("huge pages", huge_size + MIB(4), PROT_NONE, MAP_PRIVATE);
	if (!at)
		return;
	huge = (uint8_t *)(((uint64_t)at + MIB(2)) & ~(MIB(2) - 1));
	mprotect(huge, huge_size, RW);
	if (madvise(huge, huge_size, MADV_HUGEPAGE))
		mem_skip("huge pages");
	mem_fill(huge, huge_size);
	mem_counts.huge_before = in_huge_pages(huge);
	mem_counts.areas++;
}

static void huge_check(void)
{
	uint64_t bad = huge ? mem_compare(huge, huge_size) : 0;

	if (bad)
		probe_lost("huge pages: %llu words differ", (unsigned long long)bad);
	mem_counts.huge_after = in_huge_pages(huge);
	if (mem_counts.huge_before && !mem_counts.huge_after)
		probe_lost("huge pages: small now");
}

/* --- a memory lock: stays behind, as after fork(2) --- */

static uint8_t *locked;

static void lock_make(void)
{
	locked = mem_map("locked", 16 * page, RW, MAP_PRIVATE);
	if (!locked)
		return;
	mem_fill(locked, 16 * page);
	if (mlock(locked, 16 * page))
		mem_skip("a memory lock");
	mem_counts.areas++;
}

static void lock_check(void)
{
	if (locked && mem_compare(locked, 16 * page))
		probe_lost("locked: words differ");
}

/* --- 60,000 mappings --- */

#define SMALL       60000u
#define SMALL_LEAST 4096u
#define SMALL_DATA  16u /* every 16th has content */

static uint8_t *small;
static size_t n_small;

static int small_prot(size_t i)
{
	static const int prots[] = {PROT_NONE, PROT_READ, RW};

	return prots[i % 3];
}

void mem_small_make(void)
{
	/* So many take the kernel memory, and an emulated machine minutes to list. */
	n_small = mem_scale(SMALL << 10) >> 10;
	if (n_small < SMALL_LEAST)
		n_small = SMALL_LEAST;
	if (n_small < SMALL)
		mem_skip("60,000 mappings: memory is small");
	small = mem_map("small mappings", n_small * page, PROT_NONE, MAP_PRIVATE);
	for (size_t i = 0; small && i < n_small; i++) {
		uint8_t *at = small + i * page;

		if (i % SMALL_DATA == 0) {
			mprotect(at, page, RW);
			mem_fill(at, page);
		}
		if (small_prot(i) && mprotect(at, page, small_prot(i))) {
			probe_lost("small mappings: only %zu", i);
			n_small = i;
		} else if (!small_prot(i) && i % SMALL_DATA == 0) {
			mprotect(at, page, PROT_NONE);
		}
	}
	mem_counts.areas++;
}

void mem_small_check(void)
{
	uint64_t bad = 0;

	if (!small)
		return;
	for (size_t i = 0; i < n_small; i += 997) {
		int seen = mem_fault(small + i * page, true);

		if (seen != (small_prot(i) == RW ? 0 : SIGSEGV))
			probe_lost("small mappings: protection of number %zu", i);
		if (!seen && i % SMALL_DATA == 0)
			small[i * page] = (uint8_t)mem_word(small + i * page);
	}
	mprotect(small, n_small * page, PROT_READ);
	for (size_t i = 0; i < n_small; i += SMALL_DATA)
		bad += mem_compare(small + i * page, page);
	if (bad)
		probe_lost("small mappings: %llu words differ", (unsigned long long)bad);
	munmap(small, n_small * page);
}

/* --- all --- */

static const struct {
	void (*make)(void), (*check)(void);
} specials[] = {
	{heap_make, heap_check},
	{file_make, file_check},
	{code_make, code_check},
	{holes_make, holes_check},
	{sparse_make, sparse_check},
	{huge_make, huge_check},
	{lock_make, lock_check},
};

void mem_special_make(void)
{
	page = (size_t)sysconf(_SC_PAGESIZE);
	for (size_t i = 0; i < sizeof(specials) / sizeof(*specials); i++)
		specials[i].make();
}

void mem_special_check(void)
{
	for (size_t i = 0; i < sizeof(specials) / sizeof(*specials); i++)
		specials[i].check();
}

uint64_t mem_special_scribble(void)
{
	uint64_t n = heap_scribble();

	for (size_t i = 0; sparse && i < SPARSE_PAGES; i++)
		memset(sparse_page(i), 0xee, page);
	if (written)
		memset(written, 0xee, 2 * page);
	if (huge)
		memset(huge, 0xee, huge_size);
	if (locked)
		memset(locked, 0xee, 16 * page);
	return n + (SPARSE_PAGES + 18) * page + huge_size;
}
