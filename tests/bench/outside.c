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

#define REPEAT 5

enum { LOOK, FORK }; /* what the program is to do */

/* Shared with the program. */
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

static uint64_t time_fork(void)
{
	uint64_t start = tf_now_ns(), ns;
	pid_t pid = fork();

	if (!pid)
		_exit(0);
	ns = tf_now_ns() - start;
	waitpid(pid, NULL, 0);
	return ns;
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
			s->fork_ns = time_fork();
			s->what = LOOK;
			now = tf_now_ns();
		}
		last = now;
	}
}

struct figures {
	uint64_t fork_ns, stood_ns, gap_ns, mappings;
};

static int measure_once(struct subject *s, pid_t pid, struct figures *f)
{
	static struct tf_task task;
	int rc;

	s->what = FORK;
	while (s->what == FORK)
		usleep(1000);
	f->fork_ns = s->fork_ns;
	s->gap_ns = 0;
	rc = tf_task_snapshot(&task, pid);
	if (rc || task.stands[0]) {
		fprintf(stderr, "bench: %s%s\n", task.capture.err.text, task.stands);
		rc = -1;
	}
	f->stood_ns = task.released_ns - task.stopped_ns;
	f->mappings = task.capture.image.n_maps;
	usleep(10000); /* it looks at the clock again */
	f->gap_ns = s->gap_ns;
	tf_task_release(&task);
	return rc;
}

static int measure(unsigned row, struct figures *ret)
{
	struct subject *s =
		mmap(NULL, sizeof(*s), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	uint64_t forked[REPEAT], stood[REPEAT], gap[REPEAT];
	pid_t pid = fork();
	int rc = 0;

	if (!pid)
		be_subject(s, row);
	while (!s->ready && !rc)
		rc = waitpid(pid, NULL, WNOHANG) || usleep(10000) ? -1 : 0;
	for (int i = 0; i < REPEAT && !rc; i++) {
		rc = measure_once(s, pid, ret);
		forked[i] = ret->fork_ns;
		stood[i] = ret->stood_ns;
		gap[i] = ret->gap_ns;
	}
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	munmap(s, sizeof(*s));
	if (rc)
		return rc;
	ret->fork_ns = bench_median(forked, REPEAT);
	ret->stood_ns = bench_median(stood, REPEAT);
	ret->gap_ns = bench_median(gap, REPEAT);
	return 0;
}

static void print(unsigned row, const struct figures *f)
{
	double fork_ms = (double)f->fork_ns / 1e6, stood = (double)f->stood_ns / 1e6;
	double aim = 1.2 * fork_ms + 0.3 + 0.05 * rows[row].threads + 0.0001 * (double)f->mappings;

	printf("%4llu MiB %-4s %7u %8llu | %8.3f %8.3f %8.3f | %8.3f %5.2fx%s\n",
		(unsigned long long)rows[row].mib, rows[row].huge ? "huge" : "4k",
		rows[row].threads, (unsigned long long)f->mappings, fork_ms, stood,
		(double)f->gap_ns / 1e6, aim, stood / aim, stood > aim ? " *" : "");
	fflush(stdout);
}

int bench_outside(bool quick, json_t *list)
{
	printf("\n                                |  it stands still (ms)      |      aim\n"
	       "heap     pages threads mappings |   fork() captured  noticed |     (ms)  captured/aim\n");
	for (unsigned i = 0; i < ROWS - 2 * quick; i++) {
		struct figures f;

		if (measure(i, &f)) {
			fprintf(stderr, "bench: row %u could not be measured\n", i);
			return -1;
		}
		print(i, &f);
		json_array_append_new(list,
			json_pack("{s:I,s:s,s:i,s:I,s:I,s:I,s:I}", "mib", (json_int_t)rows[i].mib,
				"pages", rows[i].huge ? "huge" : "4k", "threads",
				(int)rows[i].threads, "mappings", (json_int_t)f.mappings, "fork_ns",
				(json_int_t)f.fork_ns, "captured_ns", (json_int_t)f.stood_ns,
				"noticed_ns", (json_int_t)f.gap_ns));
	}
	printf("* misses its aim: 1.2 x fork() + 0.3 ms + 50 us a thread + 0.1 ms for 1,000 "
	       "mappings. See docs/bench.md\n");
	return 0;
}
