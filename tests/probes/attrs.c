/* SPDX-License-Identifier: MIT */
/*
 * attrs [rights] [filters] [clocks] [sleep=S]: a program that knows nothing of telefork and has
 * everything that the kernel keeps for a process and its threads otherwise than it was started:
 * limits, scheduling, timers; with rights (root only) credentials, with filters seccomp, with
 * clocks threads that sleep until a time, S seconds (3) from the start. Each of three threads notes
 * what the kernel says of it. Prints "ready PID"; at SIGUSR1 each looks again: "right N", exit
 * code 0, or each thing that is another, 1.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include "tests/probes/attrs.h"

#define THREADS  3
#define SLEEPERS 3
#define PATIENCE 300 /* seconds that a journey may take */
#define TOO_LATE 30  /* seconds after it has come to its end: then it hangs */

static bool rights, filters, clocks;
static time_t sleep_s = 3;
static pthread_barrier_t set_up, woken, seen;
static struct attrs_timers timers;
static pid_t tids[THREADS];
static unsigned n_compared, n_wrong;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

void attrs_wrong(unsigned thread, const char *what, uint64_t was, uint64_t is)
{
	pthread_mutex_lock(&lock);
	printf("wrong: thread %u: %s: was %llx, is %llx\n", thread, what, (unsigned long long)was,
		(unsigned long long)is);
	n_wrong++;
	pthread_mutex_unlock(&lock);
}

void attrs_counted(unsigned n)
{
	__atomic_add_fetch(&n_compared, n, __ATOMIC_SEQ_CST);
}

void attrs_need(bool good, const char *what)
{
	if (good)
		return;
	printf("cannot %s: %s\n", what, strerror(errno));
	exit(2);
}

/* --- what is otherwise --- */

static void set_limit(int which, rlim_t soft, rlim_t hard)
{
	const struct rlimit lim = {soft, hard};

	attrs_need(!setrlimit((__rlimit_resource_t)which, &lim), "set a limit");
}

static void change_process(void)
{
	int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);

	attrs_need(getsid(0) == getpid() || setsid() > 0, "make a session");
	set_limit(RLIMIT_CORE, 12345, 1234567);
	set_limit(RLIMIT_NOFILE, 77, 777);
	set_limit(RLIMIT_FSIZE, 1 << 30, RLIM_INFINITY);
	set_limit(RLIMIT_CPU, 3333, 4444);
	set_limit(RLIMIT_STACK, 7 << 20, 70 << 20);
	umask(0137);
	attrs_need(!chdir("/proc"), "go to /proc");
	attrs_need(fd >= 0 && write(fd, "321", 3) == 3 && !close(fd), "write oom_score_adj");
	if (rights) /* a process that adopts orphans is not forked */
		prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
	prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0);
}

static void change_scheduling(unsigned me)
{
	static const int policy[THREADS] = {SCHED_OTHER, SCHED_BATCH, SCHED_IDLE};
	const uint64_t cpu = me == 1 ? 2 : 1;
	struct attrs_sched s = {
		sizeof(s), (uint32_t)policy[me], 0, (int32_t)(3 + 2 * me), 0, 0, 0, 0};

	if (rights && me == 2)
		s = (struct attrs_sched){sizeof(s), SCHED_RR, 1 /* reset on fork */, 0, 7, 0, 0, 0};
	attrs_need(!syscall(SYS_sched_setattr, 0, &s, 0), "set a scheduling policy");
	if (sysconf(_SC_NPROCESSORS_ONLN) > 1 && me != 2)
		attrs_need(
			!syscall(SYS_sched_setaffinity, 0, sizeof(cpu), &cpu), "set a processor");
	attrs_need(!syscall(SYS_ioprio_set, 1, 0, 2 << 13 | (3 + me)), "set an I/O priority");
	prctl(PR_SET_TIMERSLACK, 70000 + me, 0, 0, 0);
	syscall(SYS_personality, 0x0040000 + (me == 1) * 0x4000000);
}

/* --- sleepers --- */

static void check_awake(const char *what, clockid_t clock, const struct timespec *until)
{
	struct timespec now;

	clock_gettime(clock, &now);
	if (now.tv_sec < until->tv_sec ||
		(now.tv_sec == until->tv_sec && now.tv_nsec < until->tv_nsec) ||
		now.tv_sec > until->tv_sec + PATIENCE)
		attrs_wrong(9, what, (uint64_t)until->tv_sec, (uint64_t)now.tv_sec);
	attrs_counted(1);
}

