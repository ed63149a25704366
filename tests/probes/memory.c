/* SPDX-License-Identifier: MIT */
/*
 * memory: every sort of memory that a process can have and that can travel, seven megabytes of
 * stack and 60,000 mappings among it. While the snapshot travels the process writes over all of it,
 * as fast as it can: the copy is a point in time. What may differ over there is in memory_maps.c's
 * table.
 */
#include "tests/probes/memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#define FRAME_WORDS 7900u /* a little less than 64 KiB with what the compiler adds */
#define STACK_USED  ((size_t)7 << 20)
#define STACK_SPARE ((size_t)768 << 10) /* below it: the call, and growth over there */

/* --- the stack --- */

struct frame {
	struct frame *up;
	uint64_t words[FRAME_WORDS];
};

static struct frame *deepest;

static void stack_check(void)
{
	uint64_t bad = 0;
	unsigned frames = 0;

	for (struct frame *f = deepest; f; f = f->up, frames++)
		bad += mem_compare(f->words, sizeof(f->words));
	if (bad)
		probe_lost("stack: %llu words differ", (unsigned long long)bad);
	probe_count("stack frames of 62 KiB", frames);
}

/* Goes below everything that the stack has held so far. */
static __attribute__((noinline)) unsigned stack_grow(unsigned depth)
{
	volatile uint64_t words[2048];

	for (unsigned i = 0; i < 2048; i += 64)
		words[i] = depth + i;
	if (depth && stack_grow(depth - 1) != depth - 1)
		return ~0u;
	for (unsigned i = 0; i < 2048; i += 64)
		if (words[i] != depth + i)
			return ~0u;
	return depth;
}

/* --- the journey --- */

static void set_up(uint64_t seed)
{
	mem_seed = seed;
	mem_maps_init();
	mem_areas_make();
	mem_special_make();
	mem_flags_take(false);
	mem_small_make();
	fflush(stderr);
	free(malloc(1 << 16));
	mem_maps_take(false);
}

static void verify(void)
{
	mem_maps_take(true);
	mem_maps_compare();
	mem_small_check();
	mem_flags_take(true);
	mem_flags_compare();
	stack_check();
	if (stack_grow(32) != 32)
		probe_lost("stack: growing below what it was");
	mem_areas_check();
	mem_special_check();
	probe_count("areas", mem_counts.areas);
	probe_count("bytes compared", mem_counts.bytes);
	probe_count("faults", mem_counts.faults);
	probe_count("KiB in huge pages before", mem_counts.huge_before >> 10);
	probe_count("after", mem_counts.huge_after >> 10);
	probe_count("not seen here", mem_counts.skipped);
}

static void spoil(void)
{
	mem_areas_scribble();
	mem_special_scribble();
	for (struct frame *f = deepest; f; f = f->up)
		memset(f->words, 0xee, sizeof(f->words));
}

static __attribute__((noinline)) int at_depth(size_t left, int argc, char **argv)
{
	static const struct probe probe = {
		.name = "memory", .set_up = set_up, .verify = verify, .spoil = spoil};
	struct frame f = {.up = deepest};
	int rc;

	mem_fill(f.words, sizeof(f.words));
	deepest = &f;
	rc = left > sizeof(f) ? at_depth(left - sizeof(f), argc, argv)
			      : probe_main(argc, argv, &probe);
	deepest = f.up;
	return rc;
}

int main(int argc, char **argv)
{
	struct rlimit stack;
	struct probe_args a;
	size_t use = STACK_USED;

	if (!probe_parse(argc, argv, "memory", &a))
		return 64;
	mem_seed = a.seed; /* the stack's content comes first */
	if (!getrlimit(RLIMIT_STACK, &stack) && stack.rlim_cur < STACK_USED + STACK_SPARE)
		use = stack.rlim_cur / 2;
	return at_depth(use, argc, argv);
}
