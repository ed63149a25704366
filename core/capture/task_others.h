/* SPDX-License-Identifier: MIT */
/* Whether other processes use the memory that one is to take along: looked for in all of /proc. */
#ifndef TF_CAPTURE_TASK_OTHERS_H
#define TF_CAPTURE_TASK_OTHERS_H

#include <stdint.h>
#include <sys/types.h>

#include "core/base/arena.h"

/* A file or shared memory; dev as in struct tf_map. */
struct tf_shared {
	uint64_t dev, ino;
	const char *name;
	pid_t user; /* another process that maps it or has it open; 0: none was seen */
};

/* Fills user of each. Processes that may not be looked at are not seen. Uses the arena for a while.
 */
void tf_task_others(pid_t pid, struct tf_shared *shared, uint32_t n, struct tf_arena *a);

#endif
