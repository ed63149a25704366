/* SPDX-License-Identifier: MIT */
/*
 * One area of every sort that a table can describe: a size, protections, flags, advice, and what
 * has to be there after the move. The sorts that need more than that are in memory_special.c.
 */
#include "tests/probes/memory.h"
#include "core/base/host.h"

#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define KIB(n)       ((size_t)(n) << 10)
#define PROT_BTI_BIT 0x10 /* arch/arm64/include/uapi/asm/mman.h; elsewhere mprotect refuses it */
#define RW           (PROT_READ | PROT_WRITE)

enum expect { SAME, ZERO, ABSENT };

static struct sort {
	const char *name;
	size_t size;
	int prot, flags, advice; /* advice 0: none */
	enum expect expect;
	uint8_t *at;
} sorts[] = {
	{"private", KIB(4096), RW, MAP_PRIVATE, 0, SAME, NULL},
	{"shared", KIB(2048), RW, MAP_SHARED, 0, SAME, NULL},
	{"read-only", KIB(256), PROT_READ, MAP_PRIVATE, 0, SAME, NULL},
	{"shared read-only", KIB(256), PROT_READ, MAP_SHARED, 0, SAME, NULL},
	{"no access", KIB(256), PROT_NONE, MAP_PRIVATE, 0, SAME, NULL},
	{"shared no access", KIB(256), PROT_NONE, MAP_SHARED, 0, SAME, NULL},
	{"read and execute", KIB(64), PROT_READ | PROT_EXEC, MAP_PRIVATE, 0, SAME, NULL},
	{"write and execute", KIB(64), RW | PROT_EXEC, MAP_PRIVATE, 0, SAME, NULL},
	{"not reserved", KIB(512), RW, MAP_PRIVATE | MAP_NORESERVE, 0, SAME, NULL},
	{"not dumped", KIB(128), RW, MAP_PRIVATE, MADV_DONTDUMP, SAME, NULL},
	{"mergeable", KIB(128), RW, MAP_PRIVATE, MADV_MERGEABLE, SAME, NULL},
	{"sequential", KIB(128), RW, MAP_PRIVATE, MADV_SEQUENTIAL, SAME, NULL},
	{"random", KIB(128), RW, MAP_PRIVATE, MADV_RANDOM, SAME, NULL},
	{"no huge pages", KIB(128), RW, MAP_PRIVATE, MADV_NOHUGEPAGE, SAME, NULL},
	/* As after fork(2): the next two are not, or are empty, in any child. */
	{"wiped on fork", KIB(128), RW, MAP_PRIVATE, MADV_WIPEONFORK, ZERO, NULL},
	{"not forked", KIB(128), RW, MAP_PRIVATE, MADV_DONTFORK, ABSENT, NULL},
	{"branch targets", KIB(64), PROT_READ | PROT_EXEC | PROT_BTI_BIT, MAP_PRIVATE, 0, SAME,
		NULL},
};

#define N_SORTS (sizeof(sorts) / sizeof(*sorts))

struct mem_counts mem_counts;
uint64_t mem_seed;

void mem_skip(const char *what)
{
	mem_counts.skipped++;
	fprintf(stderr, "memory: not seen here: %s\n", what);
}

/* --- content --- */

uint64_t mem_word(const void *p)
{
	uint64_t x = ((uint64_t)p ^ mem_seed) * 0x9e3779b97f4a7c15u;

	x = (x ^ x >> 31) * 0xbf58476d1ce4e5b9u; /* splitmix64 */
	return (x ^ x >> 29) | 1; /* never zero: a page of zeroes is not a page that came */
}

void mem_fill(void *p, size_t size)
{
	uint64_t *w = p;

	for (size_t i = 0; i < size / 8; i++)
		w[i] = mem_word(&w[i]);
}

uint64_t mem_compare(const void *p, size_t size)
{
	const uint64_t *w = p;
	uint64_t bad = 0;

	for (size_t i = 0; i < size / 8; i++)
		bad += w[i] != mem_word(&w[i]);
	mem_counts.bytes += size;
	return bad;
}

uint8_t *mem_map(const char *name, size_t size, int prot, int flags)
{
	uint8_t *p = mmap(NULL, size, prot, flags | MAP_ANONYMOUS, -1, 0);

	if (p != MAP_FAILED)
		return p;
	probe_lost("%s could not be mapped", name);
	return NULL;
}

size_t mem_scale(size_t max)
{
	FILE *f = fopen("/proc/meminfo", "re");
	unsigned long long kib = 0;
	char line[128];

	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "MemAvailable: %llu", &kib) == 1)
			break;
	if (f)
		fclose(f);
	return kib && kib * 1024 / 20 < max ? (size_t)(kib * 1024 / 20) & ~(KIB(2048) - 1) : max;
}

