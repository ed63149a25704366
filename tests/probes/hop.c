/* SPDX-License-Identifier: MIT */
/*
 * hop: the smallest whole journey. Sets up memory of several kinds, goes to the address given, and
 * over there compares everything with what it was, uses the C library, and sends its verdict back
 * through the channel. With a path instead of a socket the process made from the file prints it.
 *
 *   hop ADDRESS [--token T] [--parent-scribbles]     exit code 0: the copy found everything
 */
#include "arch/arch.h"
#include "core/telefork.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define WORDS (1u << 20)

static _Thread_local uint64_t tls = 0x1122334455667788;
static uint64_t *heap, *shared, *rdonly;
static volatile sig_atomic_t got;
static char verdict[512];

static uint64_t pattern(uint64_t i)
{
	return (i + 1) * 0x9e3779b97f4a7c15u;
}

static int (*code)(void);

static void set_up(void)
{
	unsigned char bytes[32];
	size_t n = tf_arch_code_syscall(bytes, SYS_getpid);

	heap = malloc(WORDS * 8);
	shared = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	rdonly = mmap(NULL, 1 << 16, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	code = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	for (uint64_t i = 0; i < WORDS; i++)
		heap[i] = pattern(i);
	for (uint64_t i = 0; i < (1 << 20) / 8; i++)
		shared[i] = pattern(i + 7);
	for (uint64_t i = 0; i < (1 << 16) / 8; i++)
		rdonly[i] = pattern(i + 13);
	memcpy((void *)code, bytes, n);
	mprotect(rdonly, 1 << 16, PROT_READ);
	mprotect((void *)code, 4096, PROT_READ | PROT_EXEC);
	__builtin___clear_cache((char *)code, (char *)code + 64);
}

static void complain(const char *what)
{
	size_t n = strlen(verdict);

	snprintf(verdict + n, sizeof(verdict) - n, "%s ", what);
}

static void on_signal(int signo)
{
	got = signo;
}

static void *thread(void *arg)
{
	return (char *)arg + 1;
}

static void check_memory(void)
{
	uint64_t bad = 0;

	for (uint64_t i = 0; i < WORDS; i++)
		bad += heap[i] != pattern(i);
	for (uint64_t i = 0; i < (1 << 20) / 8; i++)
		bad += shared[i] != pattern(i + 7);
	for (uint64_t i = 0; i < (1 << 16) / 8; i++)
		bad += rdonly[i] != pattern(i + 13);
	if (bad)
		complain("memory");
	if (code() != getpid())
		complain("code");
	if (tls != 0x1122334455667788)
		complain("tls");
}

static int deep(int n)
{
	volatile char page[4096];

	page[0] = (char)n;
	return n ? deep(n - 1) + page[0] * 0 : 0;
}

static void check_library(void)
{
	struct timespec ts;
	pthread_t t;
	void *back = NULL;
	int status = -1;
	char *p;
	pid_t pid;

	for (int i = 0; i < 1000; i++) {
		p = malloc((size_t)i * 100 + 1);
		if (!p)
			complain("malloc");
		free(p);
	}
	p = malloc(40 << 20);
	if (!p)
		complain("large malloc");
	free(p);
	if (pthread_create(&t, NULL, thread, "") || pthread_join(t, &back) || !back)
		complain("thread");
	signal(SIGUSR2, on_signal);
	raise(SIGUSR2);
	if (got != SIGUSR2)
		complain("signal");
	pid = fork();
	if (!pid)
		_exit(7);
	if (waitpid(pid, &status, 0) != pid || WEXITSTATUS(status) != 7)
		complain("fork");
	if (clock_gettime(CLOCK_MONOTONIC, &ts) || !ts.tv_sec || time(NULL) < 1600000000)
		complain("clock");
	if (getpid() != gettid())
		complain("tid");
	deep(1000);
}

static int copy_main(void)
{
	int fd = telefork_peer_fd();

	check_memory();
	check_library();
	if (!*verdict)
		snprintf(verdict, sizeof(verdict), "ok");
	if (fd < 0) {
		printf("%s\n", verdict);
		return strcmp(verdict, "ok") ? 1 : 0;
	}
	return write(fd, verdict, strlen(verdict)) < 0;
}

static int parent_main(int fd, struct telefork_job *job)
{
	struct telefork_result r;
	char said[512] = "";
	int rc;

	memset(heap, 0xee, WORDS * 8); /* the copy is a point in time */
	memset(shared, 0xee, 1 << 20);
	rc = telefork_wait(job, &r);
	if (rc) {
		fprintf(stderr, "hop: %s: %s\n", telefork_errname(rc), r.message);
		return 2;
	}
	if (!r.pid)
		return 0; /* saved */
	if (read(fd, said, sizeof(said) - 1) < 0)
		perror("hop: read");
	printf("pid %d there, %u mappings, %llu bytes, stopped %.3f ms, total %.3f ms: %s\n",
		(int)r.pid, r.mappings, (unsigned long long)r.memory, (double)r.stopped_ns / 1e6,
		(double)r.total_ns / 1e6, said);
	if (waitpid(-1, NULL, WNOHANG) != -1 || errno != ECHILD) {
		fprintf(stderr, "hop: a child shows\n");
		return 1;
	}
	return strcmp(said, "ok") ? 1 : 0;
}

int main(int argc, char **argv)
{
	struct telefork_options o = {.deadline_ms = 60000};
	struct telefork_result r;
	struct telefork_job *job;
	int fd, rc;

	if (argc < 2)
		return 64;
	if (argc > 3 && !strcmp(argv[2], "--token"))
		o.token = argv[3];
	set_up();
	if (argv[1][0] == '/') {
		rc = telefork_save(argv[1], &o, &r);
		if (!rc)
			return copy_main();
		if (rc < 0)
			fprintf(stderr, "hop: %s: %s\n", telefork_errname(rc), r.message);
		return rc < 0 ? 2 : 0;
	}
	fd = telefork_dial(argv[1], &o, &r);
	if (fd < 0) {
		fprintf(stderr, "hop: %s: %s\n", telefork_errname(fd), r.message);
		return 2;
	}
	rc = telefork(fd, &o, &job);
	if (!rc)
		return copy_main();
	if (rc < 0) {
		fprintf(stderr, "hop: %s\n", telefork_errname(rc));
		return 2;
	}
	return parent_main(fd, job);
}
