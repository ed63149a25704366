/* SPDX-License-Identifier: MIT */
/*
 * A fork of the stopped process that nobody in it can see. Its main thread makes a child that
 * shares everything and for whose end it waits, as in vfork(2); that one gives up the descriptors,
 * forks, and ends. What it has forked (the shot) is an orphan: it has the memory, is no child of
 * the program, holds nothing open, and whoever adopts orphans reaps it.
 *
 *   main thread                  in between                      shot
 *   clone(VM | VFORK | FILES) -> stands                          .
 *   .                            close_range(UNSHARE)            .
 *   .                            clone() ----------------------> stands
 *   (goes on in clone) <-------- killed                          .
 *   wait4(__WALL)
 *
 * Both are traced from their first moment. They die with us (PTRACE_O_EXITKILL); before the one in
 * between is told so, it returns to a frame that makes it end.
 */
#include "core/capture/task_call.h"

#include <elf.h>
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define BETWEEN              (CLONE_VM | CLONE_VFORK | CLONE_FS | CLONE_FILES)
#define CLOSE_RANGE_UNSHARE_ 2 /* linux/close_range.h, Linux 5.9 */

static int fail(struct tf_asking *q, const char *what)
{
	return tf_fail_errno(&q->t->capture.err, TELEFORK_E_SYSTEM, errno, "process %d: %s",
		(int)q->t->pid, what);
}

/* Nothing has happened: it is looked at while it stands. */
static int refused(struct tf_asking *q, const char *what, int64_t result)
{
	snprintf(q->t->stands, sizeof(q->t->stands), "%s%s%s", what, result ? ": " : "",
		result ? strerror((int)-result) : "");
	return 0;
}

static int set_options(struct tf_asking *q, uintptr_t more)
{
	return ptrace(PTRACE_SETOPTIONS, q->x->tid, NULL, (void *)(PTRACE_O_TRACESYSGOOD | more))
		       ? fail(q, "ptrace options")
		       : 0;
}

/* Of whom the event tells. */
static int child_of(struct tf_asking *q, pid_t *ret)
{
	unsigned long child = 0;

	if (ptrace(PTRACE_GETEVENTMSG, q->x->tid, NULL, &child))
		return fail(q, "who is its child");
	*ret = (pid_t)child;
	return 0;
}

/* A call that makes a child. *ret_child: its pid as we see it, with the caller in the event's stop;
 * or 0, and *ret is what the call returned. */
static int call_clone(struct tf_asking *q, const uint64_t arg[6], pid_t *ret_child, int64_t *ret)
{
	int event, rc = tf_asking_start(q, SYS_clone, arg);

	*ret_child = 0;
	if (!rc)
		rc = tf_asking_enter(q, false);
	if (!rc)
		rc = tf_asking_await(q, &event);
	if (rc)
		return rc;
	if (event)
		return child_of(q, ret_child);
	*ret = tf_arch_task_result(q->x->tid);
	return 0;
}

/* Who is adopted by the program itself would be seen by it after all. */
static bool adopts_orphans(const struct tf_task *t)
{
	return t->capture.image.process.flags & TF_PROCESS_SUBREAPER || t->traced->own_tid == 1;
}

static int adopts(struct tf_asking *q)
{
	return refused(q, "it adopts orphans, and would see its own fork", 0);
}

/* Call by call. */
static int fork_singly(struct tf_asking *q)
{
	static const uint64_t everything[6] = {0, ~0u, CLOSE_RANGE_UNSHARE_}, plain[6];
	int64_t result = 0;
	int rc = tf_asking_call(q, SYS_close_range, everything, &result);

	if (rc || result)
		return rc ? rc : refused(q, "close_range", result);
	rc = call_clone(q, plain, &q->t->shot.x.tid, &result);
	return rc || q->t->shot.x.tid ? rc : refused(q, "fork", result);
}

/* Both calls at once: where it may not close, or fork, it ends. */
static const struct tf_question both[] = {
	{.nr = SYS_close_range, .arg = {0, ~0u, CLOSE_RANGE_UNSHARE_}}, {.nr = SYS_clone}};