/* --- faults --- */

static sigjmp_buf fault_env;
static volatile sig_atomic_t fault_signal;
static void *volatile fault_address;

static void on_fault(int signo, siginfo_t *info, void *context)
{
	(void)context;
	fault_signal = signo;
	fault_address = info->si_addr;
	siglongjmp(fault_env, 1);
}

int mem_fault(volatile uint8_t *p, bool write)
{
	struct sigaction sa = {.sa_flags = SA_SIGINFO}, segv, bus;

	sa.sa_sigaction = on_fault;
	sigaction(SIGSEGV, &sa, &segv);
	sigaction(SIGBUS, &sa, &bus);
	fault_signal = 0;
	if (!sigsetjmp(fault_env, 1)) {
		if (write)
			*p = 1;
		else
			(void)*p;
	}
	sigaction(SIGSEGV, &segv, NULL);
	sigaction(SIGBUS, &bus, NULL);
	mem_counts.faults++;
	return fault_signal && fault_address != p ? -1 : fault_signal;
}

/* --- the table's areas --- */

static void make_one(struct sort *s)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);

	if (s->prot & PROT_BTI_BIT) {
		uint8_t *p = mem_map(s->name, page, PROT_READ, MAP_PRIVATE);
		bool known = !mprotect(p, page, PROT_READ | PROT_BTI_BIT);

		munmap(p, page);
		if (!known) {
			mem_skip(s->name);
			return;
		}
	}
	/* A page that is never touched lies on both sides: neighbours do not become one. */
	s->at = mem_map(s->name, s->size + 2 * page, PROT_NONE, s->flags);
	if (!s->at)
		return;
	s->at += page;
	mprotect(s->at, s->size, RW);
	/* A kernel without KSM or huge pages refuses; QEMU 7.2 user mode nods and does nothing. */
	if (s->advice && (madvise(s->at, s->size, s->advice) || tf_host_emulated())) {
		mem_skip(s->name);
		s->expect = SAME;
	}
	mem_fill(s->at, s->size);
	mprotect(s->at, s->size, s->prot);
	mem_counts.areas++;
}

void mem_areas_make(void)
{
	for (size_t i = 0; i < N_SORTS; i++)
		make_one(&sorts[i]);
}

/* Where it was captured that we look at now; QEMU 7.2 user mode wipes nothing. */
static bool captured_emulated;

static bool all_zero(const uint8_t *p, size_t size)
{
	for (size_t i = 0; i < size; i++)
		if (p[i])
			return false;
	mem_counts.bytes += size;
	return true;
}

static void check_access(const struct sort *s)
{
	uint8_t *middle = s->at + s->size / 2 + 40;
	bool can_read = (s->prot & PROT_READ) && s->expect != ABSENT;

	if (mem_fault(middle, false) != (can_read ? 0 : SIGSEGV))
		probe_lost("%s: reading is%s possible", s->name, can_read ? " not" : "");
	if (!(s->prot & PROT_WRITE) && mem_fault(middle, true) != SIGSEGV)
		probe_lost("%s: writing is possible", s->name);
	if (mem_fault(s->at - 8, false) != SIGSEGV || mem_fault(s->at + s->size, false) != SIGSEGV)
		probe_lost("%s: the pages around it", s->name);
}

static void check_one(const struct sort *s)
{
	uint64_t bad;

	check_access(s);
	if (s->expect == ABSENT)
		return;
	mprotect(s->at, s->size, RW);
	if (s->expect == ZERO && !captured_emulated) {
		if (!all_zero(s->at, s->size))
			probe_lost("%s: not wiped", s->name);
	} else {
		bad = mem_compare(s->at, s->size);
		if (bad)
			probe_lost("%s: %llu words differ", s->name, (unsigned long long)bad);
	}
	mem_fill(s->at, s->size); /* it can be written, and a further move finds it as it was */
	mprotect(s->at, s->size, s->prot);
}

void mem_areas_check(void)
{
	for (size_t i = 0; i < N_SORTS; i++)
		if (sorts[i].at)
			check_one(&sorts[i]);
	captured_emulated = tf_host_emulated(); /* for a further move, from here */
}

uint64_t mem_areas_scribble(void)
{
	uint64_t n = 0;

	for (size_t i = 0; i < N_SORTS; i++) {
		if (!sorts[i].at || !(sorts[i].prot & PROT_WRITE))
			continue;
		memset(sorts[i].at, 0xee, sorts[i].size);
		n += sorts[i].size;
	}
	return n;
}

bool mem_is_absent(uint64_t addr)
{
	for (size_t i = 0; i < N_SORTS; i++)
		if (sorts[i].expect == ABSENT && addr - (uint64_t)sorts[i].at < sorts[i].size)
			return true;
	return false;
}
