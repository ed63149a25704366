/* SPDX-License-Identifier: MIT */
/*
 * What copying on write costs a program that goes on: in the second after, it writes to one page
 * after the other. Of each second of processor time that it has, for its snapshot and the receiver
 * are at work as well. After fork() the child only sleeps. And memory of the two sides.
 */
#include "tests/bench/bench.h"

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "core/base/io.h"
#include "core/job.h"

#define ROUNDS 3
#define PAGE   4096u

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25 /* Linux 6.1 */
#endif

static double cpu_seconds(void)
{
	return (double)tf_clock_ns(CLOCK_PROCESS_CPUTIME_ID) / 1e9;
}

/* Pages written to in each second of processor time, within a second. */
static double work(uint8_t *heap, uint64_t size)
{
	uint64_t until = tf_now_ns() + 1000000000u, n = 0;
	double cpu = cpu_seconds();

	while (tf_now_ns() < until)
		for (unsigned i = 0; i < 256; i++, n++)
			heap[n * PAGE % size] ^= 1;
	return (double)n / (cpu_seconds() - cpu);
}

struct lost {
	struct bench_series fork, gone, telefork, split, told;
};

/* As they were before somebody wrote to them. */
static void join(uint8_t *heap, uint64_t size, bool huge)
{
	if (huge)
		madvise(heap, size, MADV_COLLAPSE);
}

static double huge_mib(void)
{
	return (double)bench_memory_of(getpid(), "smaps_rollup", "AnonHugePages:") / 1048576;
}

/* A fork that stays, or whose pages have all left before the first write. */
static double work_beside_fork(uint8_t *heap, uint64_t size, bool stays)
{
	pid_t pid = fork();
	double done;

	if (!pid) {
		pause();
		_exit(0);
	}
	if (!stays) {
		kill(pid, SIGKILL);
		waitpid(pid, NULL, 0);
	}
	done = work(heap, size);
	if (stays) {
		kill(pid, SIGKILL);
		waitpid(pid, NULL, 0);
	}
	work(heap, size);
	return done;
}

static int measure_round(struct bench *b, struct lost *l, uint8_t *heap, uint64_t size, bool huge)
{
	struct bench_journey j = {0};
	double alone, before;

	bench_warm(2 * size);
	work(heap, size); /* every page is this process's own again */
	alone = work(heap, size);
	join(heap, size, huge);
	bench_push(&l->fork, 100 * (1 - work_beside_fork(heap, size, true) / alone));
	join(heap, size, huge);
	bench_push(&l->gone, 100 * (1 - work_beside_fork(heap, size, false) / alone));
	join(heap, size, huge);
	before = huge_mib();
	if (bench_depart(&j, b, BENCH_TCP))
		return -1;
	bench_push(&l->telefork, 100 * (1 - work(heap, size) / alone));
	if (bench_arrive(&j))
		return -1;
	bench_push(&l->split, before - huge_mib());
	bench_push(&l->told, (double)j.split / 1048576);
	bench_leave(&j, b->serve[BENCH_TCP]);
	return 0;
}

static int measure_work(struct bench *b, uint64_t mib, bool huge)
{
	uint8_t *heap = bench_heap(mib << 20, huge);
	struct lost l = {0};

	for (int i = 0; i < ROUNDS; i++)
		if (!heap || measure_round(b, &l, heap, mib << 20, huge))
			return -1;
	bench_add(b, &l.gone, &l.fork, bench_median(&l.fork) / 2, "%", "half of fork()'s",
		"the same, if all pages leave before, %llu MiB %s", (unsigned long long)mib,
		huge ? "huge" : "4k");
	bench_add(b, &l.telefork, &l.fork, bench_median(&l.fork) / 2, "%", "half of fork()'s",
		"work lost to copy-on-write, %llu MiB %s", (unsigned long long)mib,
		huge ? "huge" : "4k");
	if (huge)
		bench_add(b, &l.split, &l.told, bench_median(&l.told) + 2, "MiB", "what is told",
			"huge pages that fell apart, of %llu MiB", (unsigned long long)mib);
	return 0;
}

int bench_work(struct bench *b)
{
	for (int huge = 0; huge < 2; huge++)
		if (bench_apart(b, measure_work, b->quick ? 64 : 512, huge))
			return -1;
	return 0;
}

/* --- memory --- */

/* The session's memory, and the copy's beyond what was carried: both are there still. */
static uint64_t receivers_own(pid_t serve, uint64_t carried)
{
	pid_t session = bench_last_child(serve);
	uint64_t own = bench_private_of(session),
		 of_copy = bench_private_of(bench_last_child(session));

	return own + (of_copy > carried ? of_copy - carried : 0);
}

static int measure_own(struct bench *b, uint64_t mib, bool huge)
{
	struct bench_series here = {0}, there = {0};
	struct bench_journey j = {0};
	struct pollfd done;
	uint64_t most = 0;

	if (!bench_heap(mib << 20, huge) || bench_depart(&j, b, BENCH_TCP))
		return -1;
	done = (struct pollfd){.fd = telefork_job_fd(j.job), .events = POLLIN};
	do { /* the largest of what is seen while it sends */
		uint64_t now = bench_private_of(j.job->snapshot);

		most = now > most ? now : most;
	} while (!poll(&done, 1, 0));
	if (bench_arrive(&j))
		return -1;
	bench_push(&here, (double)most / 1048576);
	bench_push(&there, (double)receivers_own(b->serve[BENCH_TCP], j.memory) / 1048576);
	bench_leave(&j, b->serve[BENCH_TCP]);
	bench_add(b, &here, NULL, 16, "MiB", "16 MiB", "extra memory at the source, %llu MiB %s",
		(unsigned long long)mib, huge ? "huge" : "4k");
	bench_add(b, &there, NULL, 16, "MiB", "16 MiB",
		"extra memory at the destination, %llu MiB %s", (unsigned long long)mib,
		huge ? "huge" : "4k");
	return 0;
}

int bench_own(struct bench *b)
{
	return bench_apart(b, measure_own, b->quick ? 64 : 512, false);
}
