/* SPDX-License-Identifier: MIT */
/* See track.h. */
#include "core/capture/track.h"
#include "core/base/cleanup.h"
#include "core/capture/pagemap.h"
#include "core/capture/task_call.h"
#include "core/capture/track_soft.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Linux 6.7; Debian 12's headers are older. */
#define UNPOPULATED    (UINT64_C(1) << 13) /* UFFD_FEATURE_WP_UNPOPULATED */
#define ASYNC          (UINT64_C(1) << 15) /* UFFD_FEATURE_WP_ASYNC */
#define USER_MODE_ONLY 1                   /* UFFD_USER_MODE_ONLY: no privilege; nothing waits */

#define REGIONS \
	512 /* the kernel's own buffer: with more, walk_end may be where that was full once */
#define NEAR 262144u              /* bytes: to look at them takes no longer than one more call */
#define PART (UINT64_C(64) << 20) /* looked at in one call: its pages cannot fault meanwhile */

static int unsupported(struct tf_err *e, const char *what, int err)
{
	return tf_fail_errno(e, TELEFORK_E_UNSUPPORTED, err, "%s", what);
}

/* --- the descriptor --- */

static int refused(struct tf_err *e, int err)
{
	return unsupported(e, "it may not use userfaultfd(2)", err);
}

static int fetch(pid_t pid, int64_t its, int *ret, struct tf_err *e)
{
	TF_CLOSE int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);

	*ret = pidfd < 0 ? -1 : (int)syscall(SYS_pidfd_getfd, pidfd, (int)its, 0);
	return *ret < 0 ? unsupported(e, "its descriptor cannot be had", errno) : 0;
}

#define OPEN_FLAGS (O_CLOEXEC | O_NONBLOCK | USER_MODE_ONLY)

/* What the kernel gives next: no thread runs that could take it. */
static uint64_t lowest_free(const struct tf_image *img)
{
	uint64_t fd = 0;

	for (uint32_t i = 0; i < img->n_fds && (uint64_t)img->fds[i].fd == fd; i++)
		fd++;
	return fd;
}

/* It is told which descriptor to close before it has it: should we die meanwhile, it does so. */
static int make_at_once(struct tf_asking *q, int *ret, struct tf_err *e)
{
	uint64_t fd = lowest_free(&q->t->capture.image);
	const struct tf_question calls[] = {
		{.nr = SYS_userfaultfd, .arg = {OPEN_FLAGS}},
		{.nr = SYS_tgkill,
			.arg = {(uint64_t)q->x->own_tid, (uint64_t)q->x->own_tid,
				(uint64_t)q->quiet}},
		{.nr = SYS_close, .arg = {fd}},
	};
	uint64_t at =
		q->result + 2 * sizeof(struct tf_batch_call) + offsetof(struct tf_batch_call, arg);
	struct tf_batch_call call[3] = {{0}};
	int event, back, rc = tf_batch_start(q, calls, 3);

	if (!rc)
		rc = tf_batch_await(q, 1, call, &event);
	if (rc)
		return rc;
	if (call[0].result < 0)
		rc = refused(e, (int)-call[0].result);
	else
		rc = fetch(q->t->pid, call[0].result, ret, e);
	if (call[0].result >= 0 && (uint64_t)call[0].result != fd &&
		pwrite(q->t->mem, &call[0].result, sizeof(fd), (off_t)at) != sizeof(fd))
		rc = tf_fail(e, TELEFORK_E_SYSTEM, "its descriptor cannot be closed");
	back = tf_batch_resume(q);
	if (!back)
		back = tf_batch_await(q, 3, call, &event);
	return rc ? rc : back;
}

static int make_singly(struct tf_asking *q, int *ret, struct tf_err *e)
{
	int64_t its, none;
	int back, rc = tf_asking_call(q, SYS_userfaultfd, (const uint64_t[6]){OPEN_FLAGS}, &its);

	if (rc)
		return rc;
	if (its < 0)
		return refused(e, (int)-its);
	rc = fetch(q->t->pid, its, ret, e);
	back = tf_asking_call(q, SYS_close, (const uint64_t[6]){(uint64_t)its}, &none);
	return rc ? rc : back;
}

