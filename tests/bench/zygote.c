/* SPDX-License-Identifier: MIT */
/*
 * Copies of a program that a receiver keeps as a zygote, against children that the same program
 * forks itself: how long one takes, of so many at once, until the last has said its word. Either
 * opens the same pipe and says the bytes at AT_RANDOM, which all copies have of their own, then
 * stays until all are there. In turns.
 */
#include "tests/bench/bench.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/base/io.h"
#include "core/telefork_internal.h"

#define NAME   "bench"
#define ROUNDS 7
#define MOST   1000 /* copies at once */

/* Two pipes by name: words come through one, and when nobody writes to the other any more, who has
 * spoken ends. The ends here keep openings from waiting. */
struct gate {
	char folder[32], words[40], stay[40];
	int in, out, hold;
};

struct outcome {
	double ms;          /* of one */
	uint64_t own_bytes; /* of the last one: memory of its own, not shared with the others */
	unsigned alike;     /* words that another has said, too */
};

static int make_gate(struct gate *g)
{
	strcpy(g->folder, "/tmp/telefork-bench.XXXXXX");
	if (!mkdtemp(g->folder))
		return -1;
	snprintf(g->words, sizeof(g->words), "%s/words", g->folder);
	snprintf(g->stay, sizeof(g->stay), "%s/stay", g->folder);
	return mkfifo(g->words, 0600) || mkfifo(g->stay, 0600) ? -1 : 0;
}

static void remove_gate(const struct gate *g)
{
	unlink(g->words);
	unlink(g->stay);
	rmdir(g->folder);
}

