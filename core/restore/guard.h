/* SPDX-License-Identifier: MIT */
/*
 * A process that has memory to come must not go on without: should the receiver end, absent memory
 * would read as zeros. A guard, which does nothing else, holds the spaces' descriptors as well,
 * kills the process, and whatever it forked as soon as that touches what will never come.
 */
#ifndef TF_RESTORE_GUARD_H
#define TF_RESTORE_GUARD_H

#include <sys/types.h>

#include "core/base/err.h"

struct tf_guard {
	pid_t pid; /* 0: none */
	int tell;  /* -1 */
};

/* Starts one for the process, which has no space yet. 0 or _SYSTEM. */
int tf_guard_start(struct tf_guard *g, pid_t process, struct tf_err *e);

/* It holds this space, too: the descriptor stays the caller's. */
void tf_guard_add(struct tf_guard *g, int uffd);

/* Everything is there, or the process is dead: it ends, which is not waited for. Safe without one.
 */
void tf_guard_end(struct tf_guard *g);

/* Afterwards: waits for its end. */
void tf_guard_reap(struct tf_guard *g);

#endif