_Static_assert(sizeof(both) / sizeof(*both) == TF_ASK_SPARE / sizeof(struct tf_batch_call), "room");

/* Lays them, and the way back of the child in between, should it ever go on. */
static int prepare(struct tf_asking *b, struct tf_asking *q)
{
	static const uint64_t none[6];
	struct tf_batch_call call[2];
	int rc;

	b->result = tf_asking_spare(q);
	tf_batch_compose(b, both, 2, call);
	rc = tf_asking_lay_spare(q, call, 2, SYS_exit_group, none, &b->way);
	return rc;
}

static int fork_at_once(struct tf_asking *q)
{
	int event, rc = tf_batch_go(q, 2), aside = tf_task_describe_aside(q->t);

	if (!rc)
		rc = tf_batch_await(q, 2, NULL, &event);
	if (!rc && event == PTRACE_EVENT_CLONE)
		rc = child_of(q, &q->t->shot.x.tid);
	return rc ? rc : aside;
}

/* Of both. */
static int check_calls(struct tf_asking *q)
{
	struct tf_batch_call call[2];
	int rc = tf_batch_read(q, 2, call);

	if (rc || (!call[0].result && q->t->shot.x.tid))
		return rc;
	tf_task_shot_end(q->t);
	return call[0].result ? refused(q, "close_range", call[0].result)
			      : refused(q, "fork", call[1].result);
}

/* The child in between forks. */
static int fork_shot(struct tf_asking *q)
{
	uint64_t deadline = tf_now_ns() + TF_TASK_STOP_MS * UINT64_C(1000000);
	int rc = tf_task_wait_stop(q->t, q->x, deadline);

	rc = rc == 1 ? 0 : rc ? rc : fail(q, "its child has ended");
	if (!rc)
		rc = set_options(q, PTRACE_O_TRACECLONE | PTRACE_O_EXITKILL);
	if (rc)
		return rc;
	return q->quiet ? fork_at_once(q) : fork_singly(q);
}

static void await_end(struct tf_asking *b)
{
	int status;

	while (tf_task_wait_any(b->t, b->x, UINT64_MAX, &status) == 1)
		;
}

/* The main thread makes the child in between, of which the kernel tells the call behind whom to
 * reap. Who is nobody's child, should there be none: itself. */
static int begin_at_once(
	struct tf_asking *q, const struct tf_call_way *way, pid_t *ret_child, int64_t *ret)
{
	uint32_t n = q->n_own, all = n + TF_FORK_CALLS;
	struct tf_question calls[TF_ASK_CALLS];
	struct tf_batch_call call[TF_ASK_CALLS] = {{0}};
	int event, rc;

	memcpy(calls, q->own, n * sizeof(*calls));
	calls[n] = (struct tf_question){.nr = SYS_clone,
		.arg = {BETWEEN | CLONE_PARENT_SETTID, way->frame,
			q->result + (n + 1) * sizeof(*call) + offsetof(struct tf_batch_call, arg)}};
	calls[n + 1] =
		(struct tf_question){.nr = SYS_wait4, .arg = {(uint64_t)q->x->own_tid, 0, __WALL}};
	rc = tf_batch_start(q, calls, all);
	if (!rc)
		rc = tf_batch_await(q, all, call, &event);
	if (!rc)
		rc = tf_batch_take(q, q->own, n, call);
	q->n_own = 0;
	q->begun = all;
	*ret_child = 0;
	if (!rc && event == PTRACE_EVENT_VFORK)
		return child_of(q, ret_child);
	*ret = call[n].result;
	return rc || !event ? rc : fail(q, "has ended");
}

static int begin(struct tf_asking *q, const struct tf_call_way *way, pid_t *ret_child, int64_t *ret)
{
	if (q->quiet)
		return begin_at_once(q, way, ret_child, ret);
	return call_clone(q, (const uint64_t[6]){BETWEEN, way->sp}, ret_child, ret);
}

/* The child in between has been told to end. The main thread sets off at once: it waits for that by
 * itself. */
static int resume(struct tf_asking *q)
{
	return q->quiet ? tf_batch_resume(q) : tf_asking_resume(q);
}

