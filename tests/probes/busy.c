/* SPDX-License-Identifier: MIT */
/*
 * busy [FILE]: threads that know nothing of telefork and work until SIGUSR1, each in another part
 * of the machine, and check every result at once: registers, an allocator, memory that is moved,
 * the clock, sleeps, a file's position (FILE), signal handlers on alternate stacks, a token that
 * goes round by condition variables. Prints "ready PID"; in the end "right N" with how many checks
 * there were, exit code 0, or what was wrong, 1. What it has mapped stays the same all the time.
 */
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define STACK    (128u << 10)
#define HANDS    3
#define BLOCK    4096
#define PIECES   64
#define MULTIPLY UINT64_C(6364136223846793005)
#define ADD      UINT64_C(1442695040888963407)

static volatile bool told;
static uint64_t checks;
static char *no_access;
static int file = -1;

static void __attribute__((noreturn)) wrong(const char *what, uint64_t x, uint64_t y)
{
	printf("wrong: %s: %llx, %llx\n", what, (unsigned long long)x, (unsigned long long)y);
	fflush(stdout);
	_exit(1);
}

static void check(const char *what, uint64_t x, uint64_t y)
{
	if (x != y)
		wrong(what, x, y);
	__atomic_add_fetch(&checks, 1, __ATOMIC_RELAXED);
}

/* --- work: each does one round, with x carried on from round to round --- */

static uint64_t leap(uint64_t x, unsigned n)
{
	uint64_t m = MULTIPLY, a = ADD;

	for (; n; n >>= 1) {
		if (n & 1)
			x = x * m + a;
		a += a * m;
		m *= m;
	}
	return x;
}

static uint64_t registers(uint64_t x)
{
	uint64_t y = x, real;
	double f[6] = {1, 2, 3, 4, 5, 6};

	for (unsigned i = 0; i < 5000; i++) {
		y = y * MULTIPLY + ADD;
		for (unsigned k = 0; k < 6; k++)
			f[k] += 2 * k + 1;
		__asm__ volatile("" : "+r"(y));
	}
	check("registers", y, leap(x, 5000));
	real = (uint64_t)(f[0] + f[1] + f[2] + f[3] + f[4] + f[5]);
	check("floating point", real, 21 + 5000 * 36);
	return y;
}

static uint64_t allocator(uint64_t x)
{
	uint64_t *piece[PIECES] = {0}, y = x;

	for (unsigned i = 0; i < 4 * PIECES; i++) {
		uint64_t **p = &piece[(y = leap(y, 1)) >> 40 & (PIECES - 1)];

		if (*p)
			check("allocated memory", (*p)[0] ^ (*p)[1], ~UINT64_C(0));
		free(*p);
		*p = malloc(16 + (y >> 32 & 511));
		if (!*p)
			wrong("malloc", errno, 0);
		(*p)[0] = y;
		(*p)[1] = ~y;
	}
	for (unsigned i = 0; i < PIECES; i++)
		free(piece[i]);
	return y;
}

static uint64_t mover(uint64_t x)
{
	static unsigned char block[2][BLOCK];
	char text[64], again[64];
	unsigned long long back;

	memset(block[0], (int)(x & 0xff), BLOCK);
	memcpy(block[1], block[0], BLOCK);
	memmove(block[1] + 1, block[1], BLOCK - 1);
	check("moved memory", (uint64_t)memcmp(block[0], block[1], BLOCK), 0);
	snprintf(text, sizeof(text), "%llu", (unsigned long long)x);
	back = strtoull(text, NULL, 10);
	snprintf(again, sizeof(again), "%llu", back);
	check("text", (uint64_t)strcmp(text, again), 0);
	return leap(x, 1);
}

