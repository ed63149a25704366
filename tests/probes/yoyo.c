/* SPDX-License-Identifier: MIT */
/*
 * yoyo: goes to the address given, changes memory of every kind over there, and checks at home that
 * it all came back and nothing else did. With --fault, that nothing changes when it fails.
 *
 *   yoyo ADDRESS [--token T]    exit code 0: all as it should be; prints what was moved
 */
#include "arch/arch.h"
#include "core/telefork.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE  4096u
#define PAGES 4096u /* 16 MiB, of which a few pages change */

struct state {
	uint64_t *heap;        /* PAGES pages, one in 64 written over there */
	uint64_t *zeroed;      /* 64 pages that are given back over there */
	uint64_t *touched;     /* given back and read again: the zero page */
	uint64_t *shared;      /* 64 pages shared with a child */
	uint8_t *rdonly;       /* written under another protection, and protected again */
	uint8_t *unmapped;     /* gone afterwards */
	uint8_t *opened;       /* PROT_NONE here, readable afterwards */
	char *text;            /* malloc'ed over there */
	uint64_t *large;       /* so large that malloc maps it */
	char **list;           /* many small blocks */
	pthread_mutex_t *lock; /* recursive: held here, and locked once more over there */
	pid_t pid_there, tid_there;
	int on_stack;         /* of main's frame: changed through a pointer */
	char frame[3 * PAGE]; /* likewise, pages of stack that nobody else writes */
};

static _Thread_local uint64_t tls = 1;
static int bss_word, data_word = 5;
static pthread_mutex_t lock_there = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;
static unsigned failures;
static volatile sig_atomic_t alarms;

static void check(bool good, const char *what)
{
	if (good)
		return;
	fprintf(stderr, "yoyo: not as it should be: %s\n", what);
	failures++;
}

static uint64_t pattern(uint64_t i)
{
	return (i + 1) * 0x9e3779b97f4a7c15u;
}

static void *map(size_t pages, int prot, int how)
{
	void *p = mmap(NULL, pages * PAGE, prot, how | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED) {
		perror("yoyo: mmap");
		exit(2);
	}
	return p;
}

static void set_up(struct state *s)
{
	const int rw = PROT_READ | PROT_WRITE;

	s->heap = malloc(PAGES * PAGE);
	s->zeroed = map(64, rw, MAP_PRIVATE);
	s->touched = map(64, rw, MAP_PRIVATE);
	s->shared = map(64, rw, MAP_SHARED);
	s->rdonly = map(4, rw, MAP_PRIVATE);
	s->unmapped = map(8, rw, MAP_PRIVATE);
	s->opened = map(4, rw, MAP_PRIVATE);
	for (uint64_t i = 0; i < PAGES * PAGE / 8; i++)
		s->heap[i] = pattern(i);
	memset(s->zeroed, 0x11, 64 * PAGE);
	memset(s->touched, 0x22, 64 * PAGE);
	memset(s->shared, 0x33, 64 * PAGE);
	memset(s->rdonly, 0x44, 4 * PAGE);
	memset(s->unmapped, 0x55, 8 * PAGE);
	memset(s->opened, 0x66, 4 * PAGE);
	mprotect(s->rdonly, 4 * PAGE, PROT_READ);
	mprotect(s->opened, 4 * PAGE, PROT_NONE);
	s->lock = malloc(sizeof(*s->lock));
	*s->lock = lock_there;
	pthread_mutex_lock(s->lock);
}

