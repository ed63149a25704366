/* SPDX-License-Identifier: MIT */
/* Blocked in each of many system calls, running or stopped. */
#include "tests/unit/places.h"

#include <check.h>
#include <errno.h>
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* --- system calls that take their time --- */

#define DAY 86400

struct timespec place_day = {DAY, 0}, place_rest;
static struct timespec moment = {0, 200000000};
static int word, second, ends[2], epoll, listener, locked;
static pthread_mutex_t recursive = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;

long place_result(long rc)
{
	return rc < 0 ? -errno : rc;
}

static long futex(int op, const struct timespec *limit)
{
	return place_result(
		syscall(SYS_futex, &word, op, 0, limit, &second, FUTEX_BITSET_MATCH_ANY));
}

static struct timespec *from_now(clockid_t clock, const struct timespec *more)
{
	static struct timespec ts;

	clock_gettime(clock, &ts);
	ts.tv_nsec += more->tv_nsec;
	ts.tv_sec += more->tv_sec + ts.tv_nsec / 1000000000;
	ts.tv_nsec %= 1000000000;
	return &ts;
}

static long futex_wait(void)
{
	return futex(FUTEX_WAIT, NULL);
}

long place_futex(void)
{
	return futex(FUTEX_WAIT, &place_day);
}

long place_futex_until(void)
{
	return futex(FUTEX_WAIT_BITSET, from_now(CLOCK_MONOTONIC, &place_day));
}

static long futex_moment(void)
{
	return futex(FUTEX_WAIT_BITSET, from_now(CLOCK_MONOTONIC, &moment));
}

static void *requeue(void *unused)
{
	while (syscall(SYS_futex, &word, FUTEX_CMP_REQUEUE, 0, 1L, &second, 0) != 1)
		usleep(100);
	*(volatile int *)&second = 1;
	return unused;
}

static pthread_t start_thread(void *(*fn)(void *))
{
	pthread_t t;
	sigset_t all, before;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	pthread_create(&t, NULL, fn, NULL);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return t;
}

/* Moved to another word while it waits. */
static long futex_requeued(void)
{
	start_thread(requeue);
	return futex(FUTEX_WAIT, NULL);
}

/* Until the other one has heard, and does not get out of the kernel for that. */
static void *hold(void *unused)
{
	word = (int)syscall(SYS_gettid);
	place_wait_for(&place.told);
	syscall(SYS_futex, &word, FUTEX_UNLOCK_PI, 0, NULL, NULL, 0);
	return unused;
}

/* Without a system call: place_wait_blocked() would take that for the one that is meant. */
static void await_holder(void)
{
	while (!*(volatile int *)&word)
		;
}

/* Another thread has it, and gives it to this one. */
static long futex_pi(void)
{
	long rc;

	start_thread(hold);
	await_holder();
	rc = futex(FUTEX_LOCK_PI, NULL);
	return !rc && place.told && (word & FUTEX_TID_MASK) == syscall(SYS_gettid) ? -EINTR : rc;
}

static void *hold_mutex(void *unused)
{
	pthread_mutex_lock(&recursive);
	word = 1;
	place_wait_for(&place.told);
	pthread_mutex_unlock(&recursive);
	return unused;
}

static long mutex_recursive(void)
{
	int rc;

	start_thread(hold_mutex);
	await_holder();
	rc = pthread_mutex_lock(&recursive);
	rc |= pthread_mutex_unlock(&recursive);
	rc |= pthread_mutex_trylock(&recursive);
	return !rc && place.told ? -EINTR : rc;
}

long place_sleep(void)
{
	return place_result(syscall(SYS_nanosleep, &place_day, &place_day));
}

static long sleep_moment(void)
{
	return place_result(syscall(SYS_nanosleep, &moment, &moment));
}

long place_sleep_rest(void)
{
	return place_result(syscall(SYS_nanosleep, &place_day, &place_rest));
}

/* Interrupted before: the kernel's own call goes on with it, and this code does not tell which one
 * it was. */
static long sleep_continued(void)
{
	return place_sleep();
}

static long clock_sleep(void)
{
	return place_result(
		syscall(SYS_clock_nanosleep, CLOCK_MONOTONIC, 0, &place_day, &place_day));
}

long place_sleep_until(void)
{
	return place_result(syscall(SYS_clock_nanosleep, CLOCK_MONOTONIC, TIMER_ABSTIME,
		from_now(CLOCK_MONOTONIC, &place_day), NULL));
}

long place_poll(void)
{
	return place_result(poll(NULL, 0, DAY * 1000));
}

static long poll_moment(void)
{
	return place_result(poll(NULL, 0, 200));
}

static long ppoll_none(void)
{
	return place_result(ppoll(NULL, 0, NULL, NULL));
}

static long select_none(void)
{
	return place_result(select(0, NULL, NULL, NULL, NULL));
}

static long read_pipe(void)
{
	char c;

	return place_result(read(ends[0], &c, 1));
}

static long accept_one(void)
{
	return place_result(accept(listener, NULL, NULL));
}

static long wait_child(void)
{
	return place_result(syscall(SYS_wait4, -1, NULL, 0, NULL));
}

static long wait_id(void)
{
	return place_result(syscall(SYS_waitid, P_ALL, 0, NULL, WEXITED, NULL));
}

static long lock_file(void)
{
	return place_result(flock(place.file, LOCK_EX));
}

static long suspend(void)
{
	sigset_t none;

	sigemptyset(&none);
	return place_result(sigsuspend(&none));
}

static long pause_here(void)
{
	return place_result(pause());
}

static long wait_signal(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR2);
	return place_result(sigtimedwait(&set, NULL, &place_day));
}

static long wait_epoll(void)
{
	struct epoll_event event;

	return place_result(epoll_wait(epoll, &event, 1, -1));
}

