/* SPDX-License-Identifier: MIT */
/*
 * What the kernel keeps for a process and its threads, in a plan: limits, scheduling, timers. What
 * this receiver may not grant is out of the image by now (fit.c).
 */
#include "core/restore/build_impl.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>

#define NS UINT64_C(1000000000)

/* linux/prctl.h of Linux 6.15 */
#define PR_TIMER_CREATE_RESTORE_IDS 77

#define SIGEV_THREAD_ID_NR 4 /* glibc has the name since 2.38 only */

/* The kernel's struct sigevent; tid stands in its union. */
struct event {
	uint64_t value;
	int32_t signo, notify, tid;
	int32_t rest[11];
};

/* struct sched_attr of linux/sched/types.h, SCHED_ATTR_SIZE_VER0. */
struct sched_attr {
	uint32_t size, policy;
	uint64_t flags;
	int32_t nice;
	uint32_t priority;
	uint64_t runtime, deadline, period;
};

struct tf_step *tf_build_call(struct tf_build *b, const char *comment, long nr, uint64_t a0,
	uint64_t a1, uint64_t a2, uint64_t a3)
{
	struct tf_step *s =
		tf_plan_syscall(&b->r->plan, comment, nr, 5, a0, a1, a2, a3, UINT64_C(0));

	/* QEMU user mode knows few of these calls, and none of them completely. */
	if (b->f->flags & TF_FACT_EMULATED)
		s->expect = TF_EXPECT_ANY;
	return s;
}

bool tf_build_attrs_known(const struct tf_build *b)
{
	return b->img->process.flags & TF_PROCESS_KNOWN;
}

/* --- the process --- */

static void plan_score(struct tf_build *b, int32_t score)
{
	uint64_t opened = b->r->plan.n_steps;
	char text[16];
	int n = snprintf(text, sizeof(text), "%d", score);

	tf_build_call(b, "oom_score_adj", SYS_openat, (uint64_t)(int64_t)AT_FDCWD,
		tf_build_string(b, "/proc/self/oom_score_adj"), O_WRONLY, 0);
	tf_build_call(
		b, "oom_score_adj", SYS_write, opened, tf_build_string(b, text), (uint64_t)n, 0)
		->refs = 1;
	tf_build_call(b, "oom_score_adj", SYS_close, opened, 0, 0, 0)->refs = 1;
}

void tf_build_process_attrs(struct tf_build *b)
{
	const struct tf_process *p = &b->img->process;

	if (!tf_build_attrs_known(b))
		return;
	/* A session that had no terminal gets none; every other process stays in the receiver's. */
	if (p->flags & TF_PROCESS_LEADER && !b->r->leads)
		tf_build_call(b, "session", SYS_setsid, 0, 0, 0, 0);
	if (p->flags & TF_PROCESS_ASKED)
		tf_build_call(b, "child subreaper", SYS_prctl, PR_SET_CHILD_SUBREAPER,
			!!(p->flags & TF_PROCESS_SUBREAPER), 0, 0);
	tf_build_call(b, "transparent huge pages", SYS_prctl, PR_SET_THP_DISABLE,
		!!(p->flags & TF_PROCESS_NO_THP), 0, 0);
	if (p->oom_score_adj != b->f->oom_score_adj)
		plan_score(b, p->oom_score_adj);
}

void tf_build_limits(struct tf_build *b)
{
	const uint64_t *l = b->img->process.limits;

	for (uint64_t i = 0; tf_build_attrs_known(b) && i < TF_LIMITS; i++)
		tf_build_call(b, "limit", SYS_prlimit64, 0, i,
			tf_build_data(b, &l[2 * i], 16, 8, NULL), 0);
}

bool tf_build_ends_as_less(const struct tf_build *b)
{
	return b->new_rights || b->img->process.dumpable != 1;
}

void tf_build_dumpable(struct tf_build *b)
{
	const struct tf_process *p = &b->img->process;

	/* 2 is for the kernel to give: as little may be read of it with 0. */
	if (p->flags & TF_PROCESS_ASKED)
		tf_build_call(b, "dumpable", SYS_prctl, PR_SET_DUMPABLE, p->dumpable == 1, 0, 0);
}

