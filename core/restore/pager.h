/* SPDX-License-Identifier: MIT */
/*
 * Post-copy, the receiver's side (stream.h): the process runs, and its memory comes. What its
 * threads wait for is asked for, what comes is put in place. The receiver is its pager until
 * everything is there; should it fail, the process must end: it is not whole.
 */
#ifndef TF_RESTORE_PAGER_H
#define TF_RESTORE_PAGER_H

#include "core/restore/guard.h"
#include "core/restore/spaces.h"

struct tf_pad;
struct paging;

struct tf_pager {
	int uffd; /* of the process, until tf_pager_run() takes it; -1 */
	struct tf_guard guard;
	struct tf_spaces spaces;
	uint64_t bytes;        /* that came; pages of zeros, which do not travel, included */
	uint64_t asked;        /* how often for an address */
	struct paging *paging; /* ready for the first who touches something; NULL */
};

/* The new process sends its descriptor with a report that says so: takes it, and sets a guard.
 * deadline_ns: CLOCK_MONOTONIC. 0, or as in pad.h; p->err. */
int tf_pager_take(struct tf_pad *p, uint64_t deadline_ns);

/* Once it runs: until everything has come, or nobody needs it any more; the sender waits for an
 * answer then. On failure (p->err) the process is to be killed, and all that it forked, before
 * tf_pager_done(). */
int tf_pager_run(struct tf_pad *p);

void tf_pager_done(struct tf_pager *g);

#endif
