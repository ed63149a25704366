/* SPDX-License-Identifier: MIT */
/*
 * The measurements of bench.h. Everything that is compared with another figure is taken in the same
 * process and in turns with it. Incompressible content; one word of each page is written by
 * "work". */
#include "tests/bench/bench.h"
#include "core/job.h"
#include "core/base/io.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define REPEAT 5
#define HUGE   (UINT64_C(2) << 20)
#define PAGE   4096u
#define SECOND UINT64_C(1000000000)

struct heap {
	uint8_t *at;
	uint64_t size;
	bool huge;
};

static int compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

uint64_t bench_median(uint64_t *v, unsigned n)
{
	qsort(v, n, sizeof(*v), compare);
	return v[n / 2];
}

/* Fresh memory of one kind, aligned to a huge page. NULL on failure. */
static uint8_t *fresh(uint64_t size, bool huge, void **ret_whole)
{
	uint8_t *p =
		mmap(NULL, size + HUGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		return NULL;
	*ret_whole = p;
	p = (uint8_t *)(((uintptr_t)p + HUGE - 1) & ~(uintptr_t)(HUGE - 1));
	madvise(p, size, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
	return p;
}

static void fill(const struct heap *h)
{
	uint64_t x = 88172645463325252u;

	for (uint64_t i = 0; i < h->size / 8; i++) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		((uint64_t *)(void *)h->at)[i] = x;
	}
}

uint8_t *bench_heap(uint64_t size, bool huge)
{
	void *whole;
	struct heap h = {fresh(size, huge, &whole), size, huge};

	if (h.at)
		fill(&h);
	return h.at;
}

/* The sum of a field of /proc/PID/smaps_rollup or smaps, in bytes. */
static uint64_t memory_of(int pid, const char *file, const char *field)
{
	char path[64], line[256];
	uint64_t sum = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/%s", pid, file);
	f = fopen(path, "r");
	while (f && fgets(line, sizeof(line), f))
		if (!strncmp(line, field, strlen(field)))
			sum += strtoull(line + strlen(field), NULL, 10) * 1024;
	if (f)
		fclose(f);
	return sum;
}

static uint64_t private_of(int pid)
{
	return memory_of(pid, "smaps_rollup", "Private_Dirty:") +
	       memory_of(pid, "smaps_rollup", "Private_Clean:");
}

static uint64_t measure_fork(void)
{
	uint64_t start = tf_now_ns(), ns;
	pid_t pid = fork();

	if (!pid)
		_exit(0);
	ns = tf_now_ns() - start;
	waitpid(pid, NULL, 0);
	return ns;
}

static uint64_t cpu_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
	return (uint64_t)ts.tv_sec * SECOND + (uint64_t)ts.tv_nsec;
}

/* A second's work: pages written to, one after the other, and the processor time that it had. */
struct work {
	double pages, cpu;
};

static struct work work(const struct heap *h)
{
	uint64_t cpu = cpu_ns(), until = tf_now_ns() + SECOND, n = 0;

	while (tf_now_ns() < until)
		for (unsigned i = 0; i < 256; i++, n++)
			h->at[n * PAGE % h->size] ^= 1;
	return (struct work){(double)n, (double)(cpu_ns() - cpu)};
}

/* Parts of undisturbed work that were not done: of the second, and of each second of processor
 * time. */
static struct bench_lost lost(const struct work *w, const struct work *undisturbed)
{
	return (struct bench_lost){
		.second = 1 - w->pages / undisturbed->pages,
		.cpu = 1 - w->pages / w->cpu / (undisturbed->pages / undisturbed->cpu),
	};
}

int bench_socketpair(enum bench_link link, int fd[2])
{
	struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(in);
	int listener;

	if (link == BENCH_UNIX)
		return socketpair(AF_UNIX, SOCK_STREAM, 0, fd);
	listener = socket(AF_INET, SOCK_STREAM, 0);
	fd[0] = socket(AF_INET, SOCK_STREAM, 0);
	if (bind(listener, (struct sockaddr *)&in, len) || listen(listener, 1) ||
		getsockname(listener, (struct sockaddr *)&in, &len) ||
		connect(fd[0], (struct sockaddr *)&in, len))
		return -1;
	fd[1] = accept(listener, NULL, NULL);
	close(listener);
	return fd[1] < 0 ? -1 : 0;
}

static _Noreturn void bare_receiver(int fd, uint64_t size, bool huge)
{
	void *whole;
	uint8_t *to = fresh(size, huge, &whole);

	for (uint64_t at = 0; to && at < size;) {
		ssize_t n = read(fd, to + at, size - at);

		if (n <= 0)
			_exit(1);
		at += (uint64_t)n;
	}
	_exit(write(fd, "x", 1) != 1);
}

/* The receiver is there before the clock starts, its memory is not. */
static int measure_bare(const struct heap *h, enum bench_link link, uint64_t *ret_ns)
{
	int fd[2], status;
	uint64_t start;
	pid_t pid;
	char done;

	if (bench_socketpair(link, fd))
		return -1;
	pid = fork();
	if (!pid) {
		munmap(h->at, h->size); /* not shared with the sender */
		bare_receiver(fd[1], h->size, h->huge);
	}
	start = tf_now_ns();
	for (uint64_t at = 0; at < h->size;) {
		ssize_t n = write(fd[0], h->at + at, h->size - at);

		if (n <= 0)
			return -1;
		at += (uint64_t)n;
	}
	if (read(fd[0], &done, 1) != 1)
		return -1;
	*ret_ns = tf_now_ns() - start;
	close(fd[0]);
	close(fd[1]);
	waitpid(pid, &status, 0);
	return 0;
}

