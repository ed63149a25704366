/* SPDX-License-Identifier: MIT */
/*
 * Capture from outside: a running process is stopped by ptrace, looked at, written as an image and
 * let go. Nothing of it is changed: what only the process itself can ask (signal actions, altstack,
 * tid address, brk) is asked in its name, through system calls that its thread makes while stopped;
 * registers and memory are put back as they were, and that is checked. Where such a call could
 * disturb it, those facts stay unknown (TF_SOURCE_OUTSIDE). One thread only in this version.
 */
#ifndef TF_CAPTURE_TASK_H
#define TF_CAPTURE_TASK_H

#include "core/capture/capture.h"

struct tf_task {
	struct tf_capture capture; /* arena, image, runs and err are used */
	pid_t pid;
	int mem, pagemap;     /* of the process; -1 */
	bool seized, stopped; /* by us: it runs on when released, and when we die */
	uint8_t *vdso;        /* a copy of its bytes */
};

/* Stops the process and waits until it stands: at most 2 s. _UNSUPPORTED (no ptrace here: QEMU user
 * mode; more than one thread; a process of another architecture), _SYSTEM naming pid. On failure
 * the process runs on and there is nothing to release. */
int tf_task_stop(struct tf_task *t, pid_t pid);

/* Fills the image: registers, mappings, pages, everything but memory's bytes. */
int tf_task_describe(struct tf_task *t);

/* Writes the image into the regular file fd. */
int tf_task_save(struct tf_task *t, int fd);

/* Lets the process go on and frees everything; safe at any time after tf_task_stop(). */
void tf_task_release(struct tf_task *t);

#endif
