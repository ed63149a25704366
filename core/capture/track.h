/* SPDX-License-Identifier: MIT */
/*
 * Which pages a running process writes to (pre-copy): its private memory is write-protected by a
 * userfaultfd(2) of its own, which it has for a moment only and we from then on, and which resolves
 * such faults by itself (UFFD_FEATURE_WP_ASYNC). PAGEMAP_SCAN tells which pages are not protected
 * any more, and protects them again in the same step. Closing the last descriptor, whoever does it,
 * takes all that away. Linux 6.7. Where there is no such thing: track_soft.c.
 */
#ifndef TF_CAPTURE_TRACK_H
#define TF_CAPTURE_TRACK_H

#include <sys/types.h>

#include "core/base/err.h"
#include "core/image/runs.h"

/* Ways, of which the first one that can be gone is. */
#define TF_TRACK_UFFD 1u
#define TF_TRACK_SOFT 2u

/* Of each page of where its word of pagemap. */
struct tf_words {
	struct tf_runs where;
	uint64_t *first; /* the index of a run's first page */
	uint64_t *word;
	size_t size; /* bytes */
};

struct tf_track {
	unsigned way; /* 0: nothing is tracked */
	pid_t pid;
	bool stands; /* it was stopped: there is nothing to track */
	int uffd;
	int pagemap; /* of the process with that memory: it may execute another program */
	struct tf_page_region *region;
	struct tf_runs fresh;   /* scratch */
	int clear;              /* soft: clear_refs; -1 */
	struct tf_words words;  /* of the last round */
	struct tf_runs written; /* in it */
};

/* Stops the process for a moment. ways: TF_TRACK_*. 0, or _UNSUPPORTED with the reason; or as
 * tf_task_stop(). tf_track_end() in either case. */
int tf_track_begin(struct tf_track *k, pid_t pid, unsigned ways, struct tf_err *e);

/* A round begins: the process has private memory in where, which is what is asked for in it. 0,
 * _SYSTEM, _NOMEM. */
int tf_track_round(struct tf_track *k, const struct tf_runs *where, struct tf_err *e);

/* From now on [start, end), a mapping of private memory, is tracked as far as it was not; all that
 * is there counts as written. 1; 0: it cannot be tracked, or not as a whole; _SYSTEM, _NOMEM. */
int tf_track_add(struct tf_track *k, uint64_t start, uint64_t end, struct tf_err *e);

/* Whether nobody else tracks it: what is clean there is so by our word. After tf_track_look(). */
bool tf_track_is_ours(const struct tf_track *k, uint64_t start, uint64_t end);

/* Adds to *written the pages of [start, end) with something in them that were written to since it
 * was last asked for them. 0, _SYSTEM, _NOMEM. */
int tf_track_written(struct tf_track *k, uint64_t start, uint64_t end, struct tf_runs *written,
	struct tf_err *e);

/* The process stands. Calls page() for the pages of [start, end), which lies in one mapping, with
 * something in them, in order; clean: they were not written to since tf_track_written(). pagemap:
 * the process's own, opened anew. 0, _SYSTEM, or what page() said. */
int tf_track_look(struct tf_track *k, int pagemap, uint64_t start, uint64_t end,
	int (*page)(void *ctx, uint64_t start, uint64_t end, bool clean), void *ctx,
	struct tf_err *e);

/* Nobody watches the process any more. */
void tf_track_end(struct tf_track *k);

#endif
