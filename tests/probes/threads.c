/* SPDX-License-Identifier: MIT */
/*
 * threads: a program whose other threads never rest. Four of them hammer malloc, streams and
 * private memory while the main thread forks itself to the address, 50 times (3 where it is
 * emulated). In each copy only the main thread is there, no lock is held by a thread that is not,
 * and private memory is as it was at one point in time. A copy that hangs is ended by SIGALRM, and
 * its verdict is missing.
 */
#include "core/base/host.h"
#include "tests/probes/clib.h"
#include "tests/probes/probe.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define N_THREADS  4
#define ROUNDS     50
#define ROUNDS_EMU 3 /* an emulated thread does little */
#define COPY_LIMIT \
	200 /* seconds: a copy needs milliseconds, an emulated one on a busy machine more */

#define COUNTERS 2048
#define STRIDE   256 /* words: 2 KiB, so 4 MiB in all */

unsigned clib_checks;
static volatile uint64_t *counters;
static atomic_uint busy; /* threads that have begun */
static atomic_uint rounds[N_THREADS];

void clib_expect(int holds, const char *what)
{
	clib_checks++;
	if (!holds)
		probe_lost("%s", what);
}

/* One pass writes the same number into every counter, in order. */
static void count(uint64_t n)
{
	for (size_t i = 0; i < COUNTERS; i++)
		counters[i * STRIDE] = n;
}

static void hammer(unsigned *seed)
{
	void *p[32];
	char *text = NULL;
	size_t size;
	FILE *f;

	for (size_t i = 0; i < 32; i++)
		p[i] = malloc((size_t)rand_r(seed) % 5000 + 1);
	f = open_memstream(&text, &size);
	if (f) {
		fprintf(f, "%p %u", p[0], *seed);
		fclose(f);
	}
	free(text);
	for (size_t i = 0; i < 32; i++)
		free(p[i]);
}

static _Noreturn void *worker(void *arg)
{
	unsigned me = (unsigned)(uintptr_t)arg, seed = me;

	atomic_fetch_add(&busy, 1);
	for (uint64_t n = 1;; n++) {
		if (me)
			hammer(&seed);
		else
			count(n);
		atomic_fetch_add(&rounds[me], 1);
	}
}

static void *short_life(void *arg)
{
	return malloc(500) ? arg : NULL;
}

/* A pass was somewhere: all before that point are of the pass, all behind it of the one before. */
static void check_counters(void)
{
	uint64_t first = counters[0];
	bool fell = false, torn = false;

	for (size_t i = 1; i < COUNTERS; i++) {
		uint64_t n = counters[i * STRIDE];

		fell |= n != first;
		torn |= n != (fell ? first - 1 : first);
	}
	clib_expect(!torn, "private memory is not of one point in time");
}

static void verify(void)
{
	unsigned seed = 1, before[N_THREADS];
	pthread_t t;
	void *back = NULL;
	pid_t pid;
	int status = 0;

	check_counters();
	clib_expect(tf_host_threads() == 1, "other threads are there");
	for (unsigned i = 0; i < N_THREADS; i++)
		before[i] = atomic_load(&rounds[i]);
	for (int i = 0; i < 100; i++)
		hammer(&seed);
	clib_expect(!pthread_create(&t, NULL, short_life, before) && !pthread_join(t, &back) &&
			    back == before,
		"a thread");
	pid = fork();
	if (!pid)
		_exit(malloc(1000) ? 7 : 8);
	clib_expect(waitpid(pid, &status, 0) == pid && WEXITSTATUS(status) == 7, "fork");
	/* The library asks every thread that it knows of: the gone ones must not be among them. */
	clib_expect(!setgid(getgid()), "setgid");
	for (unsigned i = 0; i < N_THREADS; i++)
		clib_expect(atomic_load(&rounds[i]) == before[i], "a thread goes on");
}

static int copy_main(void)
{
	int fd = telefork_peer_fd();

	alarm(COPY_LIMIT);
	verify();
	probe_count("checks", clib_checks);
	return probe_say(fd < 0 ? STDOUT_FILENO : fd);
}

/* What the program's own wait() and handlers must not see. */
static volatile sig_atomic_t children_ended;

static void on_child(int signo)
{
	(void)signo;
	children_ended++;
}

/* One journey: 0 in the process when the verdict was ok; copies do not return. */
static int go(const struct probe_args *a)
{
	struct telefork_result r;
	struct telefork_job *job;
	int rc, fd = telefork_dial(a->address, &a->options, &r);

	if (fd < 0)
		return probe_error("threads", fd, r.message);
	rc = telefork(fd, &a->options, &job);
	if (!rc)
		exit(copy_main());
	if (rc > 0)
		rc = telefork_wait(job, &r);
	else
		*r.message = '\0';
	if (rc)
		return probe_error("threads", rc, r.message);
	rc = probe_hear("threads", fd);
	fflush(stdout); /* or every copy to come says it again */
	close(fd);
	return rc;
}

static int save(const struct probe_args *a)
{
	struct telefork_result r;
	int rc = telefork_save(a->address, &a->options, &r);

	if (!rc)
		return copy_main();
	return rc < 0 ? probe_error("threads", rc, r.message) : 0;
}

static void start(void)
{
	pthread_t t;

	counters = mmap(NULL, COUNTERS * STRIDE * 8, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	for (uintptr_t i = 0; i < N_THREADS; i++)
		if (pthread_create(&t, NULL, worker, (void *)i))
			probe_lost("no thread can be made at home");
	while (atomic_load(&busy) < N_THREADS || !atomic_load(&rounds[0]))
		usleep(100);
}

int main(int argc, char **argv)
{
	struct probe_args a;
	bool emulated = tf_host_emulated();
	int rc = 0;

	if (!probe_parse(argc, argv, "threads", &a))
		return 64;
	signal(SIGCHLD, on_child);
	start();
	if (a.file)
		return save(&a);
	for (int i = 0; i < (emulated ? ROUNDS_EMU : ROUNDS) && !rc; i++)
		rc = go(&a);
	/* QEMU 7.2 user mode cannot hide the snapshot from another thread's handler. */
	if (!rc && ((children_ended && !emulated) || waitpid(-1, NULL, WNOHANG) != -1 ||
			   errno != ECHILD)) {
		printf("not ok: a child of a snapshot shows\n");
		rc = 1;
	}
	return rc;
}
