/* SPDX-License-Identifier: MIT */
/* Memory of its own kind: advice, protections with content, stacks that grow, huge pages. */
#include "tests/probes/outmem.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGES 8
#define HUGE  ((size_t)2 << 20)

static struct area {
	const char *name;
	int prot, flags, advice;
	uint8_t *at;
} areas[] = {
	{"plain", PROT_READ | PROT_WRITE, 0, 0, 0},
	{"read-write-exec", PROT_READ | PROT_WRITE | PROT_EXEC, 0, 0, 0},
	{"none", PROT_NONE, 0, 0, 0},
	{"exec-only", PROT_EXEC, 0, 0, 0},
	{"noreserve", PROT_READ | PROT_WRITE, MAP_NORESERVE, 0, 0},
	{"dontdump", PROT_READ | PROT_WRITE, 0, MADV_DONTDUMP, 0},
	{"dontfork", PROT_READ | PROT_WRITE, 0, MADV_DONTFORK, 0},
	{"wipeonfork", PROT_READ | PROT_WRITE, 0, MADV_WIPEONFORK, 0},
	{"mergeable", PROT_READ | PROT_WRITE, 0, MADV_MERGEABLE, 0},
	{"hugepage", PROT_READ | PROT_WRITE, 0, MADV_HUGEPAGE, 0},
	{"nohugepage", PROT_READ | PROT_WRITE, 0, MADV_NOHUGEPAGE, 0},
	{"sequential", PROT_READ | PROT_WRITE, 0, MADV_SEQUENTIAL, 0},
	{"random", PROT_READ | PROT_WRITE, 0, MADV_RANDOM, 0},
};

static uint8_t *stack, *stack_base, *huge, *paged_out;
static uint64_t *heap;
#define N_AREAS (sizeof(areas) / sizeof(*areas))

/* The first and the last page have content. Unlike neighbours do not become one mapping. */
static void make_area(struct area *a)
{
	a->at = out_must(
		mmap(NULL, (PAGES + 2) * OUT_PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0),
		a->name);
	a->at += OUT_PAGE;
	out_must(mmap(a->at, PAGES * OUT_PAGE, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | a->flags, -1, 0),
		a->name);
	if (a->advice && madvise(a->at, PAGES * OUT_PAGE, a->advice))
		out_skip(a->name, strerror(errno));
	out_fill(a->at, OUT_PAGE, a->name);
	out_fill(a->at + (PAGES - 1) * OUT_PAGE, OUT_PAGE, a->name);
	mprotect(a->at, PAGES * OUT_PAGE, a->prot);
	out_note(a->name, a->at);
}

static void check_area(const struct area *a)
{
	int expected = a->prot & PROT_READ ? 0 : SIGSEGV;

	/* Some processors cannot forbid the reading of code. */
	if (a->prot != PROT_EXEC)
		out_check(out_fault(a->at, false) == expected, a->name, "protection");
	mprotect(a->at, PAGES * OUT_PAGE, PROT_READ | PROT_WRITE);
	out_check(out_same(a->at, OUT_PAGE, a->name), a->name, "first page");
	out_check(
		out_same(a->at + (PAGES - 1) * OUT_PAGE, OUT_PAGE, a->name), a->name, "last page");
	out_check(!a->at[OUT_PAGE] && !a->at[(PAGES - 2) * OUT_PAGE], a->name, "no zeros between");
}

/* What a thread of old had for its stack: it grows when the page below is touched. */
static uint8_t *keyed;
static int key = -1, spare_key = -1;

/* Three keys, of which the second is given back. */
static void make_keyed(void)
{
	int between;

	key = pkey_alloc(0, 0);
	if (key < 0) {
		out_skip("protection keys", strerror(errno));
		return;
	}
	between = pkey_alloc(0, 0);
	spare_key = pkey_alloc(0, PKEY_DISABLE_ACCESS);
	pkey_free(between);
	keyed = out_must(mmap(NULL, 2 * OUT_PAGE, PROT_READ | PROT_WRITE,
				 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0),
		"protection keys");
	out_fill(keyed, 2 * OUT_PAGE, "keyed");
	pkey_mprotect(keyed, 2 * OUT_PAGE, PROT_READ | PROT_WRITE, key);
	pkey_set(key, PKEY_DISABLE_WRITE);
	out_note("protection keys", keyed);
}