static int open_gate(struct gate *g)
{
	g->in = open(g->words, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	g->out = open(g->words, O_WRONLY | O_CLOEXEC);
	g->hold = open(g->stay, O_RDWR | O_CLOEXEC);
	return g->in < 0 || g->out < 0 || g->hold < 0 || fcntl(g->in, F_SETFL, 0) ? -1 : 0;
}

/* Those who stay have gone, and their memory is given back, when the last end is closed. */
static void close_gate(struct gate *g)
{
	char rest;

	close(g->hold);
	close(g->out);
	while (read(g->in, &rest, 1) > 0)
		;
	close(g->in);
}

static _Noreturn void say_word(const struct gate *g)
{
	uint64_t word;
	char end;
	int out, stay;

	memcpy(&word, (const void *)getauxval(AT_RANDOM), sizeof(word));
	out = open(g->words, O_WRONLY);
	stay = open(g->stay, O_RDONLY);
	_exit(write(out, &word, sizeof(word)) != sizeof(word) || read(stay, &end, 1));
}

static int by_value(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

static int hear_words(const struct gate *g, unsigned n, uint64_t *words)
{
	for (size_t at = 0; at < n * sizeof(*words);) {
		ssize_t got = read(g->in, (char *)words + at, n * sizeof(*words) - at);

		if (got <= 0)
			return -1;
		at += (size_t)got;
	}
	return 0;
}

static unsigned count_alike(uint64_t *words, unsigned n)
{
	unsigned alike = 0;

	qsort(words, n, sizeof(*words), by_value);
	for (unsigned i = 1; i < n; i++)
		alike += words[i] == words[i - 1];
	return alike;
}

/* How n of them come to be: 0, and the last one's id. */
typedef int make_fn(const struct bench *b, const struct gate *g, unsigned n, pid_t *ret_last);

static int make_children(const struct bench *b, const struct gate *g, unsigned n, pid_t *ret_last)
{
	(void)b;
	for (unsigned i = 0; i < n; i++) {
		*ret_last = fork();
		if (!*ret_last) {
			close(g->hold); /* else it would wait for itself */
			say_word(g);
		}
		if (*ret_last < 0)
			return -1;
	}
	return 0;
}

static int make_copies(const struct bench *b, const struct gate *g, unsigned n, pid_t *ret_last)
{
	struct telefork_result result;
	pid_t pids[MOST] = {0};
	int rc = telefork_spawn(b->uri[BENCH_TCP], NAME, n, 0, pids, NULL, &result);

	(void)g;
	if (rc)
		fprintf(stderr, "bench: %s\n", result.message);
	*ret_last = pids[n - 1];
	return rc;
}

static int measure_once(
	const struct bench *b, struct gate *g, make_fn *make, unsigned n, struct outcome *ret)
{
	uint64_t words[MOST], start;
	pid_t last = 0;
	int rc;

	bench_warm(UINT64_C(256) << 20);
	if (open_gate(g))
		return -1;
	start = tf_now_ns();
	rc = make(b, g, n, &last);
	if (!rc)
		rc = hear_words(g, n, words);
	ret->ms = (double)(tf_now_ns() - start) / 1e6 / n;
	ret->own_bytes = rc ? 0 : bench_private_of(last);
	ret->alike = rc ? 0 : count_alike(words, n);
	close_gate(g);
	while (waitpid(-1, NULL, WNOHANG) > 0)
		;
	return rc;
}

/* This program, kept by the receiver. What is made of it does not return. */
static int become_zygote(const struct bench *b, const struct gate *g)
{
	struct telefork_options o = {.zygote = NAME};
	struct telefork_result result;
	struct telefork_job *job;
	int fd = telefork_dial(b->uri[BENCH_TCP], &o, &result), rc = fd;

	if (fd >= 0)
		rc = telefork(fd, &o, &job);
	if (!rc)
		say_word(g);
	if (rc == TELEFORK_PARENT)
		rc = telefork_wait(job, &result);
	if (fd >= 0)
		close(fd);
	if (rc)
		fprintf(stderr, "bench: %s\n", fd < 0 ? result.message : telefork_why());
	return rc;
}

static void drop_zygote(const struct bench *b)
{
	struct tf_zygote_ask ask = {.what = TF_ZYGOTE_DROP};
	struct tf_err e = {0};
	uint32_t n;

	tf_zygote_name_parse(NAME, &ask.name, &e);
	if (tf_zygote_request(b->uri[BENCH_TCP], NULL, &ask, NULL, 0, 0, &n, &e))
		fprintf(stderr, "bench: %s\n", e.text);
}

struct figures {
	struct bench_series fork, copy, fork_own, copy_own;
};

static int measure_round(const struct bench *b, struct gate *g, unsigned n, struct figures *f)
{
	struct outcome child = {0}, copy = {0};

	if (measure_once(b, g, make_children, n, &child) ||
		measure_once(b, g, make_copies, n, &copy))
		return -1;
	bench_push(&f->fork, child.ms);
	bench_push(&f->copy, copy.ms);
	bench_push(&f->fork_own, (double)child.own_bytes / 1048576);
	bench_push(&f->copy_own, (double)copy.own_bytes / 1048576);
	if (copy.alike)
		fprintf(stderr, "bench: %u of %u copies have random bytes of another\n", copy.alike,
			n);
	return copy.alike ? -1 : 0;
}

static void add_rows(
	struct bench *b, struct figures *f, unsigned long long mib, bool huge, unsigned n)
{
	const char *kind = huge ? "huge" : "4k";

	if (mib == 1 && !huge)
		bench_add(b, &f->copy, NULL, 0.2, "ms", "5,000 a second",
			"copy of a zygote, %llu MiB %s, %u at once", mib, kind, n);
	bench_add(b, &f->copy, &f->fork, 1.2 * bench_median(&f->fork), "ms", "1.2 x fork()",
		"copy of a zygote, %llu MiB %s, %u at once", mib, kind, n);
	bench_add(b, &f->copy_own, &f->fork_own, 1, "MiB", "shares its memory",
		"memory of its own, %llu MiB %s", mib, kind);
	bench_point(b, huge ? "zygote-huge" : "zygote-4k", mib, "fork", bench_median(&f->fork));
	bench_point(b, huge ? "zygote-huge" : "zygote-4k", mib, "copy", bench_median(&f->copy));
}

/* So many that asking for them does not count, and page tables do not fill the machine. */
static unsigned at_once(uint64_t mib, bool huge)
{
	uint64_t n = (huge ? UINT64_C(100000) : 8000) / mib;

	return n < MOST ? (unsigned)n : MOST;
}

static int measure(struct bench *b, uint64_t mib, bool huge)
{
	unsigned n = at_once(mib, huge);
	uint8_t *heap = bench_heap(mib << 20, huge);
	struct figures f = {0};
	struct gate g;
	int rc = !heap || make_gate(&g) || become_zygote(b, &g) ? -1 : 0;

	for (unsigned i = 0; i < ROUNDS && !rc; i++)
		rc = measure_round(b, &g, n, &f);
	if (!rc) {
		drop_zygote(b);
		add_rows(b, &f, mib, huge, n);
	}
	remove_gate(&g);
	return rc;
}

int bench_zygote(struct bench *b)
{
	static const uint64_t sizes[] = {1, 64, 512, 2048}; /* MiB */

	for (unsigned i = 0; i < (b->quick ? 2 : 4); i++) {
		if (bench_available() < 3 * sizes[i] << 20) {
			printf("copies of a zygote of %llu MiB: left out, there is no memory for it\n",
				(unsigned long long)sizes[i]);
			continue;
		}
		for (int huge = 0; huge < 2; huge++)
			if (bench_apart(b, measure, sizes[i], huge))
				return -1;
	}
	return 0;
}