/* The main thread makes the descriptor and gives it up again. */
static int make(struct tf_asking *q, int *ret, struct tf_err *e)
{
	tf_asking_turn(q, 0);
	return q->quiet ? make_at_once(q, ret, e) : make_singly(q, ret, e);
}

static int ask(struct tf_task *t, struct tf_track *k, struct tf_err *e)
{
	struct tf_asking q;
	const char *why;
	int rc, back;

	/* Nor could it give the descriptor up, should we end meanwhile. */
	k->stands = t->was_stopped;
	if (k->stands)
		return tf_fail(e, TELEFORK_E_UNSUPPORTED, "it is stopped, and writes to nothing");
	rc = tf_task_describe_threads(t);
	if (!rc)
		rc = tf_task_describe_aside(t);
	if (rc)
		return rc;
	if (!tf_task_can_ask(t, &why))
		return tf_fail(e, TELEFORK_E_UNSUPPORTED, "%s", why);
	if (t->capture.image.n_filters)
		return tf_fail(e, TELEFORK_E_UNSUPPORTED, "it has seccomp filters");
	rc = tf_asking_begin(&q, t);
	if (!rc)
		rc = make(&q, &k->uffd, e);
	back = tf_asking_end(&q);
	return rc ? rc : back;
}

static int open_uffd(struct tf_track *k, struct tf_err *e)
{
	struct tf_task t = {0};
	int rc = tf_task_stop(&t, k->pid);

	if (!rc)
		rc = ask(&t, k, e);
	if (rc && !e->code)
		tf_fail(e, t.capture.err.code ? t.capture.err.code : rc, "%s", t.capture.err.text);
	tf_task_release(&t);
	return rc;
}

static bool can_scan(int pagemap)
{
	struct tf_pm_scan arg = {.size = sizeof(arg)};

	return ioctl(pagemap, TF_PAGEMAP_SCAN, &arg) >= 0;
}

static int uffd_begin(struct tf_track *k, struct tf_err *e)
{
	struct uffdio_api api = {.api = UFFD_API, .features = ASYNC | UNPOPULATED};
	int rc;

	if (!can_scan(k->pagemap))
		return tf_fail(e, TELEFORK_E_UNSUPPORTED,
			"this kernel cannot tell what it writes to (PAGEMAP_SCAN, Linux 6.7)");
	k->region = malloc(REGIONS * sizeof(*k->region));
	if (!k->region)
		return tf_fail(e, TELEFORK_E_NOMEM, "out of memory");
	rc = open_uffd(k, e);
	if (!rc && ioctl(k->uffd, UFFDIO_API, &api))
		rc = unsupported(e, "userfaultfd(2) without UFFD_FEATURE_WP_ASYNC", errno);
	return rc;
}

/* Reasons against all ways are told. */
int tf_track_begin(struct tf_track *k, pid_t pid, unsigned ways, struct tf_err *e)
{
	struct tf_err why = {0}, soft = {0};
	char path[64];
	int rc;

	*k = (struct tf_track){.pid = pid, .uffd = -1, .clear = -1};
	snprintf(path, sizeof(path), "/proc/%d/pagemap", (int)pid);
	k->pagemap = open(path, O_RDONLY | O_CLOEXEC);
	if (k->pagemap < 0)
		return tf_fail_errno(e, TELEFORK_E_SYSTEM, errno, "%s", path);
	rc = ways & TF_TRACK_UFFD ? uffd_begin(k, &why) : TELEFORK_E_UNSUPPORTED;
	k->way = rc ? 0 : TF_TRACK_UFFD;
	if (rc == TELEFORK_E_UNSUPPORTED && !k->stands && ways & TF_TRACK_SOFT) {
		rc = tf_soft_begin(k, &soft);
		k->way = rc ? 0 : TF_TRACK_SOFT;
	}
	return rc ? tf_fail(e, rc, "%s%s%s", why.text, why.code && soft.code ? "; " : "", soft.text)
		  : 0;
}

