/* SPDX-License-Identifier: MIT */
/*
 * A thread that was stopped while it read a clock in the vDSO has a part of the answer in its
 * registers. Where the clocks are the machine's own that does no harm: another machine's data, or
 * that of a time namespace, have another sequence number, so that it begins anew. But in a time
 * namespace, as each process that came from elsewhere has, the offset may be among what it has
 * already: so there it first goes on to the vDSO's end, some ten instructions, one by one. Should
 * it handle a signal instead, the signal handler's return leads into the vDSO again: nobody sees
 * that.
 */
#include "core/capture/task_impl.h"

#include <signal.h>
#include <sys/ptrace.h>
#include <sys/wait.h>

#define STEPS 10000u /* a clock that changes all the time is read again and again */

static bool is_inside(const struct tf_map *vdso, pid_t tid)
{
	struct __ptrace_syscall_info info = {0};

	return ptrace(PTRACE_GET_SYSCALL_INFO, tid, (void *)sizeof(info), &info) > 0 &&
	       info.instruction_pointer - vdso->start < vdso->end - vdso->start;
}

static int failed(struct tf_task *t, const struct tf_traced *x)
{
	return tf_fail(&t->capture.err, TELEFORK_E_SYSTEM,
		"thread %d of process %d cannot be led out of the vDSO", (int)x->tid, (int)t->pid);
}

/* Signals are delivered as if nobody looked. 1: it stands outside, or where it is told to stop; 0:
 * it has ended. */
static int leave(
	struct tf_task *t, struct tf_traced *x, const struct tf_map *vdso, uint64_t deadline_ns)
{
	int signo = 0, status, rc;

	for (unsigned i = 0; i < STEPS && is_inside(vdso, x->tid); i++) {
		if (ptrace(PTRACE_SINGLESTEP, x->tid, NULL, (void *)(uintptr_t)signo))
			return failed(t, x);
		x->stopped = false;
		rc = tf_task_wait_any(t, x, deadline_ns, &status);
		if (rc <= 0)
			return rc;
		if (status >> 16 == PTRACE_EVENT_STOP) {
			t->was_stopped |= WSTOPSIG(status) != SIGTRAP;
			return 1;
		}
		signo = WSTOPSIG(status) == SIGTRAP ? 0 : WSTOPSIG(status);
	}
	/* To the same kind of stop as all others, before its next instruction. */
	if (ptrace(PTRACE_INTERRUPT, x->tid, NULL, NULL) ||
		ptrace(PTRACE_CONT, x->tid, NULL, (void *)(uintptr_t)signo))
		return failed(t, x);
	x->stopped = false;
	return tf_task_wait_stop(t, x, deadline_ns);
}

int tf_task_leave_vdso(struct tf_task *t)
{
	uint64_t deadline_ns = tf_now_ns() + TF_TASK_STOP_MS * UINT64_C(1000000);
	const struct tf_map *vdso = NULL;
	int rc = 1;

	for (uint32_t i = 0; i < t->n_before; i++)
		if (t->before[i].kind == TF_MAP_VDSO)
			vdso = &t->before[i];
	if (!vdso || !t->boot || *t->boot)
		return 0;
	for (uint32_t i = 0; i < t->n_traced && rc > 0; i++)
		if (is_inside(vdso, t->traced[i].tid))
			rc = leave(t, &t->traced[i], vdso, deadline_ns);
	return rc > 0 ? 0 : rc ? rc : failed(t, t->traced);
}
