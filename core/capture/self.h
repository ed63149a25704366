/* SPDX-License-Identifier: MIT */
/*
 * A process forks its own snapshot. Shared by telefork(), telefork_save() and telefork_on_signal().
 */
#ifndef TF_CAPTURE_SELF_H
#define TF_CAPTURE_SELF_H

#include "core/capture/capture.h"
#include "core/job.h"

struct tf_snapshot {
	const struct telefork_options *options; /* may be NULL */
	uint32_t origin;                        /* TF_ORIGIN_* */
	uint32_t stream_flags;                  /* TF_STREAM_* */
	int channel_fd;                         /* connected; or -1: dial() in the child */
	bool many;            /* answers are the caller's to read, those of many */
	const void *ucontext; /* capture this frame (signal); NULL: capture the caller (call) */
	int (*dial)(void *ctx, struct tf_err *e);   /* child: opens the channel. No allocator */
	int (*finish)(void *ctx, struct tf_err *e); /* child, after success; NULL: nothing */
	void *ctx;
};

/*
 * Forks a snapshot and returns TELEFORK_PARENT when it is frozen and has given up every descriptor;
 * 0 in the copy (call only); or an error, with nothing started. *ret_status_fd, *ret_pid and
 * *ret_child (whether it is to be reaped) belong to the caller. Async-signal-safe.
 */
int tf_snapshot_fork(const struct tf_snapshot *s, int *ret_status_fd, pid_t *ret_pid,
	bool *ret_child, struct tf_err *e);

/* Raises a signal at the calling thread and calls fn with the frame that the kernel laid for it, on
 * a stack of its own in c's arena. fn does not return. Returns, in a process made from the image,
 * what the image says; or an error in c->err. [child] */
int tf_capture_raise(struct tf_capture *c, void (*fn)(const void *ucontext));

/* fork() without a trace: no SIGCHLD, nothing for the program's wait(). *ret_child: whether the
 * caller is to reap it, with __WALL. -1 on failure. [child] */
pid_t tf_fork_hidden(bool *ret_child);

/* Once in a program under QEMU user mode: the snapshot finds translated what it is about to do. */
void tf_capture_rehearse(void);

/* A signal that telefork_on_signal() asked for interrupted the program here (signal.c). [child] */
void tf_signal_arrived(int signo, const void *ucontext);

#endif
