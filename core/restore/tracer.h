/* SPDX-License-Identifier: MIT */
/*
 * Steps of a plan that the new process cannot do itself: the receiver sets registers that only
 * ptrace sets, while the process stands at the plan's barrier. Natively only: QEMU user mode has no
 * ptrace.
 */
#ifndef TF_RESTORE_TRACER_H
#define TF_RESTORE_TRACER_H

#include <sys/types.h>

#include "core/image/image.h"
#include "core/restore/plan.h"

/* Whether this process may trace a child of its own; tried, not guessed. */
bool tf_tracer_allowed(void);

/* As waitpid(2), of a thread whose next stop comes soon; awake: that is waited for awake, as there
 * is another processor for the thread. */
pid_t tf_tracer_await(pid_t tid, bool awake, int *ret_status);

/* Traces a thread with these PTRACE_O_* and waits until it stands. 0 or _RESTORE with ptrace's
 * reason. */
int tf_tracer_seize(pid_t tid, unsigned long options, bool awake, struct tf_err *e);

/* Executes one TRACER step on a stopped thread, with the regset of the image's. 0 or _RESTORE. */
int tf_tracer_set(
	pid_t tid, const struct tf_step *step, const struct tf_thread *thread, struct tf_err *e);

/* For a process of one thread: executes the TRACER steps of the plan on child, which waits at the
 * barrier; regsets are thread's. Nothing happens if there are none. The child goes on waiting. 0 or
 * _RESTORE, which names the step and ptrace's reason; the child is then not to be used. */
int tf_tracer_run(
	pid_t child, const struct tf_plan *plan, const struct tf_thread *thread, struct tf_err *e);

#endif
