/* SPDX-License-Identifier: MIT */
/*
 * How long a program stands still in telefork(), and until its copy runs: against fork(), bare
 * bytes over the same kind of link into memory that is there already, and memcpy() into fresh
 * memory. And, told only, the same bytes into fresh memory: what the copy needs, too.
 */
#include "tests/bench/bench.h"

#include "core/telefork.h"

#define ROUNDS 7

struct times {
	struct bench_series fork, copy, bare, fresh, stop, run;
};

static int measure_round(struct bench *b, struct times *t, uint8_t *heap, uint64_t size, bool huge)
{
	struct bench_journey j = {0};
	double bare;

	bench_warm(2 * size);
	bench_push(&t->fork, bench_fork());
	bench_push(&t->copy, bench_memcpy(heap, size, huge));
	bare = bench_bare(heap, size, huge, false);
	bench_push(&t->bare, bare);
	bench_push(&t->fresh, bare < 0 ? bare : bench_bare(heap, size, huge, true));
	if (bare < 0 || bench_go(&j, b, BENCH_TCP))
		return -1;
	bench_push(&t->stop, j.stop_ms);
	bench_push(&t->run, j.run_ms);
	return 0;
}

static int measure(struct bench *b, uint64_t mib, bool huge)
{
	const char *kind = huge ? "huge" : "4k";
	uint8_t *heap = bench_heap(mib << 20, huge);
	unsigned rounds = mib > 512 ? 3 : ROUNDS;
	struct bench_series *slower;
	struct times t = {0};

	for (unsigned i = 0; i < rounds; i++)
		if (!heap || measure_round(b, &t, heap, mib << 20, huge))
			return -1;
	bench_add(b, &t.stop, &t.fork, 1.2 * bench_median(&t.fork) + 0.3, "ms",
		"1.2 x fork() + 0.3 ms", "stop by telefork(), %llu MiB %s", (unsigned long long)mib,
		kind);
	slower = bench_median(&t.bare) > bench_median(&t.copy) ? &t.bare : &t.copy;
	if (mib == 1 && !huge)
		bench_add(b, &t.run, &t.bare, 2.5, "ms", "2.5 ms",
			"program with seven libraries, 1 MiB: runs after");
	if (mib > 1) {
		bench_add(b, &t.run, slower, bench_median(slower) / 0.9, "ms",
			slower == &t.bare ? "0.9 of bare TCP" : "0.9 of memcpy to fresh pages",
			"everything first, %llu MiB %s: copy runs after", (unsigned long long)mib,
			kind);
		bench_add(b, &t.fresh, NULL, 0, "ms", "zeroes as the copy has to",
			"bare TCP into fresh memory, %llu MiB %s", (unsigned long long)mib, kind);
	}
	bench_point(b, kind, mib, "fork", bench_median(&t.fork));
	bench_point(b, kind, mib, "stop", bench_median(&t.stop));
	bench_point(b, kind, mib, "memcpy", bench_median(&t.copy));
	bench_point(b, kind, mib, "bare", bench_median(&t.bare));
	bench_point(b, kind, mib, "fresh", bench_median(&t.fresh));
	bench_point(b, kind, mib, "telefork", bench_median(&t.run));
	return 0;
}

int bench_times(struct bench *b)
{
	static const uint64_t sizes[] = {1, 64, 512, 2048}; /* MiB */

	for (unsigned i = 0; i < (b->quick ? 2 : 4); i++)
		for (int huge = 0; huge < 2; huge++)
			if (bench_apart(b, measure, sizes[i], huge))
				return -1;
	return bench_small(b);
}
