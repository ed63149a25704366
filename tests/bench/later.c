/* SPDX-License-Identifier: MIT */
/*
 * Post-copy: when a copy runs, when all its memory is there, and how long a thread waits that
 * touches what has not come; against the same copy made with everything first, in turns. The
 * program notes itself, in a file, when it finds itself to be a copy, and how long its first
 * touches took of pages in no order. What came on its own is mapped: only a touch that waits is a
 * fault.
 */
#include "tests/bench/bench.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "core/base/host.h"
#include "core/base/io.h"
#include "core/capture/task.h"
#include "core/channel/channel.h"
#include "core/telefork_internal.h"

#define ROUNDS  5u
#define TOUCHES 2000u

enum way { FIRST, LAZY, TOUCHED, WAYS };

/* What a copy notes. */
struct note {
	uint64_t runs_ns; /* tf_now_ns() */
	uint64_t touched, stalls;
	uint64_t stall_ns[TOUCHES];
};

/* In ms; stalls: medians, in us. */
struct figures {
	struct bench_series runs[WAYS], all[WAYS], forked, stalls;
};

/* --- the program --- */

static long faults(void)
{
	struct rusage r;

	getrusage(RUSAGE_THREAD, &r);
	return r.ru_minflt + r.ru_majflt;
}

static void touch(struct note *n, const volatile uint8_t *heap, uint64_t size)
{
	uint64_t x = 1;

	for (unsigned i = 0; i < TOUCHES; i++) {
		long before = faults();
		uint64_t start, ns;

		x = x * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
		start = tf_now_ns();
		(void)heap[(x >> 17) % size];
		ns = tf_now_ns() - start;
		n->touched++;
		if (faults() > before)
			n->stall_ns[n->stalls++] = ns;
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

static _Noreturn void be_subject(uint64_t size, const char *file, enum way way)
{
	static struct note note;
	pid_t pid = getpid();
	uint8_t *heap;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	tf_host_close_all(NULL, 0);
	heap = bench_heap(size, false);
	note.runs_ns = time_fork();
	bench_note(file, &note, sizeof(note));
	while (getpid() == pid)
		nanosleep(&(struct timespec){.tv_nsec = 50000}, NULL);
	note.runs_ns = tf_now_ns();
	if (way == TOUCHED)
		touch(&note, heap, size);
	bench_note(file, &note, sizeof(note));
	for (;;)
		pause();
}

/* --- the bench --- */

static int hear_welcome(void *dialing, struct tf_err *e)
{
	int fd = tf_dial_finish(dialing, NULL, e);

	return fd < 0 ? fd : 0;
}

static int send_copy(struct tf_task *t, pid_t pid, const char *uri, bool lazy, int *ret_pid)
{
	static char message[TELEFORK_MESSAGE_MAX];
	static struct tf_errand errand;
	static struct tf_dialing dialing;
	struct tf_reply reply = {0};
	struct tf_address address;
	struct tf_err *e = &t->capture.err;
	int rc, fd;

	t->post_copy = lazy;
	rc = tf_address_parse(uri, &address, e);
	/* First, as telefork copy does. */
	fd = rc ? rc : tf_dial_start(&dialing, &address, NULL, &errand, e);
	if (fd < 0)
		return fd;
	t->may_stop = hear_welcome;
	t->way = &dialing;
	rc = tf_task_snapshot(t, pid);
	if (!rc)
		rc = tf_task_save(t, fd);
	if (!rc)
		rc = tf_task_commit(t);
	if (!rc)
		rc = tf_task_answer(t, &reply, message);
	*ret_pid = reply.pid;
	if (!rc && lazy)
		rc = tf_task_serve(t, &reply, message);
	close(fd);
	return rc ? rc : reply.code;
}

static int by_size(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

static int measure_once(
	const char *uri, const char *file, uint64_t size, enum way way, struct figures *f)
{
	static struct tf_task task;
	static struct note note;
	int copy = 0, rc;
	uint64_t start;
	pid_t pid = fork();

	if (!pid)
		be_subject(size, file, way);
	rc = bench_await_note(file, &note, sizeof(note));
	bench_push(&f->forked, (double)note.runs_ns / 1e6);
	start = tf_now_ns();
	if (!rc)
		rc = send_copy(&task, pid, uri, way != FIRST, &copy);
	bench_push(&f->all[way], (double)(tf_now_ns() - start) / 1e6);
	if (rc)
		fprintf(stderr, "bench: %s\n", task.capture.err.text);
	tf_task_release(&task);
	if (!rc)
		rc = bench_await_note(file, &note, sizeof(note));
	bench_push(&f->runs[way], (double)(note.runs_ns - start) / 1e6);
	if (way == TOUCHED && !rc && note.stalls) {
		uint32_t middle = note.stalls / 2;

		qsort(note.stall_ns, note.stalls, sizeof(*note.stall_ns), by_size);
		bench_push(&f->stalls, (double)note.stall_ns[middle] / 1e3);
	}
	if (copy > 0)
		kill(copy, SIGKILL);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	return rc;
}

static int measure(struct bench *b, const char *file, uint64_t mib)
{
	static struct figures f;
	int rc = 0;

	f = (struct figures){0};
	for (unsigned i = 0; i < ROUNDS && !rc; i++)
		for (enum way way = 0; way < WAYS && !rc; way++)
			rc = measure_once(b->uri[BENCH_TCP], file, mib << 20, way, &f);
	if (rc)
		return rc;
	bench_add(b, &f.runs[LAZY], &f.forked, bench_median(&f.forked) + 3, "ms", "fork() + 3 ms",
		"post-copy runs after, %llu MiB", (unsigned long long)mib);
	bench_add(b, &f.all[LAZY], &f.all[FIRST], 1.15 * bench_median(&f.all[FIRST]), "ms",
		"1.15 x everything first", "post-copy all there, %llu MiB",
		(unsigned long long)mib);
	if (f.stalls.n)
		bench_add(b, &f.stalls, NULL, 100, "us", "100 us",
			"post-copy median stall, %llu MiB", (unsigned long long)mib);
	return 0;
}

int bench_later(struct bench *b)
{
	static const uint64_t sizes[] = {1, 64, 512, 2048};
	char folder[] = "/tmp/telefork-later.XXXXXX", file[sizeof(folder) + 8];
	int rc = mkdtemp(folder) ? 0 : -1;

	snprintf(file, sizeof(file), "%s/note", folder);
	for (unsigned i = 0; i < sizeof(sizes) / sizeof(*sizes) - 2 * b->quick && !rc; i++) {
		rc = measure(b, file, sizes[i]);
		if (rc)
			fprintf(stderr, "bench: post-copy of %llu MiB could not be measured\n",
				(unsigned long long)sizes[i]);
	}
	rmdir(folder);
	return rc;
}
