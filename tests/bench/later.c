/* SPDX-License-Identifier: MIT */
/*
 * Post-copy: when a copy runs, when all its memory is there, and how long a thread waits that
 * touches what has not come; against the same copy made with everything first, in turns. The
 * program notes itself, in a file, when it finds itself to be a copy, and how long its first
 * touches took of pages in no order. What came on its own is mapped: only a touch that waits is a
 * fault.
 */
#include "tests/bench/bench.h"

#include <fcntl.h>
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

#define ROUNDS  5
#define TOUCHES 2000u
#define WAIT_MS 60000

enum way { FIRST, LAZY, TOUCHED, WAYS };

static const char *const way_names[] = {"everything first", "post-copy", "and touched"};

/* What a copy notes. */
struct note {
	uint64_t runs_ns; /* tf_now_ns() */
	uint64_t touched, stalls;
	uint64_t stall_ns[TOUCHES];
};

struct figures {
	uint64_t runs_ns[WAYS], all_ns[WAYS], fork_ns;
	uint64_t stalls, median_ns, worst_ns; /* p99 */
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

static void write_note(const char *file, const void *bytes, size_t n)
{
	char temporary[300];
	int fd;

	snprintf(temporary, sizeof(temporary), "%s.%d", file, (int)getpid());
	fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0 || write(fd, bytes, n) != (ssize_t)n || rename(temporary, file))
		_exit(1);
	close(fd);
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
	write_note(file, &note, sizeof(note));
	while (getpid() == pid)
		nanosleep(&(struct timespec){.tv_nsec = 50000}, NULL);
	note.runs_ns = tf_now_ns();
	if (way == TOUCHED)
		touch(&note, heap, size);
	write_note(file, &note, sizeof(note));
	for (;;)
		pause();
}

/* --- the bench --- */

static int await_note(const char *file, struct note *ret)
{
	for (int ms = 0; ms < WAIT_MS; ms++) {
		int fd = open(file, O_RDONLY | O_CLOEXEC);
		ssize_t n = fd < 0 ? -1 : read(fd, ret, sizeof(*ret));

		if (fd >= 0)
			close(fd);
		if (n == sizeof(*ret)) {
			unlink(file);
			return 0;
		}
		usleep(1000);
	}
	return -1;
}

static int send_copy(struct tf_task *t, pid_t pid, const char *uri, bool lazy, int *ret_pid)
{
	static char message[TELEFORK_MESSAGE_MAX];
	static struct tf_errand errand;
	struct tf_reply reply = {0};
	struct tf_address address;
	struct tf_err *e = &t->capture.err;
	int rc, fd;

	t->post_copy = lazy;
	rc = tf_task_snapshot(t, pid);
	if (!rc)
		rc = tf_address_parse(uri, &address, e);
	fd = rc ? rc : tf_dial(&address, NULL, &errand, NULL, e);
	if (fd < 0)
		return fd;
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
	rc = await_note(file, &note);
	f->fork_ns = note.runs_ns;
	start = tf_now_ns();
	if (!rc)
		rc = send_copy(&task, pid, uri, way != FIRST, &copy);
	f->all_ns[way] = tf_now_ns() - start;
	if (rc)
		fprintf(stderr, "bench: %s\n", task.capture.err.text);
	tf_task_release(&task);
	if (!rc)
		rc = await_note(file, &note);
	f->runs_ns[way] = note.runs_ns - start;
	if (way == TOUCHED && !rc && note.stalls) {
		f->stalls = note.stalls;
		f->median_ns = bench_median(note.stall_ns, (unsigned)note.stalls);
		f->worst_ns = note.stall_ns[note.stalls * 99 / 100];
	}
	if (copy > 0)
		kill(copy, SIGKILL);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	return rc;
}

static uint64_t median_of(const struct figures *f, size_t offset)
{
	uint64_t v[ROUNDS];

	for (unsigned i = 0; i < ROUNDS; i++)
		memcpy(&v[i], (const char *)&f[i] + offset, sizeof(v[i]));
	return bench_median(v, ROUNDS);
}

