/* SPDX-License-Identifier: MIT */
/* See fit.h. Pure: an image and facts, no system call. */
#include "core/restore/fit.h"

#include <linux/capability.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

typedef unsigned long long ull;

#define FILLERS 4096 /* timers made and deleted on the way to an id */

struct fit {
	struct tf_image *img;
	const struct tf_facts *f;
	struct tf_err *left, *e;
	bool own;
};

bool tf_fact_may_everywhere(const struct tf_facts *f, unsigned cap)
{
	return f->rights.caps[TF_CAP_E] >> cap & 1;
}

bool tf_fact_may(const struct tf_facts *f, unsigned cap)
{
	return f->flags & TF_FACT_FIRST_USER && tf_fact_may_everywhere(f, cap);
}

#define LEFT(x, ...)   tf_fail_more((x)->left, TELEFORK_E_INCOMPATIBLE, __VA_ARGS__)
#define REASON(x, ...) tf_fail_more((x)->e, TELEFORK_E_INCOMPATIBLE, __VA_ARGS__)

/* --- the process --- */

static void fit_limits(struct fit *x)
{
	static const char *const names[TF_LIMITS] = {"cpu", "fsize", "data", "stack", "core", "rss",
		"nproc", "nofile", "memlock", "as", "locks", "sigpending", "msgqueue", "nice",
		"rtprio", "rttime"};
	uint64_t *l = x->img->process.limits;

	for (unsigned i = 0; i < TF_LIMITS; i++) {
		uint64_t most =
			tf_fact_may(x->f, CAP_SYS_RESOURCE) ? UINT64_MAX : x->f->limits[2 * i + 1];

		if (i == RLIMIT_NOFILE && most > x->f->nr_open)
			most = x->f->nr_open;
		if (l[2 * i + 1] <= most)
			continue;
		LEFT(x, "limit %s: its hard limit is %llu, here %llu is the most", names[i],
			(ull)l[2 * i + 1], (ull)most);
		l[2 * i + 1] = most;
		l[2 * i] = l[2 * i] < most ? l[2 * i] : most;
	}
}

static void fit_score(struct fit *x)
{
	struct tf_process *p = &x->img->process;

	if (p->oom_score_adj >= x->f->oom_score_adj || tf_fact_may(x->f, CAP_SYS_RESOURCE))
		return;
	LEFT(x, "oom_score_adj: it is %d, here %d is the least", p->oom_score_adj,
		x->f->oom_score_adj);
	p->oom_score_adj = x->f->oom_score_adj;
}

static void fit_timers(struct fit *x)
{
	const struct tf_image *img = x->img;
	int32_t last = img->n_timers ? img->timers[img->n_timers - 1].id : 0;

	if (img->n_timers && x->f->flags & TF_FACT_EMULATED)
		REASON(x,
			"timers: the process has %u POSIX timers, and an emulator gives them "
			"other ids: a receiver outside of QEMU user mode is needed",
			img->n_timers);
	else if (last >= FILLERS && !(x->f->flags & TF_FACT_TIMER_IDS))
		REASON(x,
			"timers: timer id %d is too far away to be had by this kernel: Linux "
			"6.15 can be asked for one",
			last);
}

bool tf_fit_clocks(const struct tf_image *img, const struct tf_facts *f)
{
	return img->process.flags & TF_PROCESS_KNOWN && strcmp(img->process.boot, f->boot) != 0;
}

static void fit_clocks(struct fit *x)
{
	int64_t ahead = (int64_t)(x->img->source.monotonic_ns - x->f->monotonic_ns);

	if (!tf_fit_clocks(x->img, x->f) || x->f->flags & TF_FACT_TIME_NS)
		return;
	LEFT(x,
		"monotonic clock: it jumps by %lld s, which only a receiver with CAP_SYS_ADMIN "
		"and Linux 5.6 can prevent: whoever sleeps until a time of it wakes %s",
		(long long)(-ahead / 1000000000), ahead > 0 ? "so much later" : "at once");
}

/* --- threads --- */

static bool is_real_time(const struct tf_attributes *a)
{
	return a->policy == SCHED_FIFO || a->policy == SCHED_RR || a->policy == SCHED_DEADLINE;
}

static void fit_scheduling(struct fit *x, struct tf_attributes *a, int32_t tid)
{
	const struct tf_facts *f = x->f;
	bool may = tf_fact_may(f, CAP_SYS_NICE);

	if (is_real_time(a) && !may &&
		(a->policy == SCHED_DEADLINE || a->priority > f->limits[2 * RLIMIT_RTPRIO])) {
		LEFT(x, "thread %d: scheduling policy %u, priority %u: CAP_SYS_NICE is needed", tid,
			a->policy, a->priority);
		a->policy = SCHED_OTHER;
		a->priority = 0;
	}
	if (a->nice < f->nice && !may && a->nice < 20 - (int64_t)f->limits[2 * RLIMIT_NICE]) {
		LEFT(x, "thread %d: nice %d: here %d is the least", tid, a->nice, f->nice);
		a->nice = f->nice;
	}
	if (a->ioprio >> 13 == 1 && !may && !tf_fact_may(f, CAP_SYS_ADMIN)) {
		LEFT(x, "thread %d: real-time I/O priority: CAP_SYS_NICE is needed", tid);
		a->ioprio = 0;
	}
}

static bool has_cpu(const uint64_t *cpus, uint32_t n)
{
	return n / 64 < TF_CPU_WORDS && cpus[n / 64] >> n % 64 & 1;
}