/* --- threads --- */

void tf_build_thread_attrs(struct tf_build *b, uint32_t i)
{
	const struct tf_attributes *a = &b->img->attributes[i];
	struct sched_attr s;

	if (i >= b->img->n_attributes)
		return;
	s = (struct sched_attr){sizeof(s), a->policy, a->sched_flags, a->nice, a->priority,
		a->runtime, a->deadline, a->period};
	tf_build_call(b, "processors", SYS_sched_setaffinity, 0, sizeof(a->cpus),
		tf_build_data(b, a->cpus, sizeof(a->cpus), 8, NULL), 0);
	/* Some policies do not ask for it, and keep what there is. */
	tf_build_call(b, "nice", SYS_setpriority, PRIO_PROCESS, 0, (uint64_t)(int64_t)a->nice, 0);
	tf_build_call(b, "scheduling", SYS_sched_setattr, 0,
		tf_build_data(b, &s, sizeof(s), 8, NULL), 0, 0);
	tf_build_call(b, "I/O priority", SYS_ioprio_set, 1, 0, a->ioprio, 0);
	tf_build_call(b, "personality", SYS_personality, a->personality, 0, 0, 0);
	if (a->flags & TF_ATTR_SLACK)
		tf_build_call(b, "timer slack", SYS_prctl, PR_SET_TIMERSLACK, a->slack, 0, 0);
	if (a->flags & TF_ATTR_NO_NEW)
		tf_build_call(b, "no_new_privs", SYS_prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0);
	if (i && a->flags & TF_ATTR_ASKED)
		tf_build_call(b, "signal for the parent's end", SYS_prctl, PR_SET_PDEATHSIG,
			a->pdeathsig, 0, 0);
}

/* --- timers --- */

/* The step whose result is the id of the thread that had this one. */
static int thread_step(struct tf_build *b, int32_t tid, uint64_t *ret)
{
	for (uint32_t i = 0; i < b->img->n_threads; i++) {
		if (b->img->threads[i].tid != tid)
			continue;
		*ret = b->r->first_thread + i - 1;
		if (!i) {
			tf_plan_syscall(&b->r->plan, "thread", SYS_gettid, 0);
			*ret = tf_plan_last(&b->r->plan);
		}
		return 0;
	}
	return tf_fail(
		b->e, TELEFORK_E_IMAGE, "a timer tells thread %d, which is not there", (int)tid);
}

/* Kernels before 6.15 number a process's timers one after the other. */
static void plan_fillers(struct tf_build *b, int32_t from, int32_t to)
{
	const struct event none = {.notify = SIGEV_NONE};
	uint64_t event = tf_build_data(b, &none, sizeof(none), 8, NULL);
	uint64_t id = tf_build_data(b, NULL, 8, 8, NULL);

	for (; from < to && !b->r->plan.full; from++) { /* an image may say anything */
		tf_build_call(b, "on the way to a timer's id", SYS_timer_create, CLOCK_MONOTONIC,
			event, id, 0);
		tf_build_call(
			b, "on the way to a timer's id", SYS_timer_delete, (uint64_t)from, 0, 0, 0);
	}
}

static int plan_timer(struct tf_build *b, const struct tf_timer *t)
{
	struct event event = {.value = t->value,
		.signo = (int32_t)t->signo,
		.notify = t->notify == TF_TIMER_NONE ? SIGEV_NONE
			  : t->tid                   ? SIGEV_THREAD_ID_NR
						     : SIGEV_SIGNAL};
	uint64_t at = tf_build_data(b, &event, sizeof(event), 8, NULL), step = 0;
	struct tf_step *s;
	int rc = 0;

	if (event.notify == SIGEV_THREAD_ID_NR) {
		rc = thread_step(b, t->tid, &step);
		if (rc)
			return rc;
		tf_build_store(b, "thread of a timer", at + offsetof(struct event, tid), step, 4);
		b->r->plan.steps[tf_plan_last(&b->r->plan)].refs = 1u << 1;
	}
	tf_build_call(b, "timer", SYS_timer_create, (uint64_t)t->clock, at,
		tf_build_data(b, &t->id, sizeof(t->id), 8, NULL), 0);
	s = tf_build_call(b, "timer has its id", SYS_timer_getoverrun, (uint64_t)t->id, 0, 0, 0);
	s->expect = TF_EXPECT_VALUE;
	return rc;
}