#define MEDIAN(f, member) median_of(f, offsetof(struct figures, member))

static int measure(const char *uri, const char *file, uint64_t size, struct figures *ret)
{
	static struct figures f[ROUNDS];
	int rc = 0;

	for (unsigned i = 0; i < ROUNDS && !rc; i++)
		for (enum way way = 0; way < WAYS && !rc; way++)
			rc = measure_once(uri, file, size, way, &f[i]);
	for (enum way way = 0; way < WAYS; way++) {
		ret->runs_ns[way] = MEDIAN(f, runs_ns[way]);
		ret->all_ns[way] = MEDIAN(f, all_ns[way]);
	}
	ret->fork_ns = MEDIAN(f, fork_ns);
	ret->stalls = MEDIAN(f, stalls);
	ret->median_ns = MEDIAN(f, median_ns);
	ret->worst_ns = MEDIAN(f, worst_ns);
	return rc;
}

static void print(uint64_t mib, const struct figures *f)
{
	double fork_ms = (double)f->fork_ns / 1e6, runs = (double)f->runs_ns[LAZY] / 1e6;
	double all = (double)f->all_ns[LAZY] / (double)f->all_ns[FIRST];
	double median = (double)f->median_ns / 1e3;

	printf("%4llu MiB | %8.2f %8.2f %8.2f%-2s | %8.2f %8.2f %8.2f %5.2fx%-2s | %6llu %8.1f%-2s %8.1f\n",
		(unsigned long long)mib, fork_ms, (double)f->runs_ns[FIRST] / 1e6, runs,
		runs > fork_ms + 3 ? " *" : "", (double)f->all_ns[FIRST] / 1e6,
		(double)f->all_ns[LAZY] / 1e6, (double)f->all_ns[TOUCHED] / 1e6, all,
		all > 1.15 ? " *" : "", (unsigned long long)f->stalls, median,
		median > 100 ? " *" : "", (double)f->worst_ns / 1e3);
	fflush(stdout);
}

static json_t *to_json(uint64_t mib, const struct figures *f)
{
	json_t *ways = json_object();

	for (enum way way = 0; way < WAYS; way++)
		json_object_set_new(ways, way_names[way],
			json_pack("{s:I,s:I}", "runs_ns", (json_int_t)f->runs_ns[way], "all_ns",
				(json_int_t)f->all_ns[way]));
	return json_pack("{s:I,s:I,s:o,s:I,s:I,s:I}", "mib", (json_int_t)mib, "fork_ns",
		(json_int_t)f->fork_ns, "ways", ways, "stalls", (json_int_t)f->stalls,
		"stall_median_ns", (json_int_t)f->median_ns, "stall_p99_ns",
		(json_int_t)f->worst_ns);
}

int bench_later(const char *uri, bool quick, json_t *list)
{
	static const uint64_t sizes[] = {1, 64, 512, 2048};
	char folder[] = "/tmp/telefork-later.XXXXXX", file[sizeof(folder) + 8];
	int rc = mkdtemp(folder) ? 0 : -1;

	snprintf(file, sizeof(file), "%s/note", folder);
	printf("\n         |   fork()  copy runs after (ms)  |      all of it is there (ms)            |   stalls (us)\n"
	       "heap     |     (ms)    first    later      |    first    later  touched later/first  | number   median      p99\n");
	for (unsigned i = 0; i < sizeof(sizes) / sizeof(*sizes) - 2 * quick && !rc; i++) {
		struct figures f = {0};

		rc = measure(uri, file, sizes[i] << 20, &f);
		if (rc)
			fprintf(stderr, "bench: post-copy of %llu MiB could not be measured\n",
				(unsigned long long)sizes[i]);
		else
			print(sizes[i], &f);
		json_array_append_new(list, to_json(sizes[i], &f));
	}
	printf("* misses its aim: runs after fork() + 3 ms; all there in 1.15 x everything first; half "
	       "of the stalls below 100 us. See docs/bench.md\n");
	rmdir(folder);
	return rc;
}
