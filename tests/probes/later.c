/* SPDX-License-Identifier: MIT */
/*
 * later [MIB [soft]]: a program that knows nothing of telefork, with MIB (64) of memory that it
 * checks, and that cannot be compressed (soft: to a half). It says "ready" and waits, until it
 * finds itself to be another process, or SIGUSR1 comes. Then it does at once to its memory what a
 * program may do, and what is hard to get right where memory comes later: reads all of it, in
 * threads and in a child that it forks; has the kernel read it; moves a part of it, gives a part
 * up, unmaps a part; unlocks what it holds, in locks that lie across pages; touches what it has
 * never touched. "right", exit code 0, or what was wrong.
 */
#include "tests/probes/later.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define READERS 4
#define LOCKS   21
#define BLOCK   65536 /* telefork sends so much at a time where one address is asked for */
#define PART    (UINT64_C(4) << 20)

static uint64_t *area, words, mask = UINT64_MAX;
static pthread_mutex_t *locks[LOCKS];
static volatile int stop;

static uint64_t content(uint64_t i)
{
	return mix(i) & mask;
}

static uint8_t *map(uint64_t bytes)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		wrong("mmap", (uint64_t)errno);
	return p;
}

static uint8_t *pattern(uint64_t bytes, uint64_t seed)
{
	uint64_t *p = (uint64_t *)(void *)map(bytes);

	for (uint64_t i = 0; i < bytes / 8; i++)
		p[i] = content(i + seed);
	return (uint8_t *)p;
}

static void check(const uint8_t *bytes, uint64_t from, uint64_t to, uint64_t seed, const char *what)
{
	for (uint64_t i = from / 8; i < to / 8; i++)
		if (((const uint64_t *)(const void *)bytes)[i] != content(i + seed))
			wrong(what, i * 8);
}

static void check_zero(const uint8_t *bytes, uint64_t n, const char *what)
{
	for (uint64_t i = 0; i < n; i++)
		if (bytes[i])
			wrong(what, i);
}

static void *reader(void *arg)
{
	uint64_t x = (uint64_t)(uintptr_t)arg, n = 0;

	while (!__atomic_load_n(&stop, __ATOMIC_SEQ_CST)) {
		uint64_t i = (x = mix(x + 1)) % words;

		if (area[i] != content(i))
			wrong("read", i * 8);
		n++;
	}
	return (void *)(uintptr_t)n;
}

/* Held by the main thread: each across the edge of a block, in every way that one can lie. The last
 * is robust: the kernel knows of it. */
static void make_locks(void)
{
	static const int types[] = {PTHREAD_MUTEX_ERRORCHECK, PTHREAD_MUTEX_RECURSIVE};
	uint8_t *bytes = map((LOCKS + 2) * (uint64_t)BLOCK);
	uint64_t first = ((uint64_t)bytes + BLOCK - 1) / BLOCK * BLOCK;

	memset(bytes, 0x5a, (LOCKS + 2) * (uint64_t)BLOCK);
	for (unsigned i = 0; i < LOCKS; i++) {
		pthread_mutexattr_t attr;

		pthread_mutexattr_init(&attr);
		pthread_mutexattr_settype(&attr, types[i % 2]);
		if (i == LOCKS - 1)
			pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST);
		locks[i] = (pthread_mutex_t *)(first + (i + 1) * (uint64_t)BLOCK - 8 * (i / 4));
		memset(locks[i], 0, sizeof(*locks[i]));
		if (pthread_mutex_init(locks[i], &attr) || pthread_mutex_lock(locks[i]))
			wrong("lock", i);
	}
}

static pid_t fork_checker(void)
{
	pid_t pid = fork();

	if (!pid) {
		check((uint8_t *)area, 0, words * 8, 0, "in a child");
		area[words / 2] = 1;
		_exit(0);
	}
	if (pid < 0)
		wrong("fork", (uint64_t)errno);
	return pid;
}

static void end_checker(pid_t pid)
{
	int status;

	if (waitpid(pid, &status, 0) != pid || status)
		wrong("the child's end", (uint64_t)status);
}

