/* SPDX-License-Identifier: MIT */
/*
 * What the kernel keeps for a stopped process and its threads, and any of them would hand on to a
 * child: limits, scheduling, credentials; and timers. Nearly all of it is read from outside; what
 * only the process can ask is asked through calls that it makes for us (task_ask.c), few for each
 * thread.
 */
#include "core/capture/task_call.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include "core/base/cleanup.h"
#include "core/base/host.h"
#include "core/base/maps.h"
#include "core/capture/rights.h"

#define NS UINT64_C(1000000000)

#define IOPRIO_WHO_PROCESS 1 /* linux/ioprio.h */

/* struct sched_attr of linux/sched/types.h, SCHED_ATTR_SIZE_VER0. */
struct sched_attr {
	uint32_t size, policy;
	uint64_t flags;
	int32_t nice;
	uint32_t priority;
	uint64_t runtime, deadline, period;
};

/* --- the process --- */

static uint32_t count_cpus(void)
{
	long n = sysconf(_SC_NPROCESSORS_CONF);

	return n > 0 ? (uint32_t)n : 1;
}

/* Fields 6 and 7 of /proc/PID/stat. */
static bool leads_session(const char *stat, pid_t pid)
{
	const char *p = strrchr(stat, ')');
	int ppid, group, session, tty;

	return p && sscanf(p + 1, " %*c %d %d %d %d", &ppid, &group, &session, &tty) == 4 &&
	       session == pid && !tty;
}

/* prlimit(2) would ask for CAP_SYS_RESOURCE. /proc/PID/limits has a line for each, in the order of
 * their numbers: a name of up to 25 characters, soft and hard limit. */
static int read_limits(struct tf_task *t, uint64_t limits[2 * TF_LIMITS])
{
	char *p;
	size_t size;
	int rc = tf_task_read_text(t, "limits", &p, &size);

	for (int i = 0; i < TF_LIMITS && !rc; i++) {
		char soft[24], hard[24];

		p = strchr(p, '\n');
		if (!p++ || strcspn(p, "\n") < 26 || sscanf(p + 26, "%23s %23s", soft, hard) != 2)
			return tf_fail(
				&t->capture.err, TELEFORK_E_SYSTEM, "/proc/%d/limits", (int)t->pid);
		/* "unlimited" */
		limits[2 * i] = *soft == 'u' ? UINT64_MAX : strtoull(soft, NULL, 10);
		limits[2 * i + 1] = *hard == 'u' ? UINT64_MAX : strtoull(hard, NULL, 10);
	}
	return rc;
}

int tf_task_process(struct tf_task *t)
{
	struct tf_process *p = &t->capture.image.process;
	char *stat, *score;
	size_t size;
	int rc = tf_task_read_text(t, "stat", &stat, &size);

	if (!rc)
		rc = tf_task_read_text(t, "oom_score_adj", &score, &size);
	if (rc)
		return rc;
	if (!(p->flags & TF_PROCESS_ASKED))
		p->dumpable = 1;
	p->flags |= TF_PROCESS_KNOWN;
	p->oom_score_adj = (int32_t)strtol(score, NULL, 10);
	p->n_cpus = count_cpus();
	p->boot = t->boot;
	if (strstr(t->status, "\nTHP_enabled:\t0"))
		p->flags |= TF_PROCESS_NO_THP;
	if (leads_session(stat, t->pid))
		p->flags |= TF_PROCESS_LEADER;
	return read_limits(t, p->limits);
}

/* --- threads --- */

/* Of each thread for now: image.rights[] has one for each, and threads with the same groups as the
 * one before share them. */
