/* SPDX-License-Identifier: MIT */
/*
 * As far as the receiver may grant it, and never more: what the kernel keeps for the process
 * (limits, scheduling, credentials, filters, clocks), held against what this receiver has.
 */
#ifndef TF_RESTORE_FIT_H
#define TF_RESTORE_FIT_H

#include "core/restore/facts.h"

/* Changes img to what can be had here. What is a little less (a limit, a priority, a capability) is
 * told in left; what would make it another process (other ids, no filter) is a reason against, in
 * e, one a line: _INCOMPATIBLE. own: ids and groups become the receiver's, which is told, too. */
int tf_fit(struct tf_image *img, const struct tf_facts *f, bool own, struct tf_err *left,
	struct tf_err *e);

/* Whether the receiver has a capability where the kernel asks for it in the first user namespace
 * (everywhere: also in its own). */
bool tf_fact_may(const struct tf_facts *f, unsigned cap);
bool tf_fact_may_everywhere(const struct tf_facts *f, unsigned cap);

/* Whether the clocks of the process have to be made: they are not this machine's. */
bool tf_fit_clocks(const struct tf_image *img, const struct tf_facts *f);

#endif
