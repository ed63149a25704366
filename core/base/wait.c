/* SPDX-License-Identifier: MIT */
/* See wait.h. */
#include "core/base/wait.h"

#include <linux/futex.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>

static bool is_futex(const uint64_t arg[6], uint64_t op)
{
	return (arg[1] & FUTEX_CMD_MASK) == op && arg[3];
}

bool tf_wait_is_timed(long nr, const uint64_t arg[6])
{
	switch (nr) {
	case SYS_restart_syscall:
	case SYS_nanosleep:
		return true;
	case SYS_clock_nanosleep:
		return !(arg[1] & TIMER_ABSTIME);
	case SYS_futex:
		return is_futex(arg, FUTEX_WAIT);
#ifdef SYS_poll
	case SYS_poll:
		return (int32_t)arg[2] > 0;
#endif
	default:
		return false;
	}
}

/* What a relative nanosleep has left was written to where it wants it: to the request itself, and
 * then it can be made again, or elsewhere, and then it is the program that makes another. Without
 * any such place, and in poll(2), it waits too long rather than too short. futex(2) may wake up for
 * no reason. */
bool tf_wait_gives_up(long nr, const uint64_t arg[6], bool inside)
{
	switch (nr) {
	case SYS_restart_syscall:
		return true;
	case SYS_nanosleep:
		return inside && arg[1] && arg[1] != arg[0];
	case SYS_clock_nanosleep:
		return inside && !(arg[1] & TIMER_ABSTIME) && arg[3] && arg[3] != arg[2];
	case SYS_futex:
		return is_futex(arg, FUTEX_WAIT);
	default:
		return false;
	}
}

bool tf_wait_is_absolute(long nr, const uint64_t arg[6])
{
	switch (nr) {
	case SYS_clock_nanosleep:
		return arg[1] & TIMER_ABSTIME &&
		       (arg[0] == CLOCK_MONOTONIC || arg[0] == CLOCK_BOOTTIME);
	case SYS_futex:
		return is_futex(arg, FUTEX_WAIT_BITSET) && !(arg[1] & FUTEX_CLOCK_REALTIME);
	default:
		return false;
	}
}

bool tf_wait_shorten(
	long nr, const uint64_t arg[6], uint64_t left, uint64_t room, struct tf_wait_call *ret)
{
	struct tf_wait_call c = {.nr = nr, .has_time = true, .time = left};

	if (nr == SYS_restart_syscall ||
		(!tf_wait_is_timed(nr, arg) && !tf_wait_is_absolute(nr, arg)))
		return false;
	memcpy(c.arg, arg, sizeof(c.arg));
	switch (nr) {
	case SYS_nanosleep:
		c.arg[0] = room;
		break;
	case SYS_clock_nanosleep:
		c.arg[1] = 0;
		c.arg[2] = room;
		if (arg[1] & TIMER_ABSTIME)
			c.arg[3] = 0; /* no place for a rest, whatever stands there */
		break;
	case SYS_futex:
		c.from_now = is_futex(arg, FUTEX_WAIT_BITSET);
		c.arg[3] = room;
		break;
	default: /* poll: milliseconds */
		c.has_time = false;
		c.arg[2] = left / 1000000 < INT32_MAX ? (left + 999999) / 1000000 : INT32_MAX;
	}
	*ret = c;
	return true;
}
