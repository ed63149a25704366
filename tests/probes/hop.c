/* SPDX-License-Identifier: MIT */
/*
 * hop: the smallest whole journey (see probe.h). Sets up memory of several kinds, and over there
 * compares everything with what it was and uses the C library.
 */
#include "arch/arch.h"
#include "tests/probes/probe.h"

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

#define WORDS (1u << 18)

static _Thread_local uint64_t tls = 0x1122334455667788;
static uint64_t *heap, *shared, *rdonly;
static volatile sig_atomic_t got;

static uint64_t salt;

static uint64_t pattern(uint64_t i)
{
	return (i + salt) * 0x9e3779b97f4a7c15u;
}

static int (*code)(void);

static void set_up(uint64_t seed)
{
	unsigned char bytes[32];
	size_t n = tf_arch_code_syscall(bytes, SYS_getpid);

	salt = seed;
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

static void on_signal(int signo)
{
	got = signo;
}

static void *thread(void *arg)
{
	return (char *)arg + 1;
}

static void check_words(const char *name, const uint64_t *p, uint64_t n, uint64_t first)
{
	for (uint64_t i = 0; i < n; i++)
		if (p[i] != pattern(first + i)) {
			probe_lost("%s: word %llu: expected %#llx found %#llx", name,
				(unsigned long long)i, (unsigned long long)pattern(first + i),
				(unsigned long long)p[i]);
			return;
		}
	probe_count("words", n);
}

static void check_memory(void)
{
	check_words("heap", heap, WORDS, 0);
	check_words("shared memory", shared, (1 << 20) / 8, 7);
	check_words("read-only memory", rdonly, (1 << 16) / 8, 13);
	if (code() != getpid())
		probe_lost("generated code");
	if (tls != 0x1122334455667788)
		probe_lost("thread-local variable: found %#llx", (unsigned long long)tls);
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
			probe_lost("malloc");
		free(p);
	}
	p = malloc(40 << 20);
	if (!p)
		probe_lost("large malloc");
	free(p);
	if (pthread_create(&t, NULL, thread, "") || pthread_join(t, &back) || !back)
		probe_lost("thread");
	signal(SIGUSR2, on_signal);
	raise(SIGUSR2);
	if (got != SIGUSR2)
		probe_lost("signal");
	pid = fork();
	if (!pid)
		_exit(7);
	if (waitpid(pid, &status, 0) != pid || WEXITSTATUS(status) != 7)
		probe_lost("fork");
	if (clock_gettime(CLOCK_MONOTONIC, &ts) || !ts.tv_sec || time(NULL) < 1600000000)
		probe_lost("clock");
	if (getpid() != gettid())
		probe_lost("tid");
	deep(1000);
}

static void verify(void)
{
	check_memory();
	check_library();
}

static void spoil(void)
{
	memset(heap, 0xee, WORDS * 8);
	memset(shared, 0xee, 1 << 20);
}

int main(int argc, char **argv)
{
	static const struct probe hop = {"hop", set_up, verify, spoil};

	return probe_main(argc, argv, &hop);
}
