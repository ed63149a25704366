/* SPDX-License-Identifier: MIT */
/*
 * Which pages a running process writes to (pre-copy): its private memory is write-protected by a
 * userfaultfd(2) of its own, which it has for a moment only and we from then on, and which resolves
 * such faults by itself (UFFD_FEATURE_WP_ASYNC). PAGEMAP_SCAN tells which pages are not protected
 * any more, and protects them again in the same step. Closing the last descriptor, whoever does it,
 * takes all that away. Linux 6.7.
 */
#ifndef TF_CAPTURE_TRACK_H
#define TF_CAPTURE_TRACK_H

#include <sys/types.h>

#include "core/base/err.h"
#include "core/image/runs.h"

struct tf_track {
	int uffd;    /* -1: nothing is tracked */
	int pagemap; /* of the process with that memory: it may execute another program */
	struct tf_page_region *region;
	struct tf_runs fresh; /* scratch */
	uint64_t stopped_ns;  /* it stood so long for that */
};

/* Stops the process for a moment. 0, or _UNSUPPORTED with the reason; or as tf_task_stop().
 * tf_track_end() in either case. */
int tf_track_begin(struct tf_track *k, pid_t pid, struct tf_err *e);

/* From now on [start, end), a mapping of private memory, is tracked as far as it was not; all that
 * is there counts as written. 1; 0: it cannot be tracked, or not as a whole; _SYSTEM, _NOMEM. */
int tf_track_add(struct tf_track *k, uint64_t start, uint64_t end, struct tf_err *e);

/* Whether nobody else tracks it: what is clean there is so by our word. After tf_track_look(). */
bool tf_track_is_ours(const struct tf_track *k, uint64_t start, uint64_t end);

/* Adds to *written the pages of [start, end) with something in them that were written to since it
 * was last asked for them. 0, _SYSTEM, _NOMEM. */
int tf_track_written(struct tf_track *k, uint64_t start, uint64_t end, struct tf_runs *written,
	struct tf_err *e);

/* The process stands. Calls page() for the pages of [start, end) with something in them, in order;
 * clean: they were not written to since tf_track_written(). pagemap: the process's own, opened
 * anew. 0, _SYSTEM, or what page() said. */
int tf_track_look(struct tf_track *k, int pagemap, uint64_t start, uint64_t end,
	int (*page)(void *ctx, uint64_t start, uint64_t end, bool clean), void *ctx,
	struct tf_err *e);

void tf_track_end(struct tf_track *k);

#endif