/* The kernel reads what has not come yet. */
static void through_pipe(const uint8_t *bytes, uint64_t seed)
{
	static uint64_t got[512];
	int fd[2];

	if (pipe(fd))
		wrong("pipe", (uint64_t)errno);
	for (uint64_t at = PART / 2; at < PART / 2 + BLOCK; at += sizeof(got)) {
		if (write(fd[1], bytes + at, sizeof(got)) != sizeof(got) ||
			read(fd[0], got, sizeof(got)) != sizeof(got))
			wrong("pipe", (uint64_t)errno);
		for (uint64_t i = 0; i < sizeof(got) / 8; i++)
			if (got[i] != content(at / 8 + i + seed))
				wrong("through a pipe", at + i * 8);
	}
	close(fd[0]);
	close(fd[1]);
}

struct parts {
	uint8_t *moved, *given_up, *unmapped, *untouched, *spoken;
};

static void change(struct parts *p)
{
	uint8_t *to = map(PART);

	p->moved = mremap(p->moved, PART, PART, MREMAP_MAYMOVE | MREMAP_FIXED, to);
	if (p->moved != to)
		wrong("mremap", (uint64_t)errno);
	if (madvise(p->given_up + PART / 4, PART / 2, MADV_DONTNEED))
		wrong("madvise", (uint64_t)errno);
	if (munmap(p->unmapped + PART / 4, PART / 2))
		wrong("munmap", (uint64_t)errno);
	check(p->moved, 0, PART, 1, "moved");
	check(p->given_up, 0, PART / 4, 2, "before what was given up");
	check_zero(p->given_up + PART / 4, PART / 2, "given up");
	check(p->given_up, PART * 3 / 4, PART, 2, "behind what was given up");
	check(p->unmapped, 0, PART / 4, 3, "before what was unmapped");
	check(p->unmapped, PART * 3 / 4, PART, 3, "behind what was unmapped");
	check(p->untouched, 0, PART / 2, 4, "before what was untouched");
	check_zero(p->untouched + PART / 2, PART / 2, "untouched");
	through_pipe(p->spoken, 5);
}

static void unlock(void)
{
	for (unsigned i = 0; i < LOCKS; i++) {
		int rc = pthread_mutex_unlock(locks[i]);

		if (rc)
			wrong("a lock that it holds: unlock", (uint64_t)(100 * i) + (uint64_t)rc);
	}
}

int main(int argc, char **argv)
{
	struct parts p;
	pid_t pid = getpid(), child;
	pthread_t thread[READERS];
	uint64_t reads = 0;

	if (argc > 2)
		mask = UINT32_MAX;
	p = (struct parts){
		pattern(PART, 1), pattern(PART, 2), pattern(PART, 3), map(PART), pattern(PART, 5)};
	words = (argc > 1 ? strtoull(argv[1], NULL, 10) : 64) << 17;
	area = (uint64_t *)(void *)pattern(words * 8, 0);
	for (uint64_t i = 0; i < PART / 16; i++)
		((uint64_t *)(void *)p.untouched)[i] = content(i + 4);
	make_locks();
	signal(SIGUSR1, on_usr1);
	for (int i = 0; i < READERS; i++)
		if (pthread_create(&thread[i], NULL, reader, (void *)(uintptr_t)(i + 1)))
			wrong("pthread_create", (uint64_t)errno);
	puts("ready");
	fflush(stdout);
	while (getpid() == pid && !told)
		nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
	child = fork_checker();
	change(&p);
	unlock();
	check((uint8_t *)area, 0, words * 8, 0, "all of it");
	end_checker(child);
	__atomic_store_n(&stop, 1, __ATOMIC_SEQ_CST);
	for (int i = 0; i < READERS; i++) {
		void *n;

		pthread_join(thread[i], &n);
		reads += (uint64_t)(uintptr_t)n;
	}
	printf("right %llu\n", (unsigned long long)reads);
	return 0;
}
