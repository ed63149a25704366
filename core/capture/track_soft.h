/* SPDX-License-Identifier: MIT */
/* track.h by soft-dirty bits, of x86_64 only: the same functions, and one more for each round. */
#ifndef TF_CAPTURE_TRACK_SOFT_H
#define TF_CAPTURE_TRACK_SOFT_H

#include "core/capture/track.h"

/* Whether it can be: k->pid and k->pagemap are set. 0 or _UNSUPPORTED. */
int tf_soft_begin(struct tf_track *k, struct tf_err *e);

int tf_soft_round(struct tf_track *k, const struct tf_runs *where, struct tf_err *e);
bool tf_soft_is_ours(const struct tf_track *k, uint64_t start, uint64_t end);
int tf_soft_written(const struct tf_track *k, uint64_t start, uint64_t end, struct tf_runs *ret);
int tf_soft_look(const struct tf_track *k, int pagemap, uint64_t start, uint64_t end,
	int (*page)(void *ctx, uint64_t start, uint64_t end, bool clean), void *ctx,
	struct tf_err *e);
void tf_soft_end(struct tf_track *k);

#endif
