/* SPDX-License-Identifier: MIT */
/*
 * How long a program stands still that is captured from outside, against its own fork(). It looks
 * at the clock all the time: the largest gap is what it noticed.
 */
#include "tests/bench/bench.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/base/io.h"
#include "core/capture/task.h"

#define ROUNDS 5

enum { LOOK, FORK }; /* what the program is to do */

/* Shared with the program; gap: what it noticed itself. */
struct subject {
	volatile int ready, what;
	volatile uint64_t fork_ns, gap_ns;
};

static const struct {
	uint64_t mib;
	bool huge;
	unsigned threads, mappings;
} rows[] = {
	{1, false, 1, 0},
	{64, false, 1, 0},
	{64, true, 1, 0},
	{1, false, 64, 0},
	{1, false, 1000, 0},
	{1, false, 1, 10000},
	{1, false, 1, 60000},
	{512, false, 1, 0},
	{512, true, 1, 0},
};

#define ROWS (sizeof(rows) / sizeof(*rows))

static void *sleep_on(void *arg)
{
	for (;;)
		pause();
	return arg;
}

static void start_threads(unsigned n)
{
	pthread_attr_t attr;

	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, 65536);
	for (unsigned i = 1; i < n; i++) {
		pthread_t t;

		if (pthread_create(&t, &attr, sleep_on, NULL))
			_exit(1);
	}
}

/* Every second one is written to, and every second one is not like its neighbours. */
static void make_mappings(unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		int prot = i & 1 ? PROT_READ : PROT_READ | PROT_WRITE;
		char *p = mmap(NULL, 4096, prot, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		if (p == MAP_FAILED)
			_exit(1);
		if (!(i & 1))
			*p = 1;
	}
}

static _Noreturn void be_subject(struct subject *s, unsigned row)
{
	uint64_t last;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	bench_heap(rows[row].mib << 20, rows[row].huge);
	make_mappings(rows[row].mappings);
	start_threads(rows[row].threads);
	s->ready = 1;
	for (last = tf_now_ns();;) {
		uint64_t now = tf_now_ns();

		if (now - last > s->gap_ns)
			s->gap_ns = now - last;
		if (s->what == FORK) {
			s->fork_ns = (uint64_t)(bench_fork() * 1e6);
			s->what = LOOK;
			now = tf_now_ns();
		}
		last = now;
	}
}

struct figures {
	struct bench_series fork, floor, stood, gap;
	uint64_t mappings;
};

static int measure_once(struct subject *s, pid_t pid, struct figures *f)
{
	static struct tf_task task;
	double floor;
	int rc;

	s->what = FORK;
	while (s->what == FORK)
		usleep(1000);
	bench_push(&f->fork, (double)s->fork_ns / 1e6);
	s->gap_ns = 0;
	rc = tf_task_snapshot(&task, pid);
	if (rc || task.stands[0]) {
		fprintf(stderr, "bench: %s%s\n", task.capture.err.text, task.stands);
		rc = -1;
	}
	bench_push(&f->stood, (double)(task.released_ns - task.stopped_ns) / 1e6);
	f->mappings = task.capture.image.n_maps;
	usleep(10000); /* it looks at the clock again */
	bench_push(&f->gap, (double)s->gap_ns / 1e6);
	tf_task_release(&task);
	floor = bench_floor(pid);
	bench_push(&f->floor, (double)s->fork_ns / 1e6 + floor);
	return floor < 0 ? -1 : rc;
}

static int measure(unsigned row, struct figures *f)
{
	struct subject *s =
		mmap(NULL, sizeof(*s), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	pid_t pid = fork();
	int rc = 0;

	if (!pid)
		be_subject(s, row);
	while (!s->ready && !rc)
		rc = waitpid(pid, NULL, WNOHANG) || usleep(10000) ? -1 : 0;
	for (int i = 0; i < ROUNDS && !rc; i++)
		rc = measure_once(s, pid, f);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	munmap(s, sizeof(*s));
	return rc;
}

int bench_outside(struct bench *b)
{
	for (unsigned i = 0; i < ROWS - 2 * b->quick; i++) {
		const char *kind = rows[i].huge ? "huge" : "4k";
		unsigned long long mib = rows[i].mib;
		struct figures f = {0};
		double limit;

		if (measure(i, &f)) {
			fprintf(stderr, "bench: outside, row %u could not be measured\n", i);
			return -1;
		}
		limit = 1.2 * bench_median(&f.fork) + 0.3 + 0.05 * rows[i].threads +
			0.0001 * (double)f.mappings;
		bench_add(b, &f.stood, &f.fork, limit, "ms", "and 50 us a thread, 0.1 us a mapping",
			"stop from outside, %llu MiB %s, threads %u, maps %llu", mib, kind,
			rows[i].threads, (unsigned long long)f.mappings);
		bench_add(b, &f.floor, &f.fork, limit, "ms", "what no tracer does without",
			"its floor, %llu MiB %s, threads %u, maps %llu", mib, kind, rows[i].threads,
			(unsigned long long)f.mappings);
	}
	return 0;
}
