/* SPDX-License-Identifier: MIT */
/* See landing.h. Stops are waited for thread by thread, so no order of events matters. */
#include "core/restore/landing.h"
#include "arch/arch.h"
#include "core/base/host.h"
#include "core/base/io.h"
#include "core/base/stop.h"
#include "core/base/wait.h"
#include "core/restore/fit.h"
#include "core/restore/tracer.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>

#define OPTIONS (PTRACE_O_EXITKILL | PTRACE_O_TRACESYSGOOD)
#ifndef PTRACE_O_SUSPEND_SECCOMP
#define PTRACE_O_SUSPEND_SECCOMP (1 << 21) /* linux/ptrace.h */
#endif
#define SYSGOOD (SIGTRAP | 0x80)

/* The kernel's own, include/linux/errno.h: what a call that was interrupted returns. */
enum { RESTARTSYS = 512, RESTART_RESTARTBLOCK = 516 };

/* A handler of the receiver's for SIGCHLD must not take the stops for itself. */
static void hold_signals(sigset_t *before)
{
	sigset_t all;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, before);
}

static int failed(const struct tf_landing *l, pid_t tid, const char *what, struct tf_err *e)
{
	return tf_fail_errno(e, TELEFORK_E_RESTORE, errno, "thread %d of the new process %d: %s",
		(int)tid, (int)l->tids[0], what);
}

/* --- begin --- */

void tf_landing_prepare(int control)
{
	struct timeval ages = {.tv_sec = 1000000000};

	setsockopt(control, SOL_SOCKET, SO_RCVTIMEO, &ages, sizeof(ages));
}

/* The restorer has noted the ids of the threads that it started as its steps' results. */
static int read_tids(struct tf_landing *l, struct tf_err *e)
{
	const struct tf_restore *r = l->restore;

	for (uint32_t i = 1; i < l->image->n_threads; i++) {
		uint64_t at = r->steps_at + (r->first_thread + i - 1) * sizeof(struct tf_step) +
			      offsetof(struct tf_step, result);
		long tid;

		errno = 0;
		tid = ptrace(PTRACE_PEEKDATA, l->tids[0], (void *)at, NULL);
		if (errno)
			return failed(l, l->tids[0], "its threads' ids", e);
		l->tids[i] = (pid_t)tid;
	}
	return 0;
}

/* The read that it stands in may not go on: that would be two stops more. */
static int note_traced(struct tf_landing *l, struct tf_err *e)
{
	uint64_t at = l->restore->hole.start + offsetof(struct tf_plan_header, traced);

	return ptrace(PTRACE_POKEDATA, l->tids[0], (void *)at, (void *)1)
		       ? failed(l, l->tids[0], "a word to it", e)
		       : 0;
}

static int set_registers(struct tf_landing *l, struct tf_err *e)
{
	const struct tf_plan *p = &l->restore->plan;
	int rc = 0;

	for (uint64_t i = 0; i < p->n_steps && !rc; i++)
		if (p->steps[i].op == TF_OP_TRACER)
			rc = tf_tracer_set(l->tids[p->steps[i].arg[2]], &p->steps[i],
				&l->image->threads[p->steps[i].arg[2]], e);
	return rc;
}

/* Its filters are not for the restorer's calls. */
static unsigned long options(const struct tf_image *img)
{
	return OPTIONS | (img->n_filters ? PTRACE_O_SUSPEND_SECCOMP : 0);
}

static int begin(struct tf_landing *l, struct tf_err *e)
{
	unsigned long how = options(l->image);
	int rc = tf_tracer_seize(l->tids[0], how, l->awake, e);

	if (rc)
		return rc;
	l->n = 1;
	rc = note_traced(l, e);
	if (!rc)
		rc = read_tids(l, e);
	for (uint32_t i = 1; i < l->image->n_threads && !rc; i++) {
		rc = tf_tracer_seize(l->tids[i], how, l->awake, e);
		l->n += !rc;
	}
	return rc ? rc : set_registers(l, e);
}

