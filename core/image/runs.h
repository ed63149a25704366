/* SPDX-License-Identifier: MIT */
/* Sets of addresses as sorted runs that do not touch each other. Uses the allocator. */
#ifndef TF_IMAGE_RUNS_H
#define TF_IMAGE_RUNS_H

#include "core/image/image.h"

/* Zero-initialise. */
struct tf_runs {
	struct tf_run *v;
	size_t n, room;
};

enum tf_runs_op {
	TF_RUNS_EITHER,  /* in a or in b */
	TF_RUNS_BOTH,    /* in a and in b */
	TF_RUNS_WITHOUT, /* in a, and not in b */
};

/* Adds [start, end), which begins no earlier than what was added last. 0 or _NOMEM. */
int tf_runs_add(struct tf_runs *r, uint64_t start, uint64_t end);

/* *ret, which is neither of them and has something or nothing in it, becomes that of a and b. 0 or
 * _NOMEM. */
int tf_runs_make(
	struct tf_runs *ret, enum tf_runs_op op, const struct tf_runs *a, const struct tf_runs *b);

/* The same, into a itself. */
int tf_runs_change(struct tf_runs *a, enum tf_runs_op op, const struct tf_runs *b);

/* The first run that ends behind at: its index, or n. */
size_t tf_runs_find(const struct tf_runs *r, uint64_t at);

/* Whether one of them and [start, end) have an address in common. */
bool tf_runs_meet(const struct tf_runs *r, uint64_t start, uint64_t end);

/* Bytes of all. */
uint64_t tf_runs_size(const struct tf_runs *r);

/* Empty again; the memory stays. */
void tf_runs_clear(struct tf_runs *r);

void tf_runs_done(struct tf_runs *r);

#endif