/* The main thread's clone returns, with the child's number in its own pid namespace. */
static int finish(struct tf_asking *q)
{
	struct tf_batch_call call[TF_ASK_CALLS];
	int64_t child;
	int event, rc = 0;

	if (q->quiet) {
		rc = tf_batch_await(q, q->begun, call, &event);
		return rc || !event ? rc : fail(q, "has ended");
	}
	if (!rc)
		rc = tf_asking_leave(q, &child);
	if (!rc)
		q->to_reap = (uint64_t)child;
	return rc;
}

/* What has to be taken out of the shot again. */
static void note_ours(const struct tf_asking *q)
{
	struct tf_shot *s = &q->t->shot;

	s->result = q->result;
	s->stack = q->stack;
	s->size = q->stack ? q->stack_size : 0;
	s->under = q->under;
	s->room = q->room;
	s->room_size = q->room_size;
	s->code = q->code;
	s->quiet = q->quiet;
}

int tf_task_fork(struct tf_asking *q, int (*rest)(struct tf_task *t))
{
	struct tf_traced between = {.as_found = q->x->as_found, .held = true};
	struct tf_asking b = *q;
	int64_t result = 0;
	bool adopting;
	int rc, resumed;

	if (!q->t->exits.call_return || !q->t->exits.sigreturn)
		return refused(q, "its code has no signal return", 0);
	if (adopts_orphans(q->t))
		return adopts(q);
	b.x = &between;
	rc = prepare(&b, q);
	if (!rc)
		rc = set_options(q, PTRACE_O_TRACEVFORK);
	if (!rc)
		rc = begin(q, &b.way, &between.tid, &result);
	if (rc)
		return rc;
	if (!between.tid)
		return refused(q, "fork", result);
	adopting = adopts_orphans(q->t);
	if (!adopting)
		rc = fork_shot(&b);
	kill(between.tid, SIGKILL);
	resumed = resume(q);
	if (!rc && !adopting && q->quiet)
		rc = check_calls(&b);
	if (!rc && q->t->shot.x.tid)
		rc = rest(q->t);
	await_end(&b);
	if (!resumed)
		resumed = finish(q);
	note_ours(q);
	q->t->shot.x.as_found = q->x->as_found;
	q->t->shot.x.held = true;
	q->t->shot.x.way = (struct tf_call_way){.at = q->t->exits.call_return};
	rc = rc ? rc : resumed;
	return rc || !adopting ? rc : adopts(q);
}

int tf_task_shot_ready(struct tf_task *t)
{
	uint64_t deadline = tf_now_ns() + TF_TASK_STOP_MS * UINT64_C(1000000);
	int rc = tf_task_wait_stop(t, &t->shot.x, deadline);

	if (rc == 0)
		rc = tf_fail(&t->capture.err, TELEFORK_E_SYSTEM,
			"the fork of process %d has been ended by somebody", (int)t->pid);
	return rc < 0 ? rc : 0;
}

int tf_task_shot_clean(struct tf_task *t)
{
	const struct tf_shot *s = &t->shot;

	if (!s->size || pwrite(t->mem, s->under, s->size, (off_t)s->stack) == (ssize_t)s->size)
		return 0;
	return tf_fail_errno(&t->capture.err, TELEFORK_E_SYSTEM, errno,
		"memory of the fork of process %d", (int)t->pid);
}

int64_t tf_task_shot_calls(struct tf_task *t, long nr, const uint64_t arg[6])
{
	struct tf_asking q = {.t = t, .x = &t->shot.x, .way = t->shot.x.way};
	int64_t result;

	return tf_asking_call(&q, nr, arg, &result) ? -ESRCH : result;
}

int64_t tf_task_shot_call(struct tf_task *t, long nr, uint64_t arg0, uint64_t arg1, uint64_t arg2)
{
	return tf_task_shot_calls(t, nr, (const uint64_t[6]){arg0, arg1, arg2});
}

void tf_task_shot_end(struct tf_task *t)
{
	int status;

	if (!t->shot.x.tid)
		return;
	kill(t->shot.x.tid, SIGKILL);
	while (waitpid(t->shot.x.tid, &status, __WALL) < 0 && errno == EINTR)
		;
	t->shot.x.tid = 0;
}
