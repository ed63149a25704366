/* SPDX-License-Identifier: MIT */
/* A function that changes 1 MiB of a program's memory over there: what comes back. */
#include "tests/bench/bench.h"

#include <stdio.h>

#include "core/telefork.h"

struct little {
	uint8_t *heap;
	uint64_t size;
};

static void change(void *arg)
{
	struct little *l = arg;

	for (uint64_t i = 0; i < 256; i++) /* pages, all over */
		for (unsigned k = 0; k < 4096; k++)
			l->heap[l->size / 256 * i + k] ^= 0x5a;
}

static int measure(struct bench *b, uint64_t mib, bool huge)
{
	struct little l = {bench_heap(mib << 20, huge), mib << 20};
	struct telefork_result result;
	struct telefork_options options = {.result = &result};
	struct bench_series back = {0};

	if (!l.heap)
		return -1;
	if (telefork_yoyo(b->uri[BENCH_TCP], change, &l, &options)) {
		fprintf(stderr, "bench: %s\n", result.message);
		return -1;
	}
	bench_push(&back, (double)result.bytes_received / 1048576);
	bench_add(b, &back, NULL, 1.1, "MiB", "1.1 MiB",
		"yoyo that changes 1 MiB of %llu MiB %s: bytes back", (unsigned long long)mib,
		huge ? "huge" : "4k");
	return 0;
}

int bench_yoyo(struct bench *b)
{
	return bench_apart(b, measure, b->quick ? 64 : 512, false);
}