static void work(void *arg)
{
	struct state *s = arg;
	const int rw = PROT_READ | PROT_WRITE;
	volatile uint64_t sum = 0;

	for (uint64_t i = 0; i < PAGES; i += 64) /* before a child shares them */
		s->heap[i * PAGE / 8] = ~pattern(i);
	madvise(s->zeroed, 64 * PAGE, MADV_DONTNEED);
	madvise(s->touched, 64 * PAGE, MADV_DONTNEED);
	for (unsigned i = 0; i < 64 * PAGE / 8; i += PAGE / 8)
		sum += s->touched[i];
	s->shared[3 * PAGE / 8] = 0x1234;
	mprotect(s->rdonly, 4 * PAGE, rw);
	s->rdonly[PAGE + 7] = 9;
	mprotect(s->rdonly, 4 * PAGE, PROT_READ);
	munmap(s->unmapped + 2 * PAGE, 4 * PAGE);
	mprotect(s->opened, 4 * PAGE, rw);
	s->opened[5] = 1;
	s->text = malloc(100);
	snprintf(s->text, 100, "made by %d", (int)getpid());
	s->large = malloc(8u << 20);
	for (uint64_t i = 0; i < (8u << 20) / 8; i++)
		s->large[i] = pattern(i + 3);
	s->list = malloc(1000 * sizeof(*s->list));
	for (int i = 0; i < 1000; i++) {
		s->list[i] = malloc((size_t)i + 20);
		snprintf(s->list[i], 20, "%d", i);
	}
	s->pid_there = getpid();
	s->tid_there = (pid_t)syscall(SYS_gettid);
	s->on_stack += 100;
	memset(s->frame, 0x77, sizeof(s->frame));
	if (!fork()) { /* it shares our pages, and outlives us */
		if (!fork())
			pause();
		_exit(0);
	}
	wait(NULL);
	tls += 41;
	bss_word = 7;
	data_word += 3;
	pthread_mutex_lock(s->lock);
	pthread_mutex_lock(&lock_there);
	dprintf(1, "a line from there\n");
	dprintf(2, "a word from there\n");
}

static void check_work(const struct state *s)
{
	uint64_t bad = 0;

	for (uint64_t i = 0; i < PAGES * PAGE / 8; i++) {
		uint64_t page = i * 8 / PAGE;

		bad += s->heap[i] !=
		       (i * 8 % PAGE == 0 && page % 64 == 0 ? ~pattern(page) : pattern(i));
	}
	check(!bad, "the heap");
	for (unsigned i = 0; i < 64 * PAGE / 8; i++)
		bad += s->zeroed[i] || s->touched[i];
	check(!bad, "pages given back");
	check(s->shared[3 * PAGE / 8] == 0x1234 && s->shared[0] == 0x3333333333333333u,
		"shared memory");
	check(s->rdonly[PAGE + 7] == 9 && s->rdonly[0] == 0x44, "a read-only page");
	check(msync(s->unmapped + 2 * PAGE, PAGE, MS_ASYNC) && errno == ENOMEM, "unmapped pages");
	check(s->unmapped[0] == 0x55 && s->unmapped[7 * PAGE] == 0x55, "their neighbours");
	check(s->text && !strncmp(s->text, "made by ", 8) && atoi(s->text + 8) == s->pid_there,
		"a malloc'ed string");
	for (uint64_t i = 0; i < (8u << 20) / 8; i++)
		bad += s->large[i] != pattern(i + 3);
	check(!bad, "a large block");
	for (int i = 0; i < 1000; i++)
		bad += atoi(s->list[i]) != i;
	check(!bad, "a thousand blocks");
	check(s->on_stack == 142 && s->frame[0] == 0x77 && s->frame[sizeof(s->frame) - 1] == 0x77,
		"the stack");
	check(!pthread_mutex_trylock(s->lock) && !pthread_mutex_trylock(&lock_there),
		"locks are held by another");
	for (int i = 0; i < 5; i++)
		bad += pthread_mutex_unlock(i < 3 ? s->lock : &lock_there) != 0;
	check(!bad, "locks cannot be unlocked");
	check(tls == 42 && bss_word == 7 && data_word == 8, "variables");
}

/* What has to be as it was: this process, and what works only if its library's state is right. */
static void *thread(void *arg)
{
	return (char *)arg + 1;
}

