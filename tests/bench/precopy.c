/* SPDX-License-Identifier: MIT */
/*
 * Pre-copy: how long a program stands still that is moved while it writes 50 MB/s to pages of its
 * heap in no order, and how long the move takes; with rounds and without, in turns. The program
 * looks at the clock, and notes, in a file, the gap that it finds when it is another process.
 */
#include "tests/bench/bench.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "core/base/host.h"
#include "core/base/io.h"

#define ROUNDS  5u
#define PAGE    4096u
#define WRITES  50e6 /* bytes of pages, in a second */
#define LOOK_NS 100000

enum way { PLAIN, PRECOPY, WAYS };

static const char *const option[WAYS] = {"--no-precopy", "--precopy"};

/* What the program notes when it is ready, and when it has moved. */
struct note {
	pid_t pid;
	uint64_t stood_ns;
};

struct figures {
	struct bench_series stood[WAYS], all[WAYS]; /* ms */
};

/* --- the program --- */

static void write_some(uint8_t *heap, uint64_t size, uint64_t n)
{
	static uint64_t x = 1;

	while (n--) {
		x = x * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
		++heap[(x >> 17) % (size / PAGE) * PAGE];
	}
}

static _Noreturn void be_subject(uint64_t size, const char *file)
{
	struct note note = {.pid = getpid()};
	pid_t pid = note.pid;
	uint64_t first, last, written = 0;
	uint8_t *heap;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	tf_host_close_all(NULL, 0);
	heap = bench_heap(size, false);
	bench_note(file, &note, sizeof(note));
	for (first = last = tf_now_ns(); pid == note.pid; pid = getpid()) {
		uint64_t now = tf_now_ns(),
			 due = (uint64_t)((double)(now - first) / 1e9 * WRITES / PAGE);

		note.stood_ns = now - last; /* it may have moved since it asked who it is */
		last = now;
		write_some(heap, size, due - written);
		written = due;
		nanosleep(&(struct timespec){.tv_nsec = LOOK_NS}, NULL);
	}
	if (tf_now_ns() - last > note.stood_ns)
		note.stood_ns = tf_now_ns() - last;
	note.pid = pid;
	bench_note(file, &note, sizeof(note));
	for (;;)
		pause();
}

/* --- the bench --- */

int bench_move(
	const struct bench *b, pid_t pid, const char *uri, const char *rounds, const char *compress)
{
	const char *name = strrchr(b->pad, '/');
	char program[512], number[16];
	char *argv[] = {program, (char *)"move", (char *)"-q", (char *)rounds, (char *)compress,
		(char *)"--store=never", (char *)"--allow=all", number, (char *)uri, NULL};
	int status = -1;
	pid_t mover;

	snprintf(program, sizeof(program), "%.*stelefork", name ? (int)(name + 1 - b->pad) : 0,
		b->pad);
	snprintf(number, sizeof(number), "%d", (int)pid);
	mover = fork();
	if (!mover) {
		int null = open("/dev/null", O_WRONLY);

		if (null >= 0)
			dup2(null, 2);
		execv(program, argv);
		_exit(127);
	}
	if (mover > 0)
		waitpid(mover, &status, 0);
	return status ? -1 : 0;
}

static int measure_once(
	struct bench *b, const char *file, uint64_t size, enum way way, struct figures *f)
{
	struct note note;
	uint64_t start;
	pid_t pid = fork();
	int rc;

	if (!pid)
		be_subject(size, file);
	rc = bench_await_note(file, &note, sizeof(note));
	start = tf_now_ns();
	if (!rc)
		rc = bench_move(b, pid, b->uri[BENCH_TCP], option[way], "--compress=auto");
	bench_push(&f->all[way], (double)(tf_now_ns() - start) / 1e6);
	if (!rc)
		rc = bench_await_note(file, &note, sizeof(note));
	bench_push(&f->stood[way], (double)note.stood_ns / 1e6);
	if (!rc)
		kill(note.pid, SIGKILL);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	while (bench_last_child(b->serve[BENCH_TCP])) /* its memory is given back */
		usleep(1000);
	return rc;
}

static int measure(struct bench *b, const char *file, uint64_t mib)
{
	struct figures f = {0};
	int rc = 0;

	for (unsigned i = 0; i < ROUNDS && !rc; i++)
		for (enum way way = 0; way < WAYS && !rc; way++)
			rc = measure_once(b, file, mib << 20, way, &f);
	if (rc)
		return rc;
	bench_add(b, &f.stood[PRECOPY], NULL, 20, "ms", "20 ms",
		"pre-copy, 50 MB/s written, stopped, %llu MiB", (unsigned long long)mib);
	bench_add(b, &f.stood[PRECOPY], &f.stood[PLAIN], bench_median(&f.stood[PLAIN]), "ms",
		"no rounds", "the same, against no rounds, %llu MiB", (unsigned long long)mib);
	bench_add(b, &f.all[PRECOPY], &f.all[PLAIN], 1.5 * bench_median(&f.all[PLAIN]), "ms",
		"1.5 x no rounds", "the same, the whole move, %llu MiB", (unsigned long long)mib);
	return 0;
}

int bench_precopy(struct bench *b)
{
	static const uint64_t sizes[] = {1, 8, 64, 512, 2048};
	char folder[] = "/tmp/telefork-precopy.XXXXXX", file[sizeof(folder) + 8];
	int rc = mkdtemp(folder) ? 0 : -1;

	snprintf(file, sizeof(file), "%s/note", folder);
	for (unsigned i = 0; i < sizeof(sizes) / sizeof(*sizes) - 2 * b->quick && !rc; i++) {
		rc = measure(b, file, sizes[i]);
		if (rc)
			fprintf(stderr, "bench: pre-copy of %llu MiB could not be measured\n",
				(unsigned long long)sizes[i]);
	}
	rmdir(folder);
	return rc;
}
