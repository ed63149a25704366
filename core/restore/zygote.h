/* SPDX-License-Identifier: MIT */
/*
 * A zygote: a landed image that waits, complete in memory, and of which any number of copies are
 * forked, on all processors, each in a few microseconds more than fork(2) takes. What belongs to
 * one copy only (thread ids, threads, timers, pending signals, descriptors, registers) each makes
 * for itself.
 *
 *   receiver                zygote                        copies
 *   tf_pad_hold  <- 'z' ---  memory, signal actions
 *   tf_zygote_make ------->  a gate, n forks ----------->  the rest of the plan
 *                <- 'f' ---
 *                <------------------------------- 'r' ---  wait at the gate
 *   tf_zygote_end --- 'g' ->  opens it ----------------->  run; the receiver is their parent
 *
 * All of a request's run, or none. Memory is shared, copy on write. The zygote ends with the
 * receiver, the copies do not.
 */
#ifndef TF_RESTORE_ZYGOTE_H
#define TF_RESTORE_ZYGOTE_H

#include "core/restore/pad.h"

/* In options->restore, beside TELEFORK_RESTORE_*: p->child becomes a zygote, and tf_pad_hold() all
 * that there is to do. Nobody may trace its copies, so that the restorer's range stays in those
 * that do not know of us (landing.h). */
#define TF_RESTORE_ZYGOTE (1u << 30)

/* Why this image cannot be a zygote, one reason a line, into e: what its copies would share and
 * should not, or what takes a tracer. 0 or _INCOMPATIBLE. */
int tf_zygote_check(const struct tf_image *img, const struct tf_facts *f, struct tf_err *e);

/* Whether a map of the image is memory that each copy gets anew, shared with nobody yet; and
 * whether it is such memory that only one can have (objects). */
bool tf_zygote_parts(const struct tf_image *img, const struct tf_map *m);
bool tf_zygote_shares(const struct tf_image *img, const struct tf_map *m);

/* Copies with indices from first on (n <= TF_LITTER_MAX): pids[n] in their order, children of the
 * caller's, which wait. 0, or an error in p->err, and then none is left that will run.
 * tf_zygote_end() follows a success. */
int tf_zygote_make(struct tf_pad *p, uint32_t n, uint64_t first, pid_t *pids);

/* Lets them run, or ends them. 0 or _RESTORE: the zygote has ended, and so have they. */
int tf_zygote_end(struct tf_pad *p, bool go);

/* Waits for the end of a copy, or of any child. Under QEMU user mode copies are nobody's children
 * (they are the init process's), and *status is 0. 0 or _SYSTEM. */
int tf_zygote_wait(pid_t pid, int *status);

#endif