static uint64_t now_ns(clockid_t clock)
{
	struct timespec ts;

	clock_gettime(clock, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

static uint64_t watch(uint64_t x)
{
	uint64_t last = now_ns(CLOCK_MONOTONIC);

	for (unsigned i = 0; i < 200; i++) {
		uint64_t now = now_ns(CLOCK_MONOTONIC);

		check("the clock goes back", now < last, false);
		last = now;
	}
	return x;
}

static uint64_t sleeper(uint64_t x)
{
	uint64_t from = now_ns(CLOCK_MONOTONIC);
	struct timespec ms = {.tv_nsec = 1000000};

	switch (x % 3) {
	case 0:
		check("nanosleep", (uint64_t)nanosleep(&ms, NULL), 0);
		break;
	case 1:
		check("poll", (uint64_t)poll(NULL, 0, 1), 0);
		break;
	default:
		check("clock_nanosleep", (uint64_t)clock_nanosleep(CLOCK_MONOTONIC, 0, &ms, NULL),
			0);
	}
	check("a sleep too short", now_ns(CLOCK_MONOTONIC) - from < 1000000, false);
	return x + 1;
}

/* The position is nobody else's, and goes on by what is read: no read is lost or made twice. */
static uint64_t reader(uint64_t x)
{
	unsigned char byte = 0;

	if (file < 0)
		return x;
	check("read", (uint64_t)read(file, &byte, 1), 1);
	check("what was read", byte, x & 0xff);
	check("position", (uint64_t)lseek(file, 0, SEEK_CUR), x % 256 + 1);
	if (x % 256 == 255)
		lseek(file, 0, SEEK_SET);
	return x + 1;
}

static __thread sigjmp_buf back;
static __thread unsigned handled;

static void on_fault(int signo, siginfo_t *info, void *ucontext)
{
	(void)signo;
	(void)ucontext;
	if (info->si_addr != no_access)
		wrong("address of a fault", (uint64_t)(uintptr_t)info->si_addr, 0);
	if (++handled % 2) /* another one, inside the handler */
		*(volatile char *)no_access = 1;
	siglongjmp(back, 1);
}

static uint64_t faulter(uint64_t x)
{
	sigset_t mask;

	handled = 0;
	if (!sigsetjmp(back, 1))
		*(volatile char *)no_access = 1;
	pthread_sigmask(SIG_SETMASK, NULL, &mask);
	check("handlers", handled, 2);
	check("signal mask",
		(uint64_t)sigismember(&mask, SIGUSR1) << 1 | (uint64_t)sigismember(&mask, SIGSEGV),
		2);
	return x;
}

/* --- the token --- */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t passed = PTHREAD_COND_INITIALIZER;
static uint64_t turns;

/* x: this hand's number, and HANDS more each time. The last one leaves no one waiting. */
static uint64_t hand(uint64_t x)
{
	pthread_mutex_lock(&lock);
	while (turns != x && !told) {
		struct timespec ts;

		clock_gettime(CLOCK_REALTIME, &ts);
		ts.tv_sec += x % 2;
		pthread_cond_timedwait(&passed, &lock, &ts);
	}
	if (turns == x) {
		check("turns", turns++, x);
		pthread_cond_broadcast(&passed);
	}
	pthread_mutex_unlock(&lock);
	return x + HANDS;
}

/* --- all --- */

static uint64_t (*const job[])(uint64_t x) = {
	registers, allocator, mover, watch, sleeper, reader, faulter, hand, hand, hand};
#define JOBS (sizeof(job) / sizeof(*job))

static void *work(void *arg)
{
	unsigned n = (unsigned)(uintptr_t)arg;
	uint64_t x = job[n] == hand ? JOBS - 1 - n : 0; /* the hands are the last ones */
	stack_t ss = {.ss_size = 32768, .ss_sp = malloc(32768)}, now;

	if (!ss.ss_sp || sigaltstack(&ss, NULL))
		wrong("sigaltstack", errno, 0);
	while (!told)
		x = job[n](x);
	sigaltstack(NULL, &now);
	check("altstack", (uint64_t)(uintptr_t)now.ss_sp, (uint64_t)(uintptr_t)ss.ss_sp);
	return NULL;
}

static void set_up(int argc, char **argv)
{
	struct sigaction sa = {
		.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER};

	mallopt(M_ARENA_MAX, 1);
	mallopt(M_TOP_PAD, 4 << 20);
	mallopt(M_TRIM_THRESHOLD, 1 << 30);
	mallopt(M_MMAP_THRESHOLD, 1 << 30);
	free(malloc(1 << 20)); /* more than the heap has so far: it grows now, and not again */
	no_access = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	sigaction(SIGSEGV, &sa, NULL);
	file = argc > 1 ? open(argv[1], O_RDONLY) : -1;
}

int main(int argc, char **argv)
{
	pthread_t thread[JOBS];
	pthread_attr_t attr;
	sigset_t set;
	int signo = 0;

	close_range(3, ~0u, 0); /* whatever it was started with */
	set_up(argc, argv);
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, STACK);
	for (unsigned i = 0; i < JOBS; i++)
		if (pthread_create(&thread[i], &attr, work, (void *)(uintptr_t)i))
			wrong("pthread_create", i, 0);
	while (__atomic_load_n(&checks, __ATOMIC_RELAXED) < 10000)
		nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
	printf("ready %d\n", (int)getpid());
	fflush(stdout);
	while (sigwait(&set, &signo)) /* EINTR: somebody looked at it from outside */
		;
	pthread_mutex_lock(&lock);
	told = true;
	pthread_cond_broadcast(&passed);
	pthread_mutex_unlock(&lock);
	for (unsigned i = 0; i < JOBS; i++)
		pthread_join(thread[i], NULL);
	printf("right %llu\n", (unsigned long long)checks);
	return 0;
}
