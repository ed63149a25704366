/* SPDX-License-Identifier: MIT */
/*
 * outside FILE: a program that knows nothing of telefork and checks itself. Threads compute, sleep,
 * wait for each other with and without a time limit, and hand a token round; signals are pending
 * meanwhile, for the process and for a thread. When FILE is there and all have done ROUNDS (some
 * 10 ms each) at least, the result is compared with what one thread alone works out: "right N",
 * exit code 0, or what was wrong.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define COMPUTERS 2
#define HANDS     4
#define SIGNALS   3
#define STEPS     1000000
#define ROUNDS    10

static const char *end; /* a file */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t turn_changed = PTHREAD_COND_INITIALIZER, never = PTHREAD_COND_INITIALIZER;
static unsigned turn, turns, last_turn, rounds[COMPUTERS];
static uint64_t computed[COMPUTERS];
static volatile double sum[COMPUTERS];

static void __attribute__((noreturn)) wrong(const char *what)
{
	printf("wrong: %s\n", what);
	exit(1);
}

static bool goes_on(unsigned i)
{
	return i < ROUNDS || access(end, F_OK);
}

static uint64_t work(uint64_t x, double *y, uint64_t n)
{
	for (uint64_t i = 0; i < n * STEPS; i++) {
		x = x * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
		*y = *y * 0.999999 + (double)(x >> 40);
	}
	return x;
}

static void *compute(void *arg)
{
	unsigned me = (unsigned)(uintptr_t)arg;
	uint64_t x = me;
	double y = me;

	while (goes_on(rounds[me])) {
		x = work(x, &y, 1);
		rounds[me]++;
	}
	computed[me] = x;
	sum[me] = y;
	return NULL;
}

static void later(struct timespec *ts, clockid_t clock, long ms)
{
	clock_gettime(clock, ts);
	ts->tv_nsec += ms * 1000000;
	ts->tv_sec += ts->tv_nsec / 1000000000;
	ts->tv_nsec %= 1000000000;
}

/* A sleep is never too short. */
static void *sleep_on(void *arg)
{
	struct timespec from, to, ms10 = {.tv_nsec = 10000000};

	(void)arg;
	for (unsigned i = 0; goes_on(i); i++) {
		clock_gettime(CLOCK_MONOTONIC, &from);
		if (nanosleep(&ms10, NULL))
			wrong("nanosleep");
		clock_gettime(CLOCK_MONOTONIC, &to);
		if ((to.tv_sec - from.tv_sec) * 1000000000 + to.tv_nsec - from.tv_nsec < 10000000)
			wrong("a sleep was too short");
	}
	return NULL;
}

/* Nobody ever calls. */
static void *wait_in_vain(void *arg)
{
	pthread_mutex_t own = PTHREAD_MUTEX_INITIALIZER;
	struct timespec ts;

	(void)arg;
	pthread_mutex_lock(&own);
	for (unsigned i = 0; goes_on(i); i++) {
		int rc;

		later(&ts, CLOCK_REALTIME, 10);
		while (!(rc = pthread_cond_timedwait(&never, &own, &ts)))
			;
		if (rc != ETIMEDOUT)
			wrong("pthread_cond_timedwait");
	}
	pthread_mutex_unlock(&own);
	return NULL;
}

/* The token goes round: most hands wait in futex(2), without a limit. The first one knows when it
 * is the last time. */
static void *pass_on(void *arg)
{
	unsigned me = (unsigned)(uintptr_t)arg;
	struct timespec ms2 = {.tv_nsec = 2000000};

	for (bool last = false; !last;) {
		pthread_mutex_lock(&lock);
		while (turn != me)
			pthread_cond_wait(&turn_changed, &lock);
		if (!me && !goes_on(turns / HANDS))
			last_turn = turns + HANDS;
		last = last_turn;
		pthread_mutex_unlock(&lock);
		nanosleep(&ms2, NULL);
		pthread_mutex_lock(&lock);
		turn = (me + 1) % HANDS;
		turns++;
		pthread_cond_broadcast(&turn_changed);
		pthread_mutex_unlock(&lock);
	}
	return NULL;
}

static void send_signals(void)
{
	for (int i = 0; i < SIGNALS; i++)
		sigqueue(getpid(), SIGRTMIN, (union sigval){.sival_int = 100 + i});
	pthread_sigqueue(pthread_self(), SIGRTMIN + 1, (union sigval){.sival_int = 200});
}

static void take_signals(const sigset_t *set)
{
	const struct timespec now = {0};
	unsigned seen = 0;
	siginfo_t info;

	while (sigtimedwait(set, &info, &now) > 0) {
		int expected = info.si_signo == SIGRTMIN ? 100 + (int)(seen & 0xf) : 200;

		if (info.si_code != SI_QUEUE || info.si_value.sival_int != expected)
			wrong("a signal says other things than it did");
		seen += info.si_signo == SIGRTMIN ? 1 : 0x10;
	}
	if (seen != 0x10 + SIGNALS)
		wrong("signals were lost, or came twice");
}

static void check_results(void)
{
	for (unsigned i = 0; i < COMPUTERS; i++) {
		uint64_t x = i;
		double y = i;

		x = work(x, &y, rounds[i]);
		/* NOLINTNEXTLINE(bugprone-suspicious-memory-comparison): bit by bit is meant */
		if (computed[i] != x || memcmp((const void *)&sum[i], &y, sizeof(y)) != 0)
			wrong("a result");
	}
	if (turns != last_turn || turn != 0)
		wrong("the token was lost");
}

int main(int argc, char **argv)
{
	pthread_t thread[COMPUTERS + HANDS + 2];
	unsigned n = 0;
	sigset_t set;

	if (argc != 2)
		return fprintf(stderr, "usage: outside FILE\n"), 2;
	end = argv[1];
	sigemptyset(&set);
	sigaddset(&set, SIGRTMIN);
	sigaddset(&set, SIGRTMIN + 1);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	send_signals();
	for (unsigned i = 0; i < COMPUTERS; i++)
		pthread_create(&thread[n++], NULL, compute, (void *)(uintptr_t)i);
	for (unsigned i = 0; i < HANDS; i++)
		pthread_create(&thread[n++], NULL, pass_on, (void *)(uintptr_t)i);
	pthread_create(&thread[n++], NULL, sleep_on, NULL);
	pthread_create(&thread[n++], NULL, wait_in_vain, NULL);
	printf("ready\n");
	fflush(stdout);
	while (n)
		pthread_join(thread[--n], NULL);
	take_signals(&set);
	check_results();
	printf("right %u\n", turns);
	return 0;
}
