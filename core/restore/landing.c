/* SPDX-License-Identifier: MIT */
/* See landing.h. Stops are waited for thread by thread, so no order of events matters. */
#include "core/restore/landing.h"
#include "arch/arch.h"
#include "core/base/stop.h"
#include "core/restore/tracer.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#define OPTIONS (PTRACE_O_EXITKILL | PTRACE_O_TRACESYSGOOD)
#ifndef PTRACE_O_SUSPEND_SECCOMP
#define PTRACE_O_SUSPEND_SECCOMP (1 << 21) /* linux/ptrace.h */
#endif
#define SYSGOOD (SIGTRAP | 0x80)

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
	int rc = tf_tracer_seize(l->tids[0], how, e);

	if (rc)
		return rc;
	l->n = 1;
	rc = read_tids(l, e);
	for (uint32_t i = 1; i < l->image->n_threads && !rc; i++) {
		rc = tf_tracer_seize(l->tids[i], how, e);
		l->n += !rc;
	}
	return rc ? rc : set_registers(l, e);
}

int tf_landing_begin(struct tf_landing *l, pid_t child, const struct tf_restore *restore,
	const struct tf_image *image, struct tf_arena *a, struct tf_err *e)
{
	sigset_t before;
	int rc;

	*l = (struct tf_landing){.restore = restore, .image = image};
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

/* Runs the thread on to its next stop at a system call. */
static int to_syscall_stop(struct tf_landing *l, pid_t tid, struct tf_err *e)
{
	for (;;) {
		int status;
		pid_t got;

		if (ptrace(PTRACE_SYSCALL, tid, NULL, NULL))
			return failed(l, tid, "ptrace", e);
		do
			got = waitpid(tid, &status, __WALL);
		while (got < 0 && errno == EINTR);
		if (got != tid || !WIFSTOPPED(status))
			return tf_fail(e, TELEFORK_E_RESTORE,
				"thread %d of the new process ended before it could run", (int)tid);
		if (WSTOPSIG(status) == SYSGOOD)
			return 0;
		/* All signals are blocked but the one that nobody can block. */
		if (!(status >> 16))
			l->stop = WSTOPSIG(status);
	}
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
	return to_syscall_stop(l, tid, e);
}

/* The restorer's own instruction makes the call that removes it: nothing is fetched from there
 * again. */
static int unmap(struct tf_landing *l, uint64_t code, const struct tf_regs *regs, struct tf_err *e)
{
	const struct tf_restore *r = l->restore;
	const uint64_t arg[6] = {r->hole.start, r->park_at - r->hole.start};
	const struct tf_call_way way = {.at = r->code_at + code};
	int64_t result = -EINTR;
	pid_t tid = l->tids[0];
	int rc;

	if (tf_arch_task_call(tid, regs, &way, SYS_munmap, arg))
		return failed(l, tid, "set registers", e);
	rc = to_syscall_stop(l, tid, e); /* on its way in */
	if (!rc)
		rc = to_syscall_stop(l, tid, e);
	if (rc)
		return rc;
	result = tf_arch_task_result(tid);
	if (tf_arch_task_put(tid, regs))
		return failed(l, tid, "put registers back", e);
	errno = (int)-result;
	return result ? failed(l, tid, "munmap of the restorer", e) : 0;
}

static int unmap_unseen(struct tf_landing *l, uint64_t code, const struct tf_cpu *cpu,
	struct tf_arena *a, struct tf_err *e)
{
	uint64_t all = ~UINT64_C(0), mask;
	struct tf_regs regs = {0};
	struct tf_cpu own = *cpu;
	pid_t tid = l->tids[0];
	int rc = tf_arch_regs_from_task(tid, &own, a, &regs, e);

	if (rc)
		return rc;
	if (ptrace(PTRACE_GETSIGMASK, tid, (void *)sizeof(mask), &mask) ||
		ptrace(PTRACE_SETSIGMASK, tid, (void *)sizeof(all), &all))
		return failed(l, tid, "hold signals", e);
	rc = unmap(l, code, &regs, e);
	if (!rc && ptrace(PTRACE_SETSIGMASK, tid, (void *)sizeof(mask), &mask))
		rc = failed(l, tid, "let signals through", e);
	return rc;
}

int tf_landing_arrive(struct tf_landing *l, uint64_t code, const struct tf_cpu *cpu,
	struct tf_arena *a, struct tf_err *e)
{
	sigset_t before;
	int rc = 0;

	hold_signals(&before);
	for (uint32_t i = 0; i < l->n && !rc; i++)
		rc = to_its_place(l, l->tids[i], e); /* the first lets the others go on */
	if (!rc)
		rc = unmap_unseen(l, code, cpu, a, e);
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
		tf_stop_take_back(l->tids[0]);
		pthread_sigmask(SIG_SETMASK, &before, NULL);
	}
	while (l->n && !rc) {
		pid_t tid = l->tids[l->n - 1];

		if (ptrace(PTRACE_DETACH, tid, NULL, NULL))
			rc = failed(l, tid, "detach", e);
		else
			l->n--;
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