static int note_rights(struct tf_task *t, uint32_t thread, struct tf_rights *r, const uint32_t *own)
{
	struct tf_image *img = &t->capture.image;
	const struct tf_rights *last = thread ? &img->rights[thread - 1] : NULL;
	uint32_t *all;

	img->attributes[thread].rights = thread;
	r->group = img->n_groups;
	if (last && last->n_groups == r->n_groups &&
		!memcmp(img->groups + last->group, own, r->n_groups * sizeof(*own))) {
		r->group = last->group;
		img->rights[thread] = *r;
		return 0;
	}
	img->rights[thread] = *r;
	if (r->n_groups > TF_MAX_GROUPS - img->n_groups)
		return tf_fail(&t->capture.err, TELEFORK_E_LIMIT, "too many groups");
	all = tf_arena_array(&t->capture.arena, img->n_groups + r->n_groups + 1, sizeof(*all));
	if (!all)
		return TELEFORK_E_NOMEM;
	if (img->n_groups)
		memcpy(all, img->groups, img->n_groups * sizeof(*all));
	memcpy(all + img->n_groups, own, r->n_groups * sizeof(*all));
	img->groups = all;
	img->n_groups += r->n_groups;
	return 0;
}

/* securebits were asked. */
static int read_rights(struct tf_task *t, uint32_t thread)
{
	struct tf_image *img = &t->capture.image;
	const char *text = t->traced[thread].status;
	struct tf_rights r;
	uint32_t *groups;

	if (tf_rights_parse(text, &r, &groups, &t->capture.arena))
		return tf_fail(&t->capture.err, TELEFORK_E_SYSTEM, "/proc/%d/task/%d/status",
			(int)t->pid, (int)t->traced[thread].tid);
	if (strstr(text, "\nNoNewPrivs:\t1"))
		img->attributes[thread].flags |= TF_ATTR_NO_NEW;
	r.securebits = img->rights[thread].securebits;
	return note_rights(t, thread, &r, groups);
}

static bool same_rights(const struct tf_rights *a, const struct tf_rights *b, const uint32_t *of_a,
	const uint32_t *of_b)
{
	return !memcmp(a->uid, b->uid, sizeof(a->uid)) && !memcmp(a->gid, b->gid, sizeof(a->gid)) &&
	       !memcmp(a->caps, b->caps, sizeof(a->caps)) && a->securebits == b->securebits &&
	       a->n_groups == b->n_groups &&
	       !memcmp(of_a + a->group, of_b + b->group, a->n_groups * sizeof(*of_a));
}

static int merge_rights(struct tf_task *t)
{
	struct tf_image *img = &t->capture.image;
	uint32_t *groups =
		tf_arena_array(&t->capture.arena, (size_t)img->n_groups + 1, sizeof(*groups));
	uint32_t n = 0, n_groups = 0;

	if (!groups)
		return TELEFORK_E_NOMEM;
	for (uint32_t i = 0; i < img->n_attributes; i++) {
		struct tf_rights r = img->rights[i];
		uint32_t k = n;

		/* Threads have few different ones, and most the last. */
		while (k && !same_rights(&img->rights[k - 1], &r, groups, img->groups))
			k--;
		if (!k) {
			if (r.n_groups > img->n_groups - n_groups)
				return tf_fail(&t->capture.err, TELEFORK_E_LIMIT,
					"too many different credentials");
			memcpy(groups + n_groups, img->groups + r.group,
				r.n_groups * sizeof(*groups));
			r.group = n_groups;
			n_groups += r.n_groups;
			img->rights[n++] = r;
			k = n;
		}
		img->attributes[i].rights = k - 1;
	}
	img->groups = groups;
	img->n_groups = n_groups;
	img->n_rights = n;
	return 0;
}

static int read_scheduling(struct tf_task *t, uint32_t thread)
{
	struct tf_attributes *at = &t->capture.image.attributes[thread];
	pid_t tid = t->traced[thread].tid;
	struct sched_attr s = {0};

	if (syscall(SYS_sched_getattr, tid, &s, sizeof(s), 0))
		return tf_fail_errno(&t->capture.err, TELEFORK_E_SYSTEM, errno,
			"scheduling of thread %d", (int)tid);
	at->policy = s.policy;
	at->priority = s.priority;
	at->nice = 20 - (int32_t)syscall(SYS_getpriority, PRIO_PROCESS, tid);
	at->sched_flags = (uint32_t)s.flags & 7; /* without utilisation clamps */
	if (s.policy == SCHED_DEADLINE) {
		at->runtime = s.runtime;
		at->deadline = s.deadline;
		at->period = s.period;
	}
	if (syscall(SYS_sched_getaffinity, tid, sizeof(at->cpus), at->cpus) < 0)
		memset(at->cpus, 0, sizeof(at->cpus));
	at->ioprio = (uint32_t)syscall(SYS_ioprio_get, IOPRIO_WHO_PROCESS, tid);
	return 0;
}

