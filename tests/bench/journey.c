/* SPDX-License-Identifier: MIT */
/* What is measured once in each round: a fork, bare bytes, memcpy, and a journey of this process.
 */
#include "tests/bench/bench.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/base/io.h"
#include "core/telefork.h"

static double since(uint64_t start)
{
	return (double)(tf_now_ns() - start) / 1e6;
}

double bench_fork(void)
{
	uint64_t start = tf_now_ns();
	pid_t pid = fork();
	double ms;

	if (!pid)
		_exit(0);
	ms = since(start);
	waitpid(pid, NULL, 0);
	return ms;
}

double bench_memcpy(const uint8_t *from, uint64_t size, bool huge)
{
	uint8_t *to = bench_fresh(size, huge);
	uint64_t start = tf_now_ns();
	double ms;

	memcpy(to, from, size);
	__asm__ volatile("" : : "r"(to) : "memory");
	ms = since(start);
	bench_free(to, size);
	return ms;
}

static int connected(int fd[2])
{
	struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(in);
	int listener = socket(AF_INET, SOCK_STREAM, 0);

	fd[0] = socket(AF_INET, SOCK_STREAM, 0);
	if (bind(listener, (struct sockaddr *)&in, len) || listen(listener, 1) ||
		getsockname(listener, (struct sockaddr *)&in, &len) ||
		connect(fd[0], (struct sockaddr *)&in, len))
		return -1;
	fd[1] = accept(listener, NULL, NULL);
	close(listener);
	return fd[1] < 0 ? -1 : 0;
}

static _Noreturn void bare_receiver(int fd, uint64_t size, bool huge, bool fresh)
{
	uint8_t *to = bench_fresh(size, huge);

	if (!fresh)
		memset(to, 1, size);
	if (write(fd, "r", 1) != 1)
		_exit(1);
	for (uint64_t at = 0; at < size;) {
		ssize_t n = read(fd, to + at, size - at);

		if (n <= 0)
			_exit(1);
		at += (uint64_t)n;
	}
	_exit(write(fd, "x", 1) != 1);
}

double bench_bare(uint8_t *from, uint64_t size, bool huge, bool fresh)
{
	int fd[2];
	uint64_t start;
	pid_t pid;
	char word;
	double ms;

	if (connected(fd))
		return -1;
	pid = fork();
	if (!pid) {
		munmap(from, size); /* not shared with the sender */
		close(fd[0]);
		bare_receiver(fd[1], size, huge, fresh);
	}
	close(fd[1]);
	if (read(fd[0], &word, 1) != 1)
		return -1;
	start = tf_now_ns();
	for (uint64_t at = 0; at < size;) {
		ssize_t n = write(fd[0], from + at, size - at);

		if (n <= 0)
			return -1;
		at += (uint64_t)n;
	}
	ms = read(fd[0], &word, 1) == 1 ? since(start) : -1;
	close(fd[0]);
	waitpid(pid, NULL, 0);
	return ms;
}

int bench_depart(struct bench_journey *j, const struct bench *b, enum bench_link link)
{
	struct telefork_result result;
	int rc;

	j->fd = telefork_dial(b->uri[link], NULL, &result);
	if (j->fd < 0)
		return j->fd;
	j->start = tf_now_ns();
	rc = telefork(j->fd, NULL, &j->job);
	if (!rc) {
		char end;
		int back = telefork_peer_fd();

		_exit(write(back, "x", 1) != 1 || read(back, &end, 1));
	}
	j->stop_ms = since(j->start);
	return rc == TELEFORK_PARENT ? 0 : rc;
}

/* The word first, the snapshot's end later: until the job is done the answer is the snapshot's to
 * read. */
int bench_arrive(struct bench_journey *j)
{
	struct pollfd done = {.fd = telefork_job_fd(j->job), .events = POLLIN};
	struct telefork_result result;
	char word;
	bool told = poll(&done, 1, -1) == 1 && read(j->fd, &word, 1) == 1;
	int rc;

	j->run_ms = since(j->start);
	rc = telefork_wait(j->job, &result);
	j->memory = result.memory;
	j->split = result.split;
	if (rc || !told)
		fprintf(stderr, "bench: %s\n", rc ? result.message : "the copy says nothing");
	return rc || told ? rc : TELEFORK_E_CLOSED;
}

void bench_leave(struct bench_journey *j, pid_t serve)
{
	close(j->fd);
	while (bench_last_child(serve))
		usleep(1000);
}

int bench_go(struct bench_journey *j, const struct bench *b, enum bench_link link)
{
	int rc = bench_depart(j, b, link);

	if (!rc)
		rc = bench_arrive(j);
	bench_leave(j, b->serve[link]);
	return rc;
}

/* Rows and curves travel as JSON through a pipe. */
int bench_apart(struct bench *b, int (*fn)(struct bench *b, uint64_t mib, bool huge), uint64_t mib,
	bool huge)
{
	int out[2], status;
	json_t *all;
	pid_t pid;
	FILE *f;

	fflush(stdout);
	if (pipe(out) || (pid = fork()) < 0)
		return -1;
	if (!pid) {
		close(out[0]);
		json_array_clear(b->rows);
		json_array_clear(b->curves);
		b->met = b->missed = b->noisy = 0;
		if (fn(b, mib, huge))
			_exit(1);
		fflush(stdout);
		all = json_pack("{s:O,s:O,s:i,s:i,s:i}", "rows", b->rows, "curves", b->curves,
			"met", (int)b->met, "missed", (int)b->missed, "noisy", (int)b->noisy);
		_exit(json_dumpfd(all, out[1], 0) != 0);
	}
	close(out[1]);
	f = fdopen(out[0], "r");
	all = f ? json_loadf(f, 0, NULL) : NULL;
	if (f)
		fclose(f);
	waitpid(pid, &status, 0);
	if (!all || status) {
		fprintf(stderr, "bench: %llu MiB could not be measured\n", (unsigned long long)mib);
		return -1;
	}
	json_array_extend(b->rows, json_object_get(all, "rows"));
	json_array_extend(b->curves, json_object_get(all, "curves"));
	b->met += (unsigned)json_integer_value(json_object_get(all, "met"));
	b->missed += (unsigned)json_integer_value(json_object_get(all, "missed"));
	b->noisy += (unsigned)json_integer_value(json_object_get(all, "noisy"));
	json_decref(all);
	return 0;
}