int tf_landing_begin(struct tf_landing *l, pid_t child, const struct tf_restore *restore,
	const struct tf_image *image, struct tf_arena *a, struct tf_err *e)
{
	sigset_t before;
	int rc;

	*l = (struct tf_landing){
		.restore = restore, .image = image, .awake = tf_host_processors() > 1};
	l->tids = tf_arena_array(a, image->n_threads, sizeof(*l->tids));
	if (!l->tids)
		return tf_fail(e, TELEFORK_E_NOMEM, "out of memory for threads");
	l->tids[0] = child;
	hold_signals(&before);
	rc = begin(l, e);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return rc;
}

/* --- arrive --- */

/* Runs the thread on to its next stop. */
static int to_stop(struct tf_landing *l, pid_t tid, long how, int *ret_status, struct tf_err *e)
{
	if (ptrace((enum __ptrace_request)how, tid, NULL, NULL))
		return failed(l, tid, "ptrace", e);
	if (tf_tracer_await(tid, l->awake, ret_status) != tid || !WIFSTOPPED(*ret_status))
		return tf_fail(e, TELEFORK_E_RESTORE,
			"thread %d of the new process ended before it could run", (int)tid);
	return 0;
}

/* To the next one at a system call. */
static int to_syscall_stop(struct tf_landing *l, pid_t tid, struct tf_err *e)
{
	for (;;) {
		int status, rc = to_stop(l, tid, PTRACE_SYSCALL, &status, e);

		if (rc || WSTOPSIG(status) == SYSGOOD)
			return rc;
		/* All signals are blocked but the one that nobody can block. */
		if (!(status >> 16))
			l->stop = WSTOPSIG(status);
	}
}

/* Through a call that it was interrupted in, to where signals are handled, and no instruction is
 * run. */
static int to_interrupt_stop(struct tf_landing *l, pid_t tid, struct tf_err *e)
{
	for (;;) {
		int status, rc = to_stop(l, tid, PTRACE_CONT, &status, e);

		if (rc || status >> 16 == PTRACE_EVENT_STOP)
			return rc;
		l->stop = WSTOPSIG(status); /* as there */
	}
}

static int interrupt(struct tf_landing *l, pid_t tid, struct tf_err *e)
{
	return ptrace(PTRACE_INTERRUPT, tid, NULL, NULL) ? failed(l, tid, "interrupt", e) : 0;
}

/* Through the call that it is about to make, if it stands before one: an interrupt that comes in a
 * stop is taken by the next. From there on no instruction is run, and all registers are shown as
 * they are: in a stop at a system call aarch64 has a mark of its own in x7
 * (arch/arm64/kernel/ptrace.c, report_syscall()). */
static int to_where_it_shows(struct tf_landing *l, pid_t tid, struct tf_err *e)
{
	int rc = interrupt(l, tid, e);

	return rc ? rc : to_interrupt_stop(l, tid, e);
}

/* Through its rt_sigreturn: everything is as the image has it, and no instruction has been run. */
static int to_its_place(struct tf_landing *l, pid_t tid, struct tf_err *e)
{
	struct __ptrace_syscall_info info = {0};

	do {
		int rc = to_syscall_stop(l, tid, e);

		if (rc)
			return rc;
		if (ptrace(PTRACE_GET_SYSCALL_INFO, tid, (void *)sizeof(info), &info) <= 0)
			return failed(l, tid, "PTRACE_GET_SYSCALL_INFO (Linux 5.3)", e);
	} while (info.op != PTRACE_SYSCALL_INFO_ENTRY || info.entry.nr != SYS_rt_sigreturn);
	return to_where_it_shows(l, tid, e);
}

/* Interrupted on its way into a call. *ret: what that returned. Then it can be given registers with
 * which the kernel goes on with the call. A stop takes the interrupt that comes before it. */
static int interrupted_call(struct tf_landing *l, pid_t tid, int64_t *ret, struct tf_err *e)
{
	int rc = to_syscall_stop(l, tid, e);

	if (!rc)
		rc = interrupt(l, tid, e);
	if (!rc)
		rc = to_syscall_stop(l, tid, e);
	*ret = rc ? rc : tf_arch_task_result(tid);
	if (!rc)
		rc = interrupt(l, tid, e);
	return rc ? rc : to_interrupt_stop(l, tid, e);
}

