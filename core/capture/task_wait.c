/* SPDX-License-Identifier: MIT */
/*
 * How long threads that wait with a time limit still have to, see task_impl.h. The kernel keeps the
 * end of a sleep to itself. But it tells when a thread was last taken off its processor
 * (se.exec_start in /proc/PID/sched), by a clock that every processor has of its own; what that
 * clock says now is seen there by a thread of ours. All that is uncertain makes the rest longer,
 * never shorter.
 */
#include "core/capture/task_impl.h"

#include <fcntl.h>
#include <linux/futex.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "core/base/cleanup.h"
#include "core/base/io.h"
#include "core/base/wait.h"

#define SECOND UINT64_C(1000000000)
#define SCHED  4096 /* bytes of /proc/PID/sched; what is looked for stands at its beginning */
#define CPUS   8192 /* NR_CPUS, at most */

/* The two clocks may differ by 0.05 percent (the kernel gives up on one that is worse). */
#define DRIFT 1024

/* --- since when it sleeps --- */

struct sched {
	uint64_t start, switches;
};

/* "se.exec_start : 1234567.123456", milliseconds */
static bool read_sched(const char *path, struct sched *ret)
{
	char text[SCHED];
	const char *start, *point;

	tf_proc_peek(path, text, sizeof(text));
	start = strstr(text, "\nse.exec_start");
	start = start ? strchr(start, ':') : NULL;
	point = start ? strchr(start, '.') : NULL;
	if (!point)
		return false;
	ret->start = strtoull(start + 1, NULL, 10) * 1000000 + strtoull(point + 1, NULL, 10);
	start = strstr(text, "\nnr_voluntary_switches");
	start = start ? strchr(start, ':') : NULL;
	ret->switches = start ? strtoull(start + 1, NULL, 10) : 0;
	return start && ret->start;
}

/* The processor that it was on, behind 36 more fields and the name; -1: not told. */
static int processor_of(const struct tf_task *t, pid_t tid)
{
	char stat[512];
	const char *p;

	tf_task_thread_text(t, tid, "stat", stat, sizeof(stat));
	p = strrchr(stat, ')');
	for (int i = 0; p && i < 37; i++)
		p = strchr(p + 1, ' ');
	return p ? atoi(p + 1) : -1;
}

/* What tf_now_ns() is ahead of that processor's clock, or 0: we may not go there. A thread that
 * gives its processor away has its time noted; read after that, ours is rather too late. */
static uint64_t measure_ahead(int cpu)
{
	size_t size = CPU_ALLOC_SIZE(CPUS);
	cpu_set_t *all = CPU_ALLOC(CPUS), *one = CPU_ALLOC(CPUS);
	struct sched own;
	uint64_t ahead = 0;

	if (all && one && !sched_getaffinity(0, size, all)) {
		CPU_ZERO_S(size, one);
		CPU_SET_S((size_t)cpu, size, one);
		if (!sched_setaffinity(0, size, one)) {
			sched_yield();
			if (read_sched("/proc/thread-self/sched", &own))
				ahead = tf_now_ns() - own.start;
			sched_setaffinity(0, size, all);
		}
	}
	CPU_FREE(all);
	CPU_FREE(one);
	return ahead;
}

static uint64_t ahead_of(struct tf_task *t, int cpu)
{
	if (cpu < 0 || cpu >= CPUS)
		return 0;
	if (!t->cpu_clocks)
		t->cpu_clocks = tf_arena_array(&t->capture.arena, CPUS, sizeof(*t->cpu_clocks));
	if (!t->cpu_clocks)
		return 0;
	if (!t->cpu_clocks[cpu])
		t->cpu_clocks[cpu] = measure_ahead(cpu);
	return t->cpu_clocks[cpu];
}

/* It slept all the time in between if it was asleep at the end, and never fell asleep. */
void tf_task_see_wait(struct tf_task *t, struct tf_traced *x, const char *syscall)
{
	char path[TF_TASK_PATH], again[256];
	struct sched first, then;
	uint64_t ahead, arg[6] = {0};
	char *p = NULL;
	long nr = strtol(syscall, &p, 10);

	for (int i = 0; i < 6; i++)
		arg[i] = strtoull(p, &p, 16);
	if (!tf_wait_is_timed(nr, arg))
		return;
	snprintf(path, sizeof(path), "/proc/%d/task/%d/sched", (int)t->pid, (int)x->tid);
	if (!read_sched(path, &first) || !read_sched(path, &then) ||
		first.switches != then.switches)
		return;
	ahead = ahead_of(t, processor_of(t, x->tid));
	tf_task_thread_text(t, x->tid, "syscall", again, sizeof(again));
	if (!ahead || strcmp(again, syscall) != 0)
		return;
	x->slept_ns = then.start + ahead;
	x->switches = then.switches;
}