static void check_keyed(void)
{
	if (!keyed)
		return;
	out_check(out_same(keyed, 2 * OUT_PAGE, "keyed"), "protection keys", "content");
	out_check(pkey_get(key) == PKEY_DISABLE_WRITE && pkey_get(spare_key) == PKEY_DISABLE_ACCESS,
		"protection keys", "rights");
	out_check(out_fault(keyed, true) == SIGSEGV, "protection keys", "memory is under no key");
	pkey_set(key, 0);
	out_check(!out_fault(keyed, true), "protection keys", "memory is under another key");
	out_check(
		!pkey_free(spare_key) && !pkey_free(key), "protection keys", "were not allocated");
	out_check(pkey_alloc(0, 0) == key, "protection keys", "others were allocated");
}

static void make_stack(void)
{
	size_t gap = (size_t)4 << 20;

	stack_base = out_must(
		mmap(NULL, 2 * gap, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), "growing");
	munmap(stack_base, 2 * gap);
	stack = out_must(
		mmap(stack_base + gap, 2 * OUT_PAGE, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_GROWSDOWN | MAP_FIXED_NOREPLACE, -1, 0),
		"growing");
	out_fill(stack, 2 * OUT_PAGE, "growing");
	out_note("growing", stack);
}

static void check_stack(void)
{
	out_check(out_same(stack, 2 * OUT_PAGE, "growing"), "growing", "content");
	out_check(!out_fault(stack - OUT_PAGE, true), "growing", "does not grow");
}

static void make_huge(void)
{
	huge = mmap(NULL, 2 * HUGE, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
	if (huge == MAP_FAILED) {
		out_skip("hugetlb", strerror(errno));
		huge = NULL;
		return;
	}
	out_fill(huge + HUGE, OUT_PAGE, "hugetlb");
	out_note("hugetlb", huge);
}

static void check_huge(void)
{
	if (!huge)
		return;
	out_check(out_same(huge + HUGE, OUT_PAGE, "hugetlb") && !huge[HUGE - 1], "hugetlb",
		"content");
	out_check(!out_fault(huge, true), "hugetlb", "cannot be written");
}

static void make_heap(void)
{
	heap = sbrk((intptr_t)(4 * OUT_PAGE));
	out_fill(heap, 4 * OUT_PAGE, "heap");
	out_note_unsized("heap", heap);
}

static void check_heap(void)
{
	void *end = sbrk(0), *grown = sbrk((intptr_t)(2 * OUT_PAGE));

	out_check(out_same(heap, 4 * OUT_PAGE, "heap"), "heap", "content");
	out_check((uint8_t *)end == (uint8_t *)heap + 4 * OUT_PAGE, "heap", "the break");
	out_check(grown == end && !out_fault(grown, true), "heap", "does not grow");
	out_check(strstr(out_name_at(heap), "[heap]") != NULL, "heap", "is no heap any more");
}

/* Where there is swap the caller sees to it that this is out. */
static void make_swapped(void)
{
	paged_out = out_must(mmap(NULL, 64 * OUT_PAGE, PROT_READ | PROT_WRITE,
				     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0),
		"swapped");
	out_fill(paged_out, 64 * OUT_PAGE, "swapped");
	out_note("swapped", paged_out);
#ifdef MADV_PAGEOUT
	madvise(paged_out, 64 * OUT_PAGE, MADV_PAGEOUT);
#endif
}

static void check_forked(void)
{
	int status = 0;
	pid_t child = fork();

	if (!child) {
		for (size_t i = 0; i < N_AREAS; i++) {
			if (areas[i].advice == MADV_DONTFORK &&
				out_fault(areas[i].at, false) != SIGSEGV)
				_exit(1);
			if (areas[i].advice == MADV_WIPEONFORK && areas[i].at[0])
				_exit(2);
		}
		_exit(0);
	}
	waitpid(child, &status, 0);
	out_check(!status, "dontfork, wipeonfork", "a child sees it");
}

void out_flags_make(void)
{
	for (size_t i = 0; i < N_AREAS; i++)
		make_area(&areas[i]);
	make_keyed();
	make_stack();
	make_huge();
	make_heap();
	make_swapped();
}

void out_flags_check(void)
{
	check_keyed(); /* first: a handler that is left by a jump leaves no rights */
	check_forked();
	for (size_t i = 0; i < N_AREAS; i++)
		check_area(&areas[i]);
	check_stack();
	check_huge();
	check_heap();
	out_check(out_same(paged_out, 64 * OUT_PAGE, "swapped"), "swapped", "content");
}
