/* SPDX-License-Identifier: MIT */
/* What the parts of facts share. Nobody else includes this. */
#ifndef TF_RESTORE_FACTS_IMPL_H
#define TF_RESTORE_FACTS_IMPL_H

#include "core/restore/facts.h"

/* The number in a small file such as those of /proc/sys. */
uint64_t tf_facts_number(const char *path, uint64_t otherwise);

/* facts_tasks.c: threads_free and pending_free; status: the text of /proc/self/status. Needs
 * rights.
 */
void tf_facts_tasks(struct tf_facts *f, const char *status, struct tf_arena *a);

/* facts_memory.c: locks, accounting, huge pages. Needs rights. */
void tf_facts_memory(struct tf_facts *f, struct tf_arena *a);

/* Whether protection keys are to be had. */
bool tf_facts_keys(void);

#endif