void tf_track_end(struct tf_track *k)
{
	tf_closep(&k->uffd);
	tf_closep(&k->pagemap);
	free(k->region);
	tf_runs_done(&k->fresh);
	tf_soft_end(k);
	*k = (struct tf_track){.uffd = -1, .pagemap = -1, .clear = -1};
}

int tf_track_round(struct tf_track *k, const struct tf_runs *where, struct tf_err *e)
{
	return k->way == TF_TRACK_SOFT ? tf_soft_round(k, where, e) : 0;
}

/* --- scans --- */

/* Calls fn for each region of [start, end) that ask selects. */
static int scan(struct tf_track *k, int pagemap, const struct tf_pm_scan *ask, uint64_t start,
	uint64_t end, int (*fn)(void *ctx, const struct tf_page_region *r), void *ctx,
	struct tf_err *e)
{
	int rc = 0;

	while (start < end && !rc) {
		uint64_t part = (start / PART + 1) * PART;
		struct tf_pm_scan arg = *ask;
		int n;

		arg.size = sizeof(arg);
		arg.start = start;
		arg.end = part < end ? part : end;
		arg.vec = (uint64_t)(uintptr_t)k->region;
		arg.vec_len = REGIONS;
		n = ioctl(pagemap, TF_PAGEMAP_SCAN, &arg);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == ESRCH)
			return tf_fail(e, TELEFORK_E_SYSTEM, "the process has ended");
		if (n < 0 || arg.walk_end <= start)
			return tf_fail_errno(e, TELEFORK_E_SYSTEM, n < 0 ? errno : EIO,
				"PAGEMAP_SCAN at %llx", (unsigned long long)start);
		for (int i = 0; i < n && !rc; i++)
			rc = fn(ctx, &k->region[i]);
		start = arg.walk_end;
	}
	return rc;
}

static int take(void *ctx, const struct tf_page_region *r)
{
	return tf_runs_add(ctx, r->start, r->end);
}

/* What is ours is left as it is. */
bool tf_track_is_ours(const struct tf_track *k, uint64_t start, uint64_t end)
{
	struct uffdio_register reg = {
		.range = {start, end - start}, .mode = UFFDIO_REGISTER_MODE_WP};

	if (k->way == TF_TRACK_SOFT)
		return tf_soft_is_ours(k, start, end);
	return !ioctl(k->uffd, UFFDIO_REGISTER, &reg);
}

/* Pages may look protected that are not of those that we have: moved ones, before Linux 6.13. */
static void watch(const struct tf_track *k, const struct tf_run *r)
{
	struct uffdio_writeprotect none = {.range = {r->start, r->end - r->start}};

	if (tf_track_is_ours(k, r->start, r->end))
		ioctl(k->uffd, UFFDIO_WRITEPROTECT, &none);
}

int tf_track_add(struct tf_track *k, uint64_t start, uint64_t end, struct tf_err *e)
{
	static const struct tf_pm_scan unwatched = {.category_inverted = TF_PAGE_WATCHED,
		.category_mask = TF_PAGE_WATCHED,
		.return_mask = TF_PAGE_WATCHED};
	int rc;

	if (k->way == TF_TRACK_SOFT)
		return tf_soft_is_ours(k, start, end);
	tf_runs_clear(&k->fresh);
	rc = scan(k, k->pagemap, &unwatched, start, end, take, &k->fresh, e);
	for (size_t i = 0; i < k->fresh.n && !rc; i++)
		watch(k, &k->fresh.v[i]);
	return rc ? rc : tf_track_is_ours(k, start, end);
}

/* The kernel has a short way for this question, which takes a tenth of any other's time; but where
 * there is nothing counts as written, too. What is near each other becomes one. */
static int find_written(
	struct tf_track *k, int pagemap, uint64_t start, uint64_t end, struct tf_err *e)
{
	static const struct tf_pm_scan ask = {
		.category_mask = TF_PAGE_WRITTEN, .return_mask = TF_PAGE_WRITTEN};
	size_t n = 0;
	int rc;