int tf_build_timers(struct tf_build *b)
{
	const struct tf_image *img = b->img;
	bool by_id = b->f->flags & TF_FACT_TIMER_IDS;
	int32_t next = 0;
	int rc = 0;

	if (img->n_timers && by_id)
		tf_build_call(b, "timers get the ids that they had", SYS_prctl,
			PR_TIMER_CREATE_RESTORE_IDS, 1, 0, 0);
	for (uint32_t i = 0; i < img->n_timers && !rc; i++) {
		if (!by_id)
			plan_fillers(b, next, img->timers[i].id);
		next = img->timers[i].id + 1;
		rc = plan_timer(b, &img->timers[i]);
	}
	if (img->n_timers && by_id)
		tf_build_call(b, "timers get the ids that they had", SYS_prctl,
			PR_TIMER_CREATE_RESTORE_IDS, 0, 0, 0);
	return rc;
}

/* Never 0, which disarms, for time that is left. */
static struct timeval to_timeval(uint64_t ns)
{
	uint64_t us = (ns + 999) / 1000;

	return (struct timeval){
		.tv_sec = (time_t)(us / 1000000), .tv_usec = (suseconds_t)(us % 1000000)};
}

static struct timespec to_timespec(uint64_t ns)
{
	return (struct timespec){.tv_sec = (time_t)(ns / NS), .tv_nsec = (long)(ns % NS)};
}

static bool waits(const struct tf_image *img, uint32_t signo)
{
	for (uint32_t i = 0; i < img->n_pending; i++)
		if (img->pending[i].signo == signo && !img->pending[i].tid)
			return true;
	return false;
}

/* A real one that has expired is armed again when its signal is taken, and has no time left until
 * then: the signal waits, or came after what waits was seen. */
static uint64_t time_left(const struct tf_image *img, uint64_t itimer)
{
	uint64_t left = img->process.itimers[2 * itimer],
		 interval = img->process.itimers[2 * itimer + 1];

	if (left || !interval)
		return left;
	return itimer == ITIMER_REAL && waits(img, SIGALRM) ? interval : 1;
}

void tf_build_arm(struct tf_build *b)
{
	for (uint64_t i = 0; i < TF_ITIMERS; i++) {
		uint64_t left = time_left(b->img, i);
		struct itimerval v = {
			to_timeval(b->img->process.itimers[2 * i + 1]), to_timeval(left)};

		if (left)
			tf_build_call(b, "interval timer", SYS_setitimer, i,
				tf_build_data(b, &v, sizeof(v), 8, NULL), 0, 0);
	}
	for (uint32_t i = 0; i < b->img->n_timers; i++) {
		const struct tf_timer *t = &b->img->timers[i];
		struct itimerspec v = {to_timespec(t->interval), to_timespec(t->left)};

		if (t->left)
			tf_build_call(b, "timer runs", SYS_timer_settime, (uint64_t)t->id, 0,
				tf_build_data(b, &v, sizeof(v), 8, NULL), 0);
	}
}

uint64_t tf_build_attrs_steps(const struct tf_image *img, uint64_t *data)
{
	uint64_t last = img->n_timers ? (uint64_t)img->timers[img->n_timers - 1].id : 0;

	*data += img->n_threads * UINT64_C(256) + img->n_timers * UINT64_C(160) + 1024;
	return 32 + 9ull * img->n_threads + 7ull * img->n_timers + 2 * (last < 4096 ? last : 0);
}