/* In the copy; RIGHT: waits there again until it is told. In the original it never ends, but where
 * signal(7) says that a stop ends it. */
static const struct blocked {
	const char *name;
	long (*call)(void);
	int copy, original;
	bool continued; /* by a stop, before */
} blocked[] = {
	{"futex", futex_wait, RIGHT, RIGHT, false},
	{"futex, relative", place_futex, RIGHT, RIGHT, false},
	{"futex, absolute", place_futex_until, RIGHT, RIGHT, false},
	{"futex, a moment", futex_moment, TIMED_OUT, TIMED_OUT, false},
	{"futex, requeued", futex_requeued, RIGHT, RIGHT, false},
	{"futex, priority inheritance", futex_pi, RIGHT, RIGHT, false},
	{"mutex, recursive", mutex_recursive, RIGHT, RIGHT, false},
	{"nanosleep", place_sleep, RIGHT, RIGHT, false},
	{"nanosleep, a moment", sleep_moment, TIMED_OUT, TIMED_OUT, false},
	{"nanosleep, rest elsewhere", place_sleep_rest, RIGHT, RIGHT, false},
	{"nanosleep, continued", sleep_continued, GAVE_UP, RIGHT, true},
	{"clock_nanosleep", clock_sleep, RIGHT, RIGHT, false},
	{"clock_nanosleep, absolute", place_sleep_until, RIGHT, RIGHT, false},
	{"poll", place_poll, RIGHT, RIGHT, false},
	{"poll, a moment", poll_moment, TIMED_OUT, TIMED_OUT, false},
	{"ppoll", ppoll_none, RIGHT, RIGHT, false},
	{"select", select_none, RIGHT, RIGHT, false},
	{"read", read_pipe, NO_FILE, RIGHT, false},
	{"accept", accept_one, NO_FILE, RIGHT, false},
	{"wait4", wait_child, NO_CHILD, RIGHT, false},
	{"waitid", wait_id, NO_CHILD, RIGHT, false},
	{"flock", lock_file, RIGHT, RIGHT, false},
	{"sigsuspend", suspend, RIGHT, RIGHT, false},
	{"pause", pause_here, RIGHT, RIGHT, false},
	{"sigtimedwait", wait_signal, GAVE_UP, GAVE_UP, false},
	{"epoll_wait", wait_epoll, GAVE_UP, GAVE_UP, false},
};

static int which; /* of blocked[] */

int place_verdict(long rc, int64_t ns)
{
	if (place.told)
		return rc == -EINTR ? RIGHT : WRONG + 3;
	switch (rc) {
	case -EINTR:
		return GAVE_UP;
	case -EBADF:
		return NO_FILE;
	case -ECHILD:
		return NO_CHILD;
	case 0:
	case -ETIMEDOUT:
		return ns >= 200000000 ? TIMED_OUT : WRONG + 1;
	default:
		return WRONG + 2;
	}
}

static int block(void)
{
	struct timespec from, to;
	long rc;

	place_hear();
	clock_gettime(CLOCK_MONOTONIC, &from);
	rc = blocked[which].call();
	clock_gettime(CLOCK_MONOTONIC, &to);
	return place_verdict(
		rc, (to.tv_sec - from.tv_sec) * INT64_C(1000000000) + to.tv_nsec - from.tv_nsec);
}

/* What the calls wait for: none of it ever happens. */
static void set_up_block(void)
{
	struct sockaddr name = {.sa_family = AF_UNIX};

	ck_assert_int_eq(pipe(ends), 0);
	epoll = epoll_create1(0);
	listener = socket(AF_UNIX, SOCK_STREAM, 0);
	bind(listener, &name, sizeof(name.sa_family));
	listen(listener, 1);
	locked = open(place.path, O_RDWR);
	flock(locked, LOCK_EX);
	if (blocked[which].copy == NO_CHILD && !fork()) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		for (;;)
			pause();
	}
}

/* --- the original and its copy --- */

static void set_stopped(pid_t pid, bool stopped)
{
	int status;

	kill(pid, stopped ? SIGSTOP : SIGCONT);
	if (stopped)
		ck_assert_int_eq(waitpid(pid, &status, WUNTRACED), pid);
}

static void end_blocked(const char *who, pid_t pid, int want, long nr)
{
	if (want == RIGHT) {
		place_wait_blocked(who, pid, &nr);
		kill(pid, SIGUSR1);
	}
	place_end(who, pid, want, blocked[which].name, nr);
}

/* Twice: running, and stopped. */
START_TEST(in_a_call)
{
	const struct blocked *b = &blocked[_i / 2];
	bool stopped = _i % 2;
	int copys = b->copy;
	long nr = -1;

	which = _i / 2;
	place_start(block, set_up_block);
	place.go[0] = 1;
	place_wait_blocked("original", place.original, &nr);
	if (b->continued) {
		set_stopped(place.original, true);
		set_stopped(place.original, false);
		place_wait_blocked("original", place.original, &nr);
	}
	if (stopped)
		set_stopped(place.original, true);
	if (stopped && b->call == place_sleep_rest && place_is_outside_calls())
		copys = RIGHT; /* the whole time anew, too long and never too short */
	if (stopped && b->call == place_futex && place_is_outside_calls())
		copys = GAVE_UP;
	place_take(false);
	place_restore();
	if (stopped) {
		set_stopped(place.copy, false);
		set_stopped(place.original, false);
	}
	end_blocked("copy", place.copy, copys, nr);
	end_blocked("original", place.original, b->original, nr);
}
END_TEST

void place_calls(TCase *t)
{
	tcase_add_loop_test(t, in_a_call, 0, 2 * sizeof(blocked) / sizeof(*blocked));
}
