/* SPDX-License-Identifier: MIT */
/* Waits with a time limit: what is left of it is found, and the copy waits no longer and no
 * shorter. */
#include "tests/unit/places.h"

#include <check.h>
#include <signal.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "core/base/host.h"

#define DAY        INT64_C(86400)
#define SECOND     INT64_C(1000000000)
#define WAITED_NS  (SECOND / 10)
#define SHORT_LEFT (3 * SECOND / 10)

static long sleep_nowhere(void)
{
	return place_result(syscall(SYS_nanosleep, &place_day, NULL));
}

static long clock_nowhere(void)
{
	return place_result(syscall(SYS_clock_nanosleep, CLOCK_REALTIME, 0, &place_day, NULL));
}

static long clock_elsewhere(void)
{
	return place_result(
		syscall(SYS_clock_nanosleep, CLOCK_BOOTTIME, 0, &place_day, &place_rest));
}

static long ppoll_day(void)
{
	return place_result(syscall(SYS_ppoll, NULL, 0, &place_day, NULL, 8));
}

static long pselect_day(void)
{
	return place_result(syscall(SYS_pselect6, 0, NULL, NULL, NULL, &place_day, NULL));
}

static const struct timed {
	const char *name;
	long (*call)(void);
	bool absolute; /* matters where the clocks are others */
	bool kept;     /* the kernel has put the rest in the request */
} timed[] = {
	{"nanosleep", sleep_nowhere, false, false},
	{"nanosleep, rest elsewhere", place_sleep_rest, false, false},
	{"nanosleep, rest in the request", place_sleep, false, true},
	{"clock_nanosleep", clock_nowhere, false, false},
	{"clock_nanosleep, rest elsewhere", clock_elsewhere, false, false},
	{"clock_nanosleep, absolute", place_sleep_until, true, false},
#ifdef SYS_poll
	{"poll", place_poll, false, false},
#endif
	{"ppoll", ppoll_day, false, true},
	{"pselect", pselect_day, false, true},
	{"futex", place_futex, false, false},
	{"futex, absolute", place_futex_until, true, false},
};

static int which; /* of timed[] */

static int64_t now_ns(void)
{
	return (int64_t)tf_clock_ns(CLOCK_MONOTONIC);
}

static int wait_timed(void)
{
	place_hear();
	return place_verdict(timed[which].call(), SHORT_LEFT);
}

/* Nobody can say when it fell asleep, and time that the host took does not count: too little is
 * wrong, too much is not. */
static void check_left(int64_t left, int64_t before, int64_t asleep)
{
	int64_t stopped = (int64_t)place.task.stopped_ns, slept = DAY * SECOND - left;

	/* The kernel writes a rest when it has heard of the stop. */
	ck_assert_msg(slept <= now_ns() - before, "%s: %lld ns too short", timed[which].name,
		(long long)(slept - (stopped - before)));
	ck_assert_msg(slept >= (stopped - asleep) / 8, "%s: slept %lld of %lld", timed[which].name,
		(long long)slept, (long long)(stopped - asleep));
}

/* What is left is found, and the copy waits as long as the image says and no longer: that is made
 * short here, where the call itself still says a day. */
START_TEST(time_left)
{
	const struct timed *w = &timed[_i];
	struct tf_image *img = &place.task.capture.image;
	struct timespec wait = {.tv_nsec = WAITED_NS};
	int64_t before, asleep;
	long nr = -1;

	which = _i;
	place_start(wait_timed, NULL);
	before = now_ns();
	place.go[0] = 1;
	place_wait_blocked("original", place.original, &nr);
	asleep = now_ns();
	nanosleep(&wait, NULL);
	place_describe(false);
	ck_assert_uint_eq(img->n_waits, !w->kept);
	if (w->kept) {
		ck_assert_int_eq(pread(place.task.mem, &place_day, sizeof(place_day),
					 (off_t)(uintptr_t)&place_day),
			sizeof(place_day));
		check_left(place_day.tv_sec * SECOND + place_day.tv_nsec, before, asleep);
		return;
	}
	ck_assert_uint_eq(img->waits->thread, 0);
	check_left((int64_t)img->waits->left, before, asleep);
	img->waits->left = SHORT_LEFT;
	if (w->absolute)
		img->process.boot = "another machine";
	place_save();
	place.jumps = w->absolute;
	place_restore();
	place_end("copy", place.copy, TIMED_OUT, w->name, nr);
	kill(place.original, SIGUSR1);
	place_end("original", place.original, RIGHT, w->name, nr);
}
END_TEST

void place_limits(TCase *t)
{
	tcase_add_loop_test(t, time_left, 0, sizeof(timed) / sizeof(*timed));
}