	tf_runs_clear(&k->fresh);
	rc = scan(k, pagemap, &ask, start, end, take, &k->fresh, e);
	for (size_t i = 0; i < k->fresh.n; i++)
		if (n && k->fresh.v[i].start - k->fresh.v[n - 1].end <= NEAR)
			k->fresh.v[n - 1].end = k->fresh.v[i].end;
		else
			k->fresh.v[n++] = k->fresh.v[i];
	k->fresh.n = n;
	return rc;
}

int tf_track_written(
	struct tf_track *k, uint64_t start, uint64_t end, struct tf_runs *written, struct tf_err *e)
{
	static const struct tf_pm_scan ask = {.flags = TF_PM_SCAN_PROTECT,
		.category_inverted = TF_PAGE_PFNZERO,
		.category_mask = TF_PAGE_WRITTEN | TF_PAGE_PFNZERO,
		.category_anyof_mask = TF_PAGE_PRESENT | TF_PAGE_SWAPPED,
		.return_mask = TF_PAGE_WRITTEN};
	int rc;

	if (k->way == TF_TRACK_SOFT)
		return tf_soft_written(k, start, end, written);
	rc = find_written(k, k->pagemap, start, end, e);
	for (size_t i = 0; i < k->fresh.n && !rc; i++)
		rc = scan(k, k->pagemap, &ask, k->fresh.v[i].start, k->fresh.v[i].end, take,
			written, e);
	return rc;
}

struct look {
	int (*page)(void *ctx, uint64_t start, uint64_t end, bool clean);
	void *ctx;
};

static int look_at(void *ctx, const struct tf_page_region *r)
{
	const uint64_t both = TF_PAGE_WATCHED | TF_PAGE_WRITTEN;
	const struct look *l = ctx;

	return l->page(l->ctx, r->start, r->end, (r->categories & both) == TF_PAGE_WATCHED);
}

static int look_closely(struct tf_track *k, int pagemap, uint64_t start, uint64_t end,
	struct look *l, struct tf_err *e)
{
	static const struct tf_pm_scan ask = {.category_inverted = TF_PAGE_PFNZERO,
		.category_mask = TF_PAGE_PFNZERO,
		.category_anyof_mask = TF_PAGE_PRESENT | TF_PAGE_SWAPPED,
		.return_mask = TF_PAGE_WATCHED | TF_PAGE_WRITTEN};

	return scan(k, pagemap, &ask, start, end, look_at, l, e);
}

static int see_watched(void *ctx, const struct tf_page_region *r)
{
	(void)r;
	*(bool *)ctx = true;
	return 0;
}

/* A mapping is, or it is not: its first page tells. */
static int is_watched(struct tf_track *k, int pagemap, uint64_t start, bool *ret, struct tf_err *e)
{
	static const struct tf_pm_scan ask = {
		.category_mask = TF_PAGE_WATCHED, .return_mask = TF_PAGE_WATCHED};

	*ret = false;
	return scan(k, pagemap, &ask, start, start + (uint64_t)sysconf(_SC_PAGESIZE), see_watched,
		ret, e);
}

/* What is watched and was not written to was there when it was protected, and still is. */
int tf_track_look(struct tf_track *k, int pagemap, uint64_t start, uint64_t end,
	int (*page)(void *ctx, uint64_t start, uint64_t end, bool clean), void *ctx,
	struct tf_err *e)
{
	struct look l = {page, ctx};
	uint64_t at = start;
	bool watched;
	int rc;

	if (k->way == TF_TRACK_SOFT)
		return tf_soft_look(k, pagemap, start, end, page, ctx, e);
	rc = is_watched(k, pagemap, start, &watched, e);
	if (rc || !watched)
		return rc ? rc : look_closely(k, pagemap, start, end, &l, e);
	rc = find_written(k, pagemap, start, end, e);
	for (size_t i = 0; i < k->fresh.n && !rc; i++) {
		const struct tf_run *r = &k->fresh.v[i];

		rc = r->start > at ? page(ctx, at, r->start, true) : 0;
		if (!rc)
			rc = look_closely(k, pagemap, r->start, r->end, &l, e);
		at = r->end;
	}
	return rc || at == end ? rc : page(ctx, at, end, true);
}