/* One journey. The copy says one word and waits for the end of the connection. */
struct journey {
	int fd;
	struct telefork_job *job;
	uint64_t start, stop_ns, run_ns;
	struct telefork_result result;
};

static int depart(struct journey *j, const char *uri)
{
	int rc;

	j->fd = telefork_dial(uri, NULL, &j->result);
	if (j->fd < 0)
		return j->fd;
	j->start = tf_now_ns();
	rc = telefork(j->fd, NULL, &j->job);
	if (!rc) {
		char end;
		int back = telefork_peer_fd();

		_exit(write(back, "x", 1) != 1 || read(back, &end, 1));
	}
	j->stop_ns = tf_now_ns() - j->start;
	return rc == TELEFORK_PARENT ? 0 : rc;
}

/* The word first, the snapshot's end later: until the job is done the answer is the snapshot's to
 * read. */
static int arrive(struct journey *j)
{
	struct pollfd done = {.fd = telefork_job_fd(j->job), .events = POLLIN};
	char word;
	bool told = poll(&done, 1, -1) == 1 && read(j->fd, &word, 1) == 1;
	int rc;

	j->run_ns = tf_now_ns() - j->start;
	rc = telefork_wait(j->job, &j->result);
	return rc || told ? rc : TELEFORK_E_CLOSED;
}

/* Pid of the last child of pid, 0 if it has none. */
static int last_child(int pid)
{
	char path[64];
	int child = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/task/%d/children", pid, pid);
	f = fopen(path, "r");
	while (f && fscanf(f, "%d", &child) == 1)
		;
	if (f)
		fclose(f);
	return child;
}

/* Ends the copy, and waits until its memory is given back: else that disturbs what comes next. */
static void leave(struct journey *j, int serve)
{
	close(j->fd);
	while (last_child(serve))
		usleep(1000);
}

static int measure_telefork(const struct bench_receivers *r, enum bench_link link,
	uint64_t *ret_stop_ns, uint64_t *ret_run_ns)
{
	struct journey j = {0};
	int rc = depart(&j, r->uri[link]);

	if (!rc)
		rc = arrive(&j);
	if (rc)
		fprintf(stderr, "bench: %s\n", j.result.message);
	leave(&j, r->pid[link]);
	*ret_stop_ns = j.stop_ns;
	*ret_run_ns = j.run_ns;
	return rc ? -1 : 0;
}

/* In turns, so that what else the machine does meets all alike. */
static int measure_times(
	const struct heap *h, const struct bench_receivers *r, struct bench_figures *f)
{
	uint64_t forked[REPEAT], bare[BENCH_LINKS][REPEAT], stop[BENCH_LINKS][REPEAT],
		run[BENCH_LINKS][REPEAT];

	for (int i = 0; i < REPEAT; i++) {
		forked[i] = measure_fork();
		for (int l = 0; l < BENCH_LINKS; l++)
			if (measure_bare(h, l, &bare[l][i]) ||
				measure_telefork(r, l, &stop[l][i], &run[l][i]))
				return -1;
	}
	f->fork_ns = bench_median(forked, REPEAT);
	for (int l = 0; l < BENCH_LINKS; l++) {
		f->bare_ns[l] = bench_median(bare[l], REPEAT);
		f->stop_ns[l] = bench_median(stop[l], REPEAT);
		f->run_ns[l] = bench_median(run[l], REPEAT);
	}
	return 0;
}

static int measure_lost(
	const struct heap *h, const struct bench_receivers *r, struct bench_figures *f)
{
	struct work undisturbed, w;
	struct journey j = {0};
	pid_t pid;

	work(h); /* every page is this process's own again */
	undisturbed = work(h);
	pid = fork();
	if (!pid) {
		pause();
		_exit(0);
	}
	w = work(h);
	f->lost_fork = lost(&w, &undisturbed);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	work(h);
	f->huge_before = memory_of(getpid(), "smaps_rollup", "AnonHugePages:");
	if (depart(&j, r->uri[BENCH_UNIX]))
		return -1;
	w = work(h);
	f->lost_telefork = lost(&w, &undisturbed);
	f->huge_after = memory_of(getpid(), "smaps_rollup", "AnonHugePages:");
	if (arrive(&j))
		return -1;
	leave(&j, r->pid[BENCH_UNIX]);
	return 0;
}

/* The session's memory, and the copy's beyond what was carried: both are there still. */
static uint64_t receivers_own(int serve, uint64_t carried)
{
	int session = last_child(serve);
	uint64_t own = private_of(session), of_copy = private_of(last_child(session));

	return own + (of_copy > carried ? of_copy - carried : 0);
}

static int measure_memory(const struct bench_receivers *r, struct bench_figures *f)
{
	struct journey j = {0};
	struct pollfd done;

	if (depart(&j, r->uri[BENCH_UNIX]))
		return -1;
	done = (struct pollfd){.fd = telefork_job_fd(j.job), .events = POLLIN};
	do { /* the largest of what is seen while it sends */
		uint64_t now = private_of(j.job->snapshot);

		if (now > f->snapshot_own)
			f->snapshot_own = now;
	} while (!poll(&done, 1, 0));
	if (arrive(&j))
		return -1;
	f->receiver_own = receivers_own(r->pid[BENCH_UNIX], j.result.memory);
	leave(&j, r->pid[BENCH_UNIX]);
	return 0;
}

int bench_measure(
	uint64_t size, bool huge, const struct bench_receivers *r, struct bench_figures *f)
{
	struct heap h = {bench_heap(size, huge), size, huge};

	*f = (struct bench_figures){0};
	if (!h.at)
		return -1;
	return measure_times(&h, r, f) || measure_memory(r, f) || measure_lost(&h, r, f) ? -1 : 0;
}
