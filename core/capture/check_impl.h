/* SPDX-License-Identifier: MIT */
/* What the parts of the search for obstacles share; see task_check.h. Nobody else includes this. */
#ifndef TF_CAPTURE_CHECK_IMPL_H
#define TF_CAPTURE_CHECK_IMPL_H

#include "core/capture/task_check.h"
#include "core/base/arena.h"
#include "core/capture/task_others.h"

#define TF_CHECK_SHARED 4096 /* of what others may use, too, so many are looked for */

struct tf_check {
	pid_t pid;
	struct tf_shared *shared; /* TF_CHECK_SHARED */
	uint32_t n_shared;
	struct tf_arena arena;
	tf_obstacle_fn *found;
	void *ctx;
	int n;
};

/* Tells one obstacle: what it is about, as text. */
void tf_check_add(struct tf_check *c, enum tf_obstacle_kind kind, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* Notes memory, or a file without a name, that travels unless others use it. */
void tf_check_shared(struct tf_check *c, uint64_t dev, uint64_t ino, const char *name);

/* The text of /proc/PID/name; "" if it is not to be had. In the arena. */
const char *tf_check_text(struct tf_check *c, const char *name);

/* The decimal number behind a label of a text like /proc/PID/status; 0 if there is none. */
long tf_check_number(const char *text, const char *label);

/* check_others.c: whom and what it has to do with besides itself: children, tracees, namespaces,
 * semaphores; threads that cannot be stopped. */
void tf_check_others(struct tf_check *c);

/* check_fds.c: descriptors that do not travel. */
void tf_check_fds(struct tf_check *c);

#endif
