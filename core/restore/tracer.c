/* SPDX-License-Identifier: MIT */
/* See tracer.h. Architecture-neutral: a step names a regset, and the image has its bytes. */
#include "core/restore/tracer.h"
#include "core/base/io.h"
#include "core/base/twin.h"

#include <errno.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/uio.h>
#include <sys/wait.h>

#define AWAKE_NS 50000

bool tf_tracer_allowed(void)
{
	sigset_t all, before;
	pid_t twin;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	twin = tf_twin_start(NULL);
	if (twin > 0)
		tf_twin_end(twin);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return twin > 0;
}

/* Most stops come sooner than one is woken. */
pid_t tf_tracer_await(pid_t tid, bool awake, int *ret_status)
{
	uint64_t asleep_ns = awake ? tf_now_ns() + AWAKE_NS : 0;
	pid_t got;

	do
		got = waitpid(tid, ret_status, __WALL | (tf_now_ns() < asleep_ns ? WNOHANG : 0));
	while (!got || (got < 0 && errno == EINTR));
	return got;
}

int tf_tracer_seize(pid_t child, unsigned long options, bool awake, struct tf_err *e)
{
	int status;

	if (ptrace(PTRACE_SEIZE, child, NULL, (void *)options) ||
		ptrace(PTRACE_INTERRUPT, child, NULL, NULL))
		return tf_fail_errno(
			e, TELEFORK_E_RESTORE, errno, "the new process cannot be traced");
	if (tf_tracer_await(child, awake, &status) != child || !WIFSTOPPED(status))
		return tf_fail(e, TELEFORK_E_RESTORE,
			"the new process ended before its registers were set");
	return 0;
}

int tf_tracer_set(
	pid_t child, const struct tf_step *s, const struct tf_thread *thread, struct tf_err *e)
{
	struct tf_regset *set = tf_regs_find(&thread->regs, (uint32_t)s->arg[0]);
	struct iovec iov;

	if (!set)
		return tf_fail(e, TELEFORK_E_RESTORE, "%s: not in the image", s->comment);
	iov = (struct iovec){set->data, set->size};
	if (ptrace(PTRACE_SETREGSET, child, (void *)s->arg[0], &iov))
		return tf_fail_errno(e, TELEFORK_E_RESTORE, errno, "%s: ptrace", s->comment);
	return 0;
}

static int run_all(
	pid_t child, const struct tf_plan *plan, const struct tf_thread *thread, struct tf_err *e)
{
	int rc = tf_tracer_seize(child, PTRACE_O_EXITKILL, false, e);

	for (uint64_t i = 0; i < plan->n_steps && !rc; i++)
		if (plan->steps[i].op == TF_OP_TRACER)
			rc = tf_tracer_set(child, &plan->steps[i], thread, e);
	if (!rc && ptrace(PTRACE_DETACH, child, NULL, NULL))
		rc = tf_fail_errno(e, TELEFORK_E_RESTORE, errno, "ptrace");
	return rc;
}

int tf_tracer_run(
	pid_t child, const struct tf_plan *plan, const struct tf_thread *thread, struct tf_err *e)
{
	sigset_t all, before;
	uint64_t i = 0;
	int rc;

	while (i < plan->n_steps && plan->steps[i].op != TF_OP_TRACER)
		i++;
	if (i == plan->n_steps)
		return 0;
	/* A handler of the receiver's for SIGCHLD must not take the stop for itself. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	rc = run_all(child, plan, thread, e);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return rc;
}
