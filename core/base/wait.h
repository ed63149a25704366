/* SPDX-License-Identifier: MIT */
/* System calls that wait with a time limit, by number and arguments of the architecture that this
 * was built for. */
#ifndef TF_BASE_WAIT_H
#define TF_BASE_WAIT_H

#include <stdbool.h>
#include <stdint.h>

/* Whether the kernel goes on with the call from where it was interrupted: one with a relative
 * limit. SYS_restart_syscall is one of them, by the name that it then has. */
bool tf_wait_is_timed(long nr, const uint64_t arg[6]);

/* Whether the call, made anew and (inside) after it was interrupted in the middle, is better ended
 * with EINTR, where nobody has it wait for what is left. */
bool tf_wait_gives_up(long nr, const uint64_t arg[6], bool inside);

/* Whether the call's limit is a time of a clock that is another on each machine. */
bool tf_wait_is_absolute(long nr, const uint64_t arg[6]);

/* The call, made to wait for so many nanoseconds. */
struct tf_wait_call {
	long nr;
	uint64_t arg[6];
	bool has_time; /* room is to hold a struct timespec: */
	bool from_now; /* CLOCK_MONOTONIC's own, and this */
	uint64_t time; /* nanoseconds */
};

/* False: it is none of these calls. Of a call with an absolute limit it makes one that ends then.
 * room: address of a struct timespec in the process. */
bool tf_wait_shorten(
	long nr, const uint64_t arg[6], uint64_t left, uint64_t room, struct tf_wait_call *ret);

#endif