static void check_self(const struct state *s, pid_t pid)
{
	pthread_t t;
	void *back;
	int status;
	pid_t child;

	check(getpid() == pid && s->pid_there != pid, "the pid");
	check(gettid() == pid && s->tid_there != pid, "the tid");
	check(!telefork_generation() && telefork_peer_fd() == -1, "the library's own state");
	check(waitpid(-1, NULL, WNOHANG) == -1 && errno == ECHILD, "children");
	for (int i = 0; i < 1000; i++)
		free(s->list[i]);
	free(s->list);
	free(s->large);
	free(s->text);
	free(malloc(64u << 20));
	check(!pthread_create(&t, NULL, thread, "") && !pthread_join(t, &back), "threads");
	child = fork();
	if (!child)
		_exit(raise(0) ? 1 : 7);
	check(waitpid(child, &status, 0) == child && WEXITSTATUS(status) == 7, "fork");
}

/* --- failures: nothing may change --- */

static void crash(void *arg)
{
	struct state *s = arg;

	s->heap[0] = 1;
	munmap(s->unmapped, PAGE);
	raise(SIGSEGV);
}

static void leave(void *arg)
{
	((struct state *)arg)->heap[0] = 1;
	_exit(3);
}

static void *sleeper(void *arg)
{
	pause();
	return arg;
}

static void leave_threads(void *arg)
{
	pthread_t t;

	((struct state *)arg)->heap[0] = 1;
	pthread_create(&t, NULL, sleeper, NULL);
}

static void hang(void *arg)
{
	((struct state *)arg)->heap[0] = 1;
	for (;;)
		pause();
}

static void check_failure(const char *uri, struct telefork_options *o, struct state *s,
	void (*fn)(void *), int code, const char *words)
{
	uint64_t first = s->heap[0];
	struct telefork_result r = {0};
	int rc;

	o->result = &r;
	rc = telefork_yoyo(uri, fn, s, o);
	o->result = NULL;
	check(rc == code && r.error == code && strstr(r.message, words), words);
	if (rc != code)
		fprintf(stderr, "yoyo: %s: %s\n", telefork_errname(rc), r.message);
	check(s->heap[0] == first && s->unmapped[0] == 0x55, "memory after a failure");
}

static void on_alarm(int signo)
{
	(void)signo;
	alarms++;
}

static int fds_open(void)
{
	int n = 0;

	for (int fd = 0; fd < 256; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

int main(int argc, char **argv)
{
	struct telefork_result r = {0};
	struct telefork_options o = {.deadline_ms = 200000, .result = &r};
	struct state s = {.on_stack = 42};
	int fds = fds_open(), rc;

	if (argc < 2)
		return 64;
	if (argc > 3 && !strcmp(argv[2], "--token"))
		o.token = argv[3];
	signal(SIGALRM, on_alarm);
	set_up(&s);
	check_failure(argv[1], &o, &s, crash, TELEFORK_E_CRASHED, "signal 11");
	check_failure(argv[1], &o, &s, leave, TELEFORK_E_CRASHED, "exited with 3");
	check_failure(argv[1], &o, &s, leave_threads, TELEFORK_E_THREADS, "threads");
	o.deadline_ms = 700;
	check_failure(argv[1], &o, &s, hang, TELEFORK_E_TIMEOUT, "deadline");
	o.deadline_ms = 200000;
	alarm(1);
	o.result = &r;
	rc = telefork_yoyo(argv[1], work, &s, &o);
	if (rc) {
		fprintf(stderr, "yoyo: %s: %s\n", telefork_errname(rc), r.message);
		return 2;
	}
	check_work(&s);
	check_self(&s, getpid());
	check(fds_open() == fds, "descriptors");
	printf("%s: there in %llu bytes, back in %llu, %.1f ms\n", failures ? "not ok" : "ok",
		(unsigned long long)r.bytes_sent, (unsigned long long)r.bytes_received,
		(double)r.total_ns / 1e6);
	return failures ? 1 : 0;
}
