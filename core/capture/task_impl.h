/* SPDX-License-Identifier: MIT */
/* What the parts of the capture from outside share; see task.h. Nobody else includes this. */
#ifndef TF_CAPTURE_TASK_IMPL_H
#define TF_CAPTURE_TASK_IMPL_H

#include "core/capture/task.h"

#define TF_TASK_PATH    64   /* "/proc/PID/task/TID/syscall" */
#define TF_TASK_STOP_MS 2000 /* a thread in vfork or in uninterruptible sleep does not stop */

/* Reads n bytes of the process's memory. 0 or _SYSTEM with the address. */
int tf_task_read(struct tf_task *t, uint64_t addr, void *to, size_t n);

/* Reads /proc/PID/name into the arena. */
int tf_task_read_text(struct tf_task *t, const char *name, char **ret_text, size_t *ret_size);

/* Waits for a thread's next PTRACE_EVENT_STOP until the deadline; signals that are on their way are
 * not ours: the thread stops for them first, and gets them. 1: it stands; 0: it has ended; _SYSTEM,
 * naming its state. */
int tf_task_wait_stop(struct tf_task *t, struct tf_traced *x, uint64_t deadline_ns);

/* task_thread.c: fills image.threads from the stopped threads, and image.pending. */
int tf_task_threads(struct tf_task *t);
int tf_task_pending(struct tf_task *t);

/* task_leftover.c: takes off image.maps the ranges of restorers that have done their work. */
void tf_task_drop_leftovers(struct tf_task *t);

/* Once the threads have been asked: makes the registers of image.threads those from which they go
 * on anywhere. System calls that the kernel was about to start again are made again, or give up
 * with EINTR where only this kernel knows the time that is left; a restartable sequence is aborted.
 */
int tf_task_settle(struct tf_task *t);

/* The same for one thread's regs alone, which are copied before they are changed. here: for this
 * very process, where a sleep rather starts anew than ends for no reason that the program knows. */
int tf_task_settle_thread(
	struct tf_task *t, const struct tf_traced *x, struct tf_thread *thread, bool here);

/* The registers that a thread of the living process is put back with. *ret may share data with
 * x->as_found. */
int tf_task_go_on(struct tf_task *t, const struct tf_traced *x, struct tf_regs *ret);

/* task_ask.c: asks what only the process knows, and clears TF_SOURCE_OUTSIDE; leaves it set where
 * asking could disturb. The process is afterwards as it was, or the error says that it is not. */
int tf_task_ask(struct tf_task *t);

#endif
