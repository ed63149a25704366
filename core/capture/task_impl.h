/* SPDX-License-Identifier: MIT */
/* What the parts of the capture from outside share; see task.h. Nobody else includes this. */
#ifndef TF_CAPTURE_TASK_IMPL_H
#define TF_CAPTURE_TASK_IMPL_H

#include "core/capture/task.h"

#define TF_TASK_PATH 64 /* "/proc/PID/fdinfo/N" */

/* Reads n bytes of the process's memory. 0 or _SYSTEM with the address. */
int tf_task_read(struct tf_task *t, uint64_t addr, void *to, size_t n);

/* task_ask.c: asks what only the process knows, and clears TF_SOURCE_OUTSIDE; leaves it set where
 * asking could disturb. The process is afterwards as it was, or the error says that it is not. */
int tf_task_ask(struct tf_task *t);

#endif