static int set_mask(struct tf_landing *l, pid_t tid, uint64_t mask, struct tf_err *e)
{
	return ptrace(PTRACE_SETSIGMASK, tid, (void *)sizeof(mask), &mask)
		       ? failed(l, tid, "its signal mask", e)
		       : 0;
}

/* --- waits --- */

/* The restorer's range has room, which nothing needs any more. */
static int lay_time(struct tf_landing *l, const struct tf_wait_call *c, pid_t tid, struct tf_err *e)
{
	uint64_t ns = c->time + (c->from_now ? tf_clock_ns(CLOCK_MONOTONIC) : 0);
	uint64_t at = l->restore->hole.start;
	const uint64_t ts[2] = {ns / 1000000000, ns % 1000000000};

	for (size_t i = 0; i < 2 && c->has_time; i++)
		if (ptrace(PTRACE_POKEDATA, tid, (void *)(at + 8 * i), (void *)ts[i]))
			return failed(l, tid, "the time it has left", e);
	return 0;
}

/* The thread makes the call that it was captured in, with the time that is left, and is interrupted
 * there: so the kernel has it to go on with, as that of the source had. Or it is over by then. */
static int wait_there(struct tf_landing *l, pid_t tid, const struct tf_call_way *way,
	const struct tf_wait_call *c, struct tf_regs *regs, struct tf_err *e)
{
	int64_t result;
	int rc = lay_time(l, c, tid, e);

	if (!rc && tf_arch_task_call(tid, regs, way, c->nr, c->arg))
		rc = failed(l, tid, "set registers", e);
	if (!rc)
		rc = interrupted_call(l, tid, &result, e);
	if (rc)
		return rc;
	if (result == -RESTART_RESTARTBLOCK)
		tf_arch_task_go_on(regs);
	else if (result < -RESTART_RESTARTBLOCK || result > -RESTARTSYS)
		tf_arch_task_give_up(regs, (int)-result);
	return tf_arch_task_put(tid, regs) ? failed(l, tid, "put registers back", e) : 0;
}

static int wait_again(struct tf_landing *l, const struct tf_wait *w, const struct tf_call_way *way,
	const struct tf_cpu *cpu, struct tf_arena *a, struct tf_err *e)
{
	const struct tf_thread *thread = &l->image->threads[w->thread];
	pid_t tid = l->tids[w->thread];
	size_t mark = a->used;
	struct tf_cpu own = *cpu;
	struct tf_regs regs = {0};
	struct tf_wait_call c;
	uint64_t arg[6];
	int rc = tf_arch_regs_from_task(tid, &own, a, &regs, e);
	long nr = rc ? -1 : tf_arch_next_call(&regs, arg);

	if (!rc && (l->jumps || !tf_wait_is_absolute(nr, arg)) &&
		tf_wait_shorten(nr, arg, w->left, l->restore->hole.start, &c)) {
		rc = set_mask(l, tid, ~UINT64_C(0), e);
		if (!rc)
			rc = wait_there(l, tid, way, &c, &regs, e);
		if (!rc)
			rc = set_mask(l, tid, thread->sigmask, e);
	}
	tf_arena_rewind(a, mark);
	return rc;
}

/* --- the end of the range --- */

/* The restorer's own instruction makes the call that removes it: nothing is fetched from there
 * again. */
static int unmap(struct tf_landing *l, const struct tf_call_way *way, const struct tf_regs *regs,
	struct tf_err *e)
{
	const struct tf_restore *r = l->restore;
	const uint64_t arg[6] = {r->hole.start, r->park_at - r->hole.start};
	pid_t tid = l->tids[0];
	int64_t result;
	int rc;

	if (tf_arch_task_call(tid, regs, way, SYS_munmap, arg))
		return failed(l, tid, "set registers", e);
	rc = to_syscall_stop(l, tid, e);
	if (!rc)
		rc = to_where_it_shows(l, tid, e);
	if (rc)
		return rc;
	result = tf_arch_task_result(tid);
	if (tf_arch_task_put(tid, regs))
		return failed(l, tid, "put registers back", e);
	errno = (int)-result;
	return result ? failed(l, tid, "munmap of the restorer", e) : 0;
}

