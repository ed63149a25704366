/* SPDX-License-Identifier: MIT */
/*
 * Pre-copy, the receiver's side: the new process is there when the first round comes (stream.h),
 * and takes the rounds into its own memory, at a distance from where it will be. That is the same
 * for all of a span of addresses, and a multiple of the span: mappings that touch each other do so
 * here, and moving them there moves page tables, not pages.
 *
 *   receiver                          the new process
 *   fork --------------------------->  places, extents ... trailer, tf_taken to the sender
 *   <------------ "s" ---------------  no more rounds
 *   head, checks, plan
 *   ------------- "p" -------------->  pad_child.c
 *
 * Both share what the former has in its arena from the fork on. Where the new process cannot keep
 * what comes, it says so, swallows what is on its way until no more rounds come, and ends.
 */
#ifndef TF_RESTORE_STAGE_H
#define TF_RESTORE_STAGE_H

#include "core/image/runs.h"
#include "core/image/stream.h"
#include "core/restore/hole.h"

#define TF_STAGE_WINDOWS 64

/* Source addresses that have memory in the new process. Sorted, not overlapping. */
struct tf_slot {
	uint64_t start, end;
	uint64_t vmflags; /* TF_PLACE_FLAGS */
};

struct tf_staging {
	uint64_t span, shift; /* where the first one begins that is not cut off by 0 */
	uint32_t n_windows, n_slots, max_slots;
	struct {
		uint64_t from, to; /* a span of source addresses, and where it is meanwhile */
	} window[TF_STAGE_WINDOWS];
	struct tf_slot *slot;
	uint64_t bytes; /* of memory that the new process has for them */
	bool refused;   /* nothing of it can be kept here: the sender knows, and goes on without */
	struct tf_err err;
	const struct tf_pad *pad; /* what it becomes */
};

struct tf_pad;

/* In tf_pad_prepare(), before the head, with p->facts: answers the sender's offer, and if it is
 * accepted takes all rounds: p->staging, p->child; or neither, if they cannot be kept. 0 or an
 * error in p->err. */
int tf_stage_take(struct tf_pad *p);

/* With new facts: what the new process has already is not to be found here once more. */
void tf_stage_count(struct tf_pad *p);

/* Nothing comes of it. */
void tf_stage_end(struct tf_pad *p);

/* Has the new process execute the plan. 0 or _SYSTEM. */
int tf_stage_go(struct tf_pad *p);

/* The first slot that ends behind a source address: its index, or n_slots. */
uint32_t tf_stage_slot(const struct tf_staging *s, uint64_t at);

/* Where a source address is meanwhile; 0: nowhere. */
uint64_t tf_stage_at(const struct tf_staging *s, uint64_t address);

#endif