/* Nanoseconds. It has fallen asleep once since it was looked at: when it stopped for us. */
static uint64_t has_slept(const struct tf_task *t, const struct tf_traced *x)
{
	uint64_t switches = tf_text_number(x->status, "\nvoluntary_ctxt_switches:", 10, 0);

	if (!x->slept_ns || switches != x->switches + 1 || t->stopped_ns < x->slept_ns)
		return 0;
	return (t->stopped_ns - x->slept_ns) / DRIFT * (DRIFT - 1);
}

/* --- what is left --- */

/* False: nobody knows. */
static bool read_time(struct tf_task *t, uint64_t at, uint64_t *ret)
{
	int64_t ts[2];

	if (!at || pread(t->mem, ts, sizeof(ts), (off_t)at) != sizeof(ts) || ts[0] < 0 ||
		ts[0] > INT32_MAX || ts[1] < 0 || ts[1] >= (int64_t)SECOND)
		return false;
	*ret = (uint64_t)ts[0] * SECOND + (uint64_t)ts[1];
	return true;
}

static bool rest_of(const struct tf_task *t, const struct tf_traced *x, uint64_t all, uint64_t *ret)
{
	uint64_t slept = has_slept(t, x);

	*ret = slept < all ? all - slept : 0;
	return slept;
}

/* The kernel has written what is left to another place than the request, or nowhere. */
static bool rest_of_sleep(struct tf_task *t, const struct tf_traced *x, uint64_t request,
	uint64_t rest, uint64_t *ret)
{
	uint64_t all;

	if (rest)
		return rest != request && read_time(t, rest, ret);
	return read_time(t, request, &all) && rest_of(t, x, all, ret);
}

/* Its clock, when it was stopped. */
static uint64_t its_time(const struct tf_task *t, clockid_t clock)
{
	int64_t ahead = clock == CLOCK_BOOTTIME ? t->clocks.boottime : t->clocks.monotonic;

	return tf_clock_ns(clock) - (tf_now_ns() - t->stopped_ns) + (uint64_t)ahead;
}

static bool until(struct tf_task *t, clockid_t clock, uint64_t limit, uint64_t *ret)
{
	uint64_t then, now;

	if ((clock != CLOCK_MONOTONIC && clock != CLOCK_BOOTTIME) || !read_time(t, limit, &then))
		return false;
	now = its_time(t, clock);
	*ret = then > now ? then - now : 0;
	return true;
}

static bool of_futex(struct tf_task *t, const struct tf_traced *x, const uint64_t arg[6],
	bool inside, uint64_t *ret)
{
	uint64_t all;

	switch (arg[1] & FUTEX_CMD_MASK) {
	case FUTEX_WAIT:
		return inside && read_time(t, arg[3], &all) && rest_of(t, x, all, ret);
	case FUTEX_WAIT_BITSET:
		return !(arg[1] & FUTEX_CLOCK_REALTIME) && until(t, CLOCK_MONOTONIC, arg[3], ret);
	default:
		return false;
	}
}

bool tf_task_wait_left(struct tf_task *t, const struct tf_traced *x, long nr, const uint64_t arg[6],
	bool inside, uint64_t *ret)
{
	switch (nr) {
	case SYS_nanosleep:
		return inside && rest_of_sleep(t, x, arg[0], arg[1], ret);
	case SYS_clock_nanosleep:
		if (arg[1] & TIMER_ABSTIME)
			return until(t, (clockid_t)arg[0], arg[2], ret);
		return inside && (int32_t)arg[0] >= 0 && arg[0] != CLOCK_PROCESS_CPUTIME_ID &&
		       rest_of_sleep(t, x, arg[2], arg[3], ret);
	case SYS_futex:
		return of_futex(t, x, arg, inside, ret);
#ifdef SYS_poll
	case SYS_poll:
		return inside && (int32_t)arg[2] > 0 &&
		       rest_of(t, x, (uint64_t)(uint32_t)arg[2] * 1000000, ret);
#endif
	default:
		return false;
	}
}
