/* SPDX-License-Identifier: MIT */
/* What the parts of the comparison share; see compare.h. Nobody else includes this. */
#ifndef TF_IMAGE_COMPARE_IMPL_H
#define TF_IMAGE_COMPARE_IMPL_H

#include "core/image/compare.h"

struct tf_comparison {
	const struct tf_file *file_a, *file_b;
	const struct tf_image *a, *b;
	const struct tf_arch *arch;
	bool strict, emulated; /* emulated: one of them is of QEMU user mode */
	tf_difference_fn *fn;
	void *ctx;
	struct tf_compared *sum;
	struct tf_err *e;
	uint64_t mailbox;                       /* its address in both; 0: unknown */
	struct tf_mailbox mailbox_a, mailbox_b; /* zeroes if unknown */
	const struct tf_map *stack;             /* a's main stack, or NULL */
};

/* Tells one inequality. The caller counts; what a strict comparison does not excuse is turned into
 * a loss here. Returns whether it is a loss. */
bool tf_compare_tell(struct tf_comparison *c, struct tf_difference *d);

/* Adds one to the count that fits. */
void tf_compare_count(
	struct tf_comparison *c, enum tf_compare_kind kind, bool different, bool lost);

/* The parts: compare_maps.c, compare_memory.c, compare_state.c. 0 or an error in c->e. */
int tf_compare_maps(struct tf_comparison *c);
int tf_compare_memory(struct tf_comparison *c);
int tf_compare_state(struct tf_comparison *c);

#endif
