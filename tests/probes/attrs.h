/* SPDX-License-Identifier: MIT */
/* The parts of the attrs probe: what a thread can see of itself, credentials and filters, timers.
 */
#ifndef TESTS_PROBES_ATTRS_H
#define TESTS_PROBES_ATTRS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <time.h>

#define ATTRS_SEEN 128

/* struct sched_attr of linux/sched/types.h. */
struct attrs_sched {
	uint32_t size, policy;
	uint64_t flags;
	int32_t nice;
	uint32_t priority;
	uint64_t runtime, deadline, period;
};

/* What a thread sees of itself, by name. */
struct attrs_seen {
	unsigned n;
	struct {
		const char *name;
		uint64_t value;
	} item[ATTRS_SEEN];
};

struct attrs_timers {
	timer_t disarmed, thread, callback;
	int none;
};

/* attrs.c: one thing that is another than it was; how many were compared; exits with a word where
 * something cannot be set up. */
void attrs_wrong(unsigned thread, const char *what, uint64_t was, uint64_t is);
void attrs_counted(unsigned n);
void attrs_need(bool good, const char *what);

/* attrs_see.c: of the calling thread; thread 0 looks at the process, too. */
void attrs_observe(struct attrs_seen *s, unsigned thread);
void attrs_compare(const struct attrs_seen *was, const struct attrs_seen *is, unsigned thread);

/* attrs_rights.c: credentials of its own for each thread (root only), and seccomp filters. */
void attrs_change_rights(unsigned thread);
void attrs_filter(unsigned thread);

/* attrs_timers.c: interval timers, and POSIX timers with gaps between their ids; tid: of the thread
 * that one of them tells. Afterwards they are still there, run, and tell whom they did. */
void attrs_timers_start(struct attrs_timers *t, pid_t tid);
void attrs_timers_check(struct attrs_timers *t);
void attrs_timers_told(const struct attrs_timers *t); /* in that thread, when the others sleep */

#endif