int tf_task_rights(struct tf_task *t)
{
	int rc = 0;

	for (uint32_t i = 0; i < t->n_traced && !rc; i++)
		rc = read_rights(t, i);
	return rc ? rc : merge_rights(t);
}

int tf_task_scheduling(struct tf_task *t)
{
	int rc = 0;

	for (uint32_t i = 0; i < t->n_traced && !rc; i++)
		rc = read_scheduling(t, i);
	return rc;
}

/* --- POSIX timers --- */

bool tf_task_timer_travels(int clock)
{
	return clock >= 0 && clock != CLOCK_THREAD_CPUTIME_ID;
}

/* One record of /proc/PID/timers:
 * "ID: 3\nsignal: 34/00007f..\nnotify: signal/tid.815\nClockID: 1\n" */
static int parse_timer(struct tf_task *t, const char *text, struct tf_timer *x)
{
	char notify[16], who[8];
	int tid;

	if (sscanf(text, "ID: %d\nsignal: %u/%lx\nnotify: %15[^/]/%7[^.].%d\nClockID: %d", &x->id,
		    &x->signo, &x->value, notify, who, &tid, &x->clock) != 7)
		return tf_fail(&t->capture.err, TELEFORK_E_SYSTEM, "/proc/%d/timers", (int)t->pid);
	x->notify = strcmp(notify, "none") != 0 ? TF_TIMER_SIGNAL : TF_TIMER_NONE;
	x->tid = strcmp(who, "tid") != 0 ? 0 : tid;
	return 0;
}

static int compare_timers(const void *a, const void *b)
{
	const struct tf_timer *x = a, *y = b;

	return x->id < y->id ? -1 : x->id > y->id;
}

static int describe_timers(struct tf_task *t)
{
	struct tf_image *img = &t->capture.image;
	uint32_t n = 0;
	char *text;
	size_t size;
	int rc = 0;

	if (t->timers < 0 || tf_proc_read_from(&t->capture.arena, t->timers, "timers", &text, &size,
				     &t->capture.err))
		return 0; /* a kernel without CONFIG_CHECKPOINT_RESTORE */
	for (const char *p = text; (p = strstr(p, "ID: ")); p = strchrnul(p, '\n'))
		n += p == text || p[-1] == '\n';
	if (n > TF_MAX_TIMERS)
		return tf_fail(&t->capture.err, TELEFORK_E_LIMIT, "%u timers are too many", n);
	img->timers = tf_arena_array(&t->capture.arena, n + 1, sizeof(*img->timers));
	if (!img->timers)
		return TELEFORK_E_NOMEM;
	for (const char *p = text; !rc && (p = strstr(p, "ID: ")); p = strchrnul(p, '\n'))
		if (p == text || p[-1] == '\n') {
			rc = parse_timer(t, p, &img->timers[img->n_timers]);
			img->n_timers +=
				!rc && tf_task_timer_travels(img->timers[img->n_timers].clock);
		}
	qsort(img->timers, img->n_timers, sizeof(*img->timers), compare_timers);
	return rc;
}

int tf_task_attributes(struct tf_task *t)
{
	struct tf_image *img = &t->capture.image;
	int rc = 0;

	img->attributes = tf_arena_array(&t->capture.arena, t->n_traced, sizeof(*img->attributes));
	img->rights = tf_arena_array(&t->capture.arena, t->n_traced, sizeof(*img->rights));
	if (!img->attributes || !img->rights)
		return TELEFORK_E_NOMEM;
	img->n_attributes = t->n_traced;
	for (uint32_t i = 0; i < t->n_traced && !rc; i++) {
		img->attributes[i].chain = TF_NO_CHAIN;
		if (t->traced[i].filtered)
			rc = tf_task_filters(t, t->traced[i].tid, &img->attributes[i]);
	}
	return rc ? rc : describe_timers(t);
}

