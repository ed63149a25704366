/* SPDX-License-Identifier: MIT */
/* Timers of every kind; see attrs.h. */
#include "tests/probes/attrs.h"

#include <semaphore.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <unistd.h>

#define LONG     1000 /* seconds: none expires by itself */
#define LATER    1500
#define PATIENCE 300 /* and that long a journey may take */
#define CALLBACK 3   /* number of the thread that a callback is called in */
#define FIRST    3   /* the ids below are made and deleted */

#ifndef sigev_notify_thread_id
#define sigev_notify_thread_id _sigev_un._tid
#endif

static sem_t called;
static struct attrs_seen seen_by_callback[2];
static unsigned n_calls;

/* In a thread that the C library's own, which says nothing, has made of itself. */
static void call(union sigval v)
{
	if (v.sival_int != 4711)
		return;
	attrs_observe(&seen_by_callback[n_calls++ != 0], CALLBACK);
	sem_post(&called);
}

static bool is_called(timer_t t)
{
	const struct itimerspec now = {{0, 0}, {0, 1}};
	struct timespec patience;

	timer_settime(t, 0, &now, NULL);
	clock_gettime(CLOCK_REALTIME, &patience);
	patience.tv_sec += 30;
	return !sem_timedwait(&called, &patience);
}

static timer_t create(clockid_t clock, struct sigevent *event, time_t left, time_t interval)
{
	struct itimerspec v = {{interval, 0}, {left, 0}};
	timer_t t;

	attrs_need(!timer_create(clock, event, &t), "create a timer");
	attrs_need(!timer_settime(t, 0, &v, NULL), "set a timer");
	return t;
}

void attrs_timers_start(struct attrs_timers *t, pid_t tid)
{
	struct sigevent none = {.sigev_notify = SIGEV_NONE};
	struct sigevent to_all = {
		.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN, .sigev_value.sival_int = 12};
	struct sigevent to_one = to_all, thread = {.sigev_notify = SIGEV_THREAD,
						 .sigev_notify_function = call,
						 .sigev_value.sival_int = 4711};
	timer_t fillers[FIRST];

	to_one.sigev_notify = SIGEV_THREAD_ID;
	to_one.sigev_value.sival_int = 34;
	to_one.sigev_notify_thread_id = tid;
	sem_init(&called, 0, 0);
	for (int i = 0; i < FIRST; i++)
		fillers[i] = create(CLOCK_MONOTONIC, &none, 0, 0);
	for (int i = 0; i < FIRST; i++)
		timer_delete(fillers[i]);
	t->disarmed = create(CLOCK_MONOTONIC, &to_all, 0, 0);
	t->thread = create(CLOCK_REALTIME, &to_one, LONG, 9);
	fillers[0] = create(CLOCK_MONOTONIC, &none, 0, 0);
	timer_delete(fillers[0]);
	t->callback = create(CLOCK_BOOTTIME, &thread, LATER, 0);
	attrs_need(is_called(t->callback), "be called by a timer");
	timer_settime(t->callback, 0, &(struct itimerspec){{0, 0}, {LATER, 0}}, NULL);
	for (int i = ITIMER_REAL; i <= ITIMER_PROF; i++) {
		const struct itimerval v = {{20 + i, 1000}, {LONG, 0}};

		attrs_need(!setitimer((__itimer_which_t)i, &v, NULL), "set an interval timer");
	}
}

static void check_left(
	const char *what, time_t left, time_t at_most, time_t interval, time_t should)
{
	if (interval != should)
		attrs_wrong(0, what, (uint64_t)should, (uint64_t)interval);
	if (left > at_most || left < at_most - PATIENCE)
		attrs_wrong(0, what, (uint64_t)at_most, (uint64_t)left);
	attrs_counted(2);
}

/* It is made to expire, and tells the calling thread, which alone lets it wait. */
static void check_told(timer_t t, int value)
{
	const struct itimerspec now = {{0, 0}, {0, 1}};
	const struct timespec patience = {30, 0};
	siginfo_t info = {0};
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGRTMIN);
	timer_settime(t, 0, &now, NULL);
	if (sigtimedwait(&set, &info, &patience) != SIGRTMIN || info.si_code != SI_TIMER ||
		info.si_value.sival_int != value)
		attrs_wrong(0, "what a timer tells", (uint64_t)value,
			(uint64_t)info.si_value.sival_int);
	attrs_counted(1);
}

void attrs_timers_told(const struct attrs_timers *t)
{
	check_told(t->thread, 34);
}

void attrs_timers_check(struct attrs_timers *t)
{
	struct itimerspec v = {{0, 0}, {0, 0}};
	struct itimerval i;

	for (int n = ITIMER_REAL; n <= ITIMER_PROF; n++) {
		getitimer((__itimer_which_t)n, &i);
		check_left("interval timer", i.it_value.tv_sec, LONG, i.it_interval.tv_sec, 20 + n);
	}
	timer_gettime(t->thread, &v);
	check_left("timer", v.it_value.tv_sec, LONG, v.it_interval.tv_sec, 9);
	timer_gettime(t->callback, &v);
	check_left("timer with a callback", v.it_value.tv_sec, LATER, v.it_interval.tv_sec, 0);
	if (timer_gettime(t->disarmed, &v) || v.it_value.tv_sec || v.it_value.tv_nsec)
		attrs_wrong(0, "a timer that was off", 0, (uint64_t)v.it_value.tv_sec);
	check_told(t->disarmed, 12);
	if (is_called(t->callback))
		attrs_compare(&seen_by_callback[0], &seen_by_callback[1], CALLBACK);
	else
		attrs_wrong(0, "a timer's callback", 1, 0);
	attrs_counted(2);
}