/* Who may run everywhere may do so here; others keep to what is there of theirs. */
static void fit_affinity(struct fit *x, struct tf_attributes *a, int32_t tid)
{
	bool everywhere = true, some = false, less = false;

	for (uint32_t n = 0; n < x->img->process.n_cpus; n++)
		everywhere &= has_cpu(a->cpus, n);
	for (unsigned i = 0; i < TF_CPU_WORDS; i++) {
		some |= (a->cpus[i] & x->f->cpus[i]) != 0;
		less |= (a->cpus[i] & ~x->f->cpus[i]) != 0;
	}
	if (!everywhere && less)
		LEFT(x, "thread %d: %s of the processors that it is held to %s here", tid,
			some ? "some" : "none", some ? "are not" : "is");
	for (unsigned i = 0; i < TF_CPU_WORDS; i++)
		a->cpus[i] = everywhere || !some ? UINT64_MAX : a->cpus[i] & x->f->cpus[i];
}

static void fit_filters(struct fit *x)
{
	if (!x->img->n_filters)
		return;
	if (!(x->f->flags & TF_FACT_PTRACE) || !(x->f->flags & TF_FACT_UNFILTERED) ||
		!tf_fact_may(x->f, CAP_SYS_ADMIN))
		REASON(x, "seccomp: the process has system call filters, and only a receiver with "
			  "CAP_SYS_ADMIN, which may trace and has none itself, sets them: run it "
			  "as root, outside of a container");
}

/* --- credentials --- */

static bool same_groups(const uint32_t *a, const uint32_t *b, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		if (a[i] != b[i])
			return false;
	return true;
}

/* Gives it the receiver's ids, or tells why it has to have its own. */
static void fit_ids(struct fit *x, struct tf_rights *r)
{
	const struct tf_rights *here = &x->f->rights;
	bool uids = !memcmp(r->uid, here->uid, sizeof(r->uid));
	bool gids = !memcmp(r->gid, here->gid, sizeof(r->gid)) && r->n_groups == here->n_groups &&
		    same_groups(x->img->groups + r->group, x->f->groups, r->n_groups);

	if ((uids || tf_fact_may_everywhere(x->f, CAP_SETUID)) &&
		(gids || tf_fact_may_everywhere(x->f, CAP_SETGID)))
		return;
	if (!x->own) {
		REASON(x,
			"credentials: the process is uid %u, gid %u with %u groups, this "
			"receiver is uid %u, gid %u with %u groups and may not become that: run "
			"it as root, or let the process run as the receiver's user (--allow "
			"credentials)",
			r->uid[1], r->gid[1], r->n_groups, here->uid[1], here->gid[1],
			here->n_groups);
		return;
	}
	LEFT(x, "credentials: uid %u and gid %u become the receiver's, %u and %u", r->uid[1],
		r->gid[1], here->uid[1], here->gid[1]);
	memcpy(r->uid, here->uid, sizeof(r->uid));
	memcpy(r->gid, here->gid, sizeof(r->gid));
	r->n_groups = TF_OWN_GROUPS;
}

static void fit_capabilities(struct fit *x, struct tf_rights *r)
{
	const struct tf_rights *here = &x->f->rights;
	bool drops = tf_fact_may_everywhere(x->f, CAP_SETPCAP);
	uint64_t lost = (r->caps[TF_CAP_P] & ~here->caps[TF_CAP_P]) |
			(r->caps[TF_CAP_B] & ~here->caps[TF_CAP_B]);

	if (lost)
		LEFT(x, "capabilities %llx: this receiver has none of them", (ull)lost);
	r->caps[TF_CAP_P] &= here->caps[TF_CAP_P];
	r->caps[TF_CAP_E] &= r->caps[TF_CAP_P];
	r->caps[TF_CAP_I] &= here->caps[TF_CAP_I] | here->caps[TF_CAP_P];
	r->caps[TF_CAP_B] &= here->caps[TF_CAP_B];
	r->caps[TF_CAP_A] &= r->caps[TF_CAP_P] & r->caps[TF_CAP_I];
	if (!drops && r->caps[TF_CAP_B] != here->caps[TF_CAP_B]) {
		LEFT(x, "capability bounding set: it stays the receiver's, without CAP_SETPCAP");
		r->caps[TF_CAP_B] = here->caps[TF_CAP_B];
	}
	if (!drops && r->securebits != here->securebits) {
		LEFT(x, "securebits %x: they stay the receiver's, without CAP_SETPCAP",
			r->securebits);
		r->securebits = here->securebits;
	}
}

int tf_fit(struct tf_image *img, const struct tf_facts *f, bool own, struct tf_err *left,
	struct tf_err *e)
{
	struct fit x = {img, f, left, e, own};
	int before = e->code;
	bool may_gain = false;

	if (!(img->process.flags & TF_PROCESS_KNOWN))
		return 0;
	if (img->source.exe[0] && !(f->flags & (TF_FACT_EXE | TF_FACT_EXE_SAME)))
		LEFT(&x,
			"program: /proc/PID/exe does not lead to %s: it is not here, or that takes "
			"CAP_CHECKPOINT_RESTORE",
			img->source.exe);
	fit_limits(&x);
	fit_score(&x);
	fit_timers(&x);
	fit_clocks(&x);
	fit_filters(&x);
	for (uint32_t i = 0; i < img->n_attributes; i++) {
		fit_scheduling(&x, &img->attributes[i], img->threads[i].tid);
		fit_affinity(&x, &img->attributes[i], img->threads[i].tid);
		may_gain |= !(img->attributes[i].flags & TF_ATTR_NO_NEW);
	}
	if (may_gain && f->flags & TF_FACT_NO_NEW)
		LEFT(&x, "no_new_privs: it is set here, and stays so");
	for (uint32_t i = 0; i < img->n_rights; i++) {
		fit_ids(&x, &img->rights[i]);
		fit_capabilities(&x, &img->rights[i]);
	}
	return e->code != before ? e->code : 0;
}