static int unmap_unseen(struct tf_landing *l, const struct tf_call_way *way,
	const struct tf_cpu *cpu, struct tf_arena *a, struct tf_err *e)
{
	struct tf_regs regs = {0};
	struct tf_cpu own = *cpu;
	pid_t tid = l->tids[0];
	int rc = tf_arch_regs_from_task(tid, &own, a, &regs, e);

	if (!rc)
		rc = set_mask(l, tid, ~UINT64_C(0), e);
	if (!rc)
		rc = unmap(l, way, &regs, e);
	return rc ? rc : set_mask(l, tid, l->image->threads->sigmask, e);
}

int tf_landing_arrive(struct tf_landing *l, const uint64_t code[2], const struct tf_facts *facts,
	struct tf_arena *a, struct tf_err *e)
{
	const struct tf_call_way wait = {.at = l->restore->code_at + code[0]},
				 way = {.at = l->restore->code_at + code[1]};
	const struct tf_image *img = l->image;
	sigset_t before;
	int rc = 0;

	l->jumps = tf_fit_clocks(img, facts) && !(facts->flags & TF_FACT_TIME_NS);
	hold_signals(&before);
	for (uint32_t i = 0; i < l->n && !rc; i++)
		rc = to_its_place(l, l->tids[i], e); /* the first lets the others go on */
	for (uint32_t i = 0; i < img->n_waits && !rc; i++)
		rc = wait_again(l, &img->waits[i], &wait, &facts->cpu, a, e);
	if (!rc)
		rc = unmap_unseen(l, &way, &facts->cpu, a, e);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return rc;
}

/* --- the end --- */

int tf_landing_keep(struct tf_landing *l, struct tf_err *e)
{
	if (kill(l->tids[0], SIGSTOP))
		return failed(l, l->tids[0], "hold", e);
	l->kept = true;
	for (uint32_t i = 0; i < l->n; i++)
		if (ptrace(PTRACE_SETOPTIONS, l->tids[i], NULL, (void *)PTRACE_O_TRACESYSGOOD))
			return failed(l, l->tids[i], "PTRACE_SETOPTIONS", e);
	return 0;
}

/* Takes back what holds it. Other signals wait meanwhile: one that came before would be handled on
 * a stack that may be missing still, which nobody brings before this is over. */
static int let_go(struct tf_landing *l, struct tf_err *e)
{
	pid_t tid = l->tids[0];
	uint64_t mask;
	int rc;

	if (ptrace(PTRACE_GETSIGMASK, tid, (void *)sizeof(mask), &mask))
		return failed(l, tid, "its signal mask", e);
	rc = set_mask(l, tid, ~UINT64_C(0), e);
	if (rc)
		return rc;
	tf_stop_take_back(tid);
	return set_mask(l, tid, mask, e);
}

/* The last of them has ended. The process itself is its parent's to wait for, once all of its
 * threads are. */
static void reap(struct tf_landing *l)
{
	l->n--;
	while (l->n && waitpid(l->tids[l->n], NULL, __WALL) < 0 && errno == EINTR)
		;
}

int tf_landing_go(struct tf_landing *l, struct tf_err *e)
{
	sigset_t before;
	int rc = 0;

	if (l->image->source.flags & TF_SOURCE_STOPPED)
		l->stop = SIGSTOP;
	if (l->stop)
		kill(l->tids[0], l->stop);
	if (l->kept && !l->stop) {
		hold_signals(&before);
		rc = let_go(l, e);
		pthread_sigmask(SIG_SETMASK, &before, NULL);
	}
	while (l->n && !rc) {
		pid_t tid = l->tids[l->n - 1];

		if (!ptrace(PTRACE_DETACH, tid, NULL, NULL))
			l->n--;
		else if (errno != ESRCH)
			rc = failed(l, tid, "detach", e);
		else
			reap(l); /* those that run already have ended it */
	}
	return rc;
}

void tf_landing_abandon(struct tf_landing *l)
{
	if (!l->n)
		return;
	kill(l->tids[0], SIGKILL);
	for (uint32_t i = 1; i < l->n; i++)
		while (waitpid(l->tids[i], NULL, __WALL) < 0 ? errno == EINTR : true)
			;
	l->n = 0;
}