static void *sleep_until(void *arg)
{
	struct timespec *until = arg;

	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, until, NULL) == EINTR)
		;
	check_awake("a sleep until a time", CLOCK_MONOTONIC, until);
	return NULL;
}

static void *sleep_through(void *arg)
{
	struct timespec *until = arg;

	while (clock_nanosleep(CLOCK_BOOTTIME, TIMER_ABSTIME, until, NULL) == EINTR)
		;
	check_awake("a sleep through suspensions", CLOCK_BOOTTIME, until);
	return NULL;
}

static void *wait_until(void *arg)
{
	pthread_mutex_t own = PTHREAD_MUTEX_INITIALIZER;
	pthread_cond_t never = PTHREAD_COND_INITIALIZER;
	struct timespec *until = arg;

	pthread_mutex_lock(&own);
	while (pthread_cond_clockwait(&never, &own, CLOCK_MONOTONIC, until) != ETIMEDOUT)
		;
	check_awake("a wait until a time", CLOCK_MONOTONIC, until);
	return NULL;
}

/* --- the whole --- */

static void *live(void *arg)
{
	unsigned me = (unsigned)(uintptr_t)arg;
	struct attrs_seen before, after;

	tids[me] = (pid_t)syscall(SYS_gettid);
	change_scheduling(me);
	if (me == 1)
		prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	if (filters && me)
		attrs_filter(me);
	pthread_barrier_wait(&set_up); /* all tids are known */
	if (!me)
		attrs_timers_start(&timers, tids[1]);
	if (rights)
		attrs_change_rights(me);
	pthread_barrier_wait(&set_up);
	prctl(PR_SET_DUMPABLE, rights, 0, 0, 0); /* new ids have made it 0 */
	prctl(PR_SET_PDEATHSIG, me == 1 ? SIGURG : SIGWINCH, 0, 0, 0);
	pthread_barrier_wait(&set_up);
	attrs_observe(&before, me);
	pthread_barrier_wait(&set_up);
	if (!me) {
		sigset_t set;
		int signo;

		sigemptyset(&set);
		sigaddset(&set, SIGUSR1);
		printf("ready %d\n", (int)getpid());
		fflush(stdout);
		sigwait(&set, &signo);
	}
	pthread_barrier_wait(&woken);
	attrs_observe(&after, me);
	attrs_compare(&before, &after, me);
	if (!me)
		attrs_timers_check(&timers);
	pthread_barrier_wait(&seen);
	if (me == 1)
		attrs_timers_told(&timers);
	return NULL;
}

static void await(pthread_t sleeper, unsigned number)
{
	struct timespec limit;

	clock_gettime(CLOCK_REALTIME, &limit);
	limit.tv_sec += sleep_s + TOO_LATE;
	if (pthread_timedjoin_np(sleeper, NULL, &limit))
		attrs_wrong(9, "a sleeper hangs", 0, number);
}

int main(int argc, char **argv)
{
	static struct timespec until, until_boot;
	pthread_t thread[THREADS], sleeper[SLEEPERS];
	sigset_t set;

	for (int i = 1; i < argc; i++) {
		rights |= !strcmp(argv[i], "rights");
		filters |= !strcmp(argv[i], "filters");
		clocks |= !strcmp(argv[i], "clocks");
		if (!strncmp(argv[i], "sleep=", 6))
			sleep_s = strtol(argv[i] + 6, NULL, 10);
	}
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigaddset(&set, SIGRTMIN);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	pthread_barrier_init(&set_up, NULL, THREADS);
	pthread_barrier_init(&woken, NULL, THREADS);
	pthread_barrier_init(&seen, NULL, THREADS);
	change_process();
	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += sleep_s;
	clock_gettime(CLOCK_BOOTTIME, &until_boot);
	until_boot.tv_sec += sleep_s;
	if (clocks) {
		pthread_create(&sleeper[0], NULL, sleep_until, &until);
		pthread_create(&sleeper[1], NULL, wait_until, &until);
		pthread_create(&sleeper[2], NULL, sleep_through, &until_boot);
	}
	for (unsigned i = 1; i < THREADS; i++)
		pthread_create(&thread[i], NULL, live, (void *)(uintptr_t)i);
	live(NULL);
	for (unsigned i = 1; i < THREADS; i++)
		pthread_join(thread[i], NULL);
	for (unsigned i = 0; clocks && i < SLEEPERS; i++)
		await(sleeper[i], i);
	if (!n_wrong)
		printf("right %u\n", n_compared);
	return n_wrong != 0;
}
