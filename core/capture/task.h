/* SPDX-License-Identifier: MIT */
/*
 * Capture from outside: a running process is stopped by ptrace, all its threads, looked at, written
 * as an image and let go. Nothing of it is changed: what only the process itself can ask (signal
 * actions, altstacks, tid addresses, brk) is asked in its name, through system calls that its
 * threads make while stopped; registers and memory are put back as they were, and that is checked.
 * Where such a call could disturb it, those facts stay unknown (TF_SOURCE_OUTSIDE).
 */
#ifndef TF_CAPTURE_TASK_H
#define TF_CAPTURE_TASK_H

#include "core/capture/capture.h"

/* A thread that we trace. */
struct tf_traced {
	pid_t tid;
	bool stopped; /* it stands; else it is seized only */
	long blocked; /* the system call in which /proc saw it before we came; -1: none */
	struct tf_regs as_found; /* its registers as the stop shows them */
	uint64_t abort; /* where the restartable sequence that it stands in has its exit; 0: none */
};

struct tf_task {
	struct tf_capture capture; /* arena, image, runs and err are used */
	pid_t pid;
	int mem, pagemap;         /* of the process; -1 */
	struct tf_traced *traced; /* the main thread first */
	uint32_t n_traced;
	bool was_stopped; /* by a signal, before we came */
	uint8_t *vdso;    /* a copy of its bytes */
	/* Called now and then while memory goes out, with the bytes that have gone (may be NULL).
	 */
	void (*progress)(void *ctx, uint64_t done, uint64_t all);
	void *ctx;
};

/* Stops the process, every thread of it, and waits until they stand: at most 2 s. _UNSUPPORTED (no
 * ptrace here: QEMU user mode; a process of another architecture; the main thread has ended),
 * _SYSTEM naming pid, and the state of a thread that does not stop. On failure the process runs on
 * and there is nothing to release. */
int tf_task_stop(struct tf_task *t, pid_t pid);

/* Fills the image: registers, mappings, pages, everything but memory's bytes. */
int tf_task_describe(struct tf_task *t);

/* Writes the image to fd, a regular file or a stream. It ends with tf_task_commit(): until then no
 * receiver has a whole process. Both: 0, or as tf_io_write(), _NOMEM, _LIMIT. */
int tf_task_save(struct tf_task *t, int fd);
int tf_task_commit(struct tf_task *t);

/* Lets the process go on and frees everything; safe at any time after tf_task_stop(). */
void tf_task_release(struct tf_task *t);

#endif
