/* SPDX-License-Identifier: MIT */
/*
 * For test_places: a process that is captured from outside at a place where it matters, and the
 * copy that is made of it. Both have to come to the right end from there. What kinds of places
 * there are is in places_walks.c, places_calls.c and places_limits.c.
 */
#ifndef TESTS_UNIT_PLACES_H
#define TESTS_UNIT_PLACES_H

#include <check.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <time.h>

#include "core/capture/task.h"
#include "core/restore/pad.h"

/* Exit codes of the original and of the copy. */
enum {
	RIGHT,
	GAVE_UP,   /* the call returned EINTR, and nobody had sent a signal */
	NO_FILE,   /* EBADF: what it waited for stayed behind */
	NO_CHILD,  /* ECHILD */
	TIMED_OUT, /* and not too early */
	WRONG = 70,
};

struct place {
	long stride;      /* every so manieth instruction of a walk */
	volatile int *go; /* shared with the original: [0] it may begin, [1] it is there */
	pid_t original, copy;
	struct tf_task task;
	struct tf_pad pad;
	uint64_t pc; /* of the image */
	bool jumps;  /* the receiver may not keep the source's clocks */
	int image;
	char path[32]; /* of a file */

	/* In the original. */
	int file;
	volatile int told; /* SIGUSR1 has come */
};

extern struct place place;

/* Cases of each kind are added to t. */
void place_walks(TCase *t);
void place_calls(TCase *t);
void place_limits(TCase *t);

/* Forks the original: it calls set_up, if there is one, waits for place.go[0] without a system
 * call, and ends with what fn returns. */
void place_start(int (*fn)(void), void (*set_up)(void));

/* In the original: from now on SIGUSR1 sets place.told and wakes who waits for it (place_wait_for).
 */
void place_hear(void);

/* Until *word is not 0, in a futex; place_wake() has to follow the change. */
void place_wait_for(volatile int *word);
void place_wake(volatile int *word);

/* Stops the original and describes it, then saves it to an image and lets it go on; or both. The
 * image says that its vDSO is another than the one here if other_vdso. */
void place_describe(bool other_vdso);
void place_save(void);
void place_take(bool other_vdso);

/* A copy from the image. */
void place_restore(void);

/* Waits for the end of pid, which has to be exit code want. */
void place_end(const char *who, pid_t pid, int want, const char *where, long at);

/* Until it waits in a system call: that of number *nr, or if that is not known yet, any. */
void place_wait_blocked(const char *who, pid_t pid, long *nr);

/* The kernel does not tell of some that are stopped that they are inside a call (aarch64, after it
 * has set the registers to make it again). That is then one that is yet to be made. */
bool place_is_outside_calls(void);

/* What the exit code is of who waited for ns and got rc, 0 or a negative code. */
int place_verdict(long rc, int64_t ns);

/* System calls that take their time, of places_calls.c: their return value, or a negative code.
 * place_day is the limit of each, place_rest is where the rest of place_sleep_rest() goes. */
extern struct timespec place_day, place_rest;
long place_result(long rc);
long place_sleep(void);
long place_sleep_rest(void);
long place_sleep_until(void);
long place_poll(void);
long place_futex(void);
long place_futex_until(void);

#endif