void tf_task_unasked(struct tf_task *t)
{
	for (uint32_t i = 0; i < t->n_traced; i++) {
		struct tf_attributes *at = &t->capture.image.attributes[i];
		pid_t tid = t->traced[i].tid;
		char text[64], path[TF_TASK_PATH];

		tf_task_thread_text(t, tid, "personality", text, sizeof(text));
		if (*text)
			at->personality = (uint32_t)strtoul(text, NULL, 16);
		snprintf(path, sizeof(path), "/proc/%d/timerslack_ns", (int)tid);
		if (!tf_proc_peek(path, text, sizeof(text)) && *text) { /* needs CAP_SYS_NICE */
			at->slack = strtoull(text, NULL, 10);
			at->flags |= TF_ATTR_SLACK;
		}
	}
}

/* --- what the process itself is asked: no fork of it has its timers --- */

static uint64_t timeval_ns(const struct timeval *tv)
{
	return (uint64_t)tv->tv_sec * NS + (uint64_t)tv->tv_usec * 1000;
}

static uint64_t timespec_ns(const struct timespec *ts)
{
	return (uint64_t)ts->tv_sec * NS + (uint64_t)ts->tv_nsec;
}

static int take_dumpable(
	struct tf_asking *q, const struct tf_question *question, int64_t result, const void *bytes)
{
	struct tf_process *p = &q->t->capture.image.process;

	(void)question;
	(void)bytes;
	p->dumpable = (uint32_t)result;
	p->flags |= TF_PROCESS_ASKED;
	return 0;
}

static int take_reaper(
	struct tf_asking *q, const struct tf_question *question, int64_t result, const void *bytes)
{
	int32_t reaper;

	(void)question;
	memcpy(&reaper, bytes, sizeof(reaper));
	if (!result && reaper)
		q->t->capture.image.process.flags |= TF_PROCESS_SUBREAPER;
	return 0;
}

static int take_itimer(
	struct tf_asking *q, const struct tf_question *question, int64_t result, const void *bytes)
{
	uint64_t *to = question->to;
	struct itimerval v;

	(void)q;
	memcpy(&v, bytes, sizeof(v));
	if (!result) {
		to[0] = timeval_ns(&v.it_value);
		to[1] = timeval_ns(&v.it_interval);
	}
	return 0;
}

static int take_timer(
	struct tf_asking *q, const struct tf_question *question, int64_t result, const void *bytes)
{
	struct tf_timer *x = question->to;
	struct itimerspec v;

	(void)q;
	memcpy(&v, bytes, sizeof(v));
	if (!result) {
		x->left = timespec_ns(&v.it_value);
		x->interval = timespec_ns(&v.it_interval);
	}
	return 0;
}

uint32_t tf_task_own_questions(struct tf_task *t, struct tf_question *ret)
{
	static const struct tf_question own[] = {
		{SYS_prctl, {PR_GET_DUMPABLE}, 0, take_dumpable, NULL},
		{SYS_prctl, {PR_GET_CHILD_SUBREAPER}, 1, take_reaper, NULL},
	};
	struct tf_image *img = &t->capture.image;
	uint32_t n = sizeof(own) / sizeof(*own);

	if (!ret)
		return n + TF_ITIMERS + img->n_timers;
	memcpy(ret, own, sizeof(own));
	for (uint64_t i = 0; i < TF_ITIMERS; i++)
		ret[n++] = (struct tf_question){
			SYS_getitimer, {i}, 1, take_itimer, &img->process.itimers[2 * i]};
	for (uint32_t i = 0; i < img->n_timers; i++)
		ret[n++] = (struct tf_question){SYS_timer_gettime, {(uint64_t)img->timers[i].id}, 1,
			take_timer, &img->timers[i]};
	return n;
}
