/* SPDX-License-Identifier: MIT */
/* See timing.h. Durations are of the monotonic clock: the other one may be set meanwhile. */
#include "core/cmd/timing.h"

#include <inttypes.h>
#include <stdio.h>
#include <time.h>

#include "core/base/io.h"

void tf_timing_began(struct tf_timing *t, const char *name, uint64_t ns)
{
	if (t->n == TF_TIMING_PHASES)
		return;
	t->begun[t->n].name = name;
	t->begun[t->n++].ns = ns;
}

void tf_timing_begin(struct tf_timing *t, const char *name)
{
	tf_timing_began(t, name, tf_now_ns());
}

void tf_timing_tell(struct tf_timing *t)
{
	uint64_t now = tf_now_ns(), ahead;
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	ahead = (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec - now;
	for (unsigned i = 0; t->on && i < t->n; i++)
		fprintf(stderr, "telefork: timing %s %" PRIu64 " %" PRIu64 "\n", t->begun[i].name,
			ahead + t->begun[i].ns, ahead + (i + 1 < t->n ? t->begun[i + 1].ns : now));
	t->n = 0;
}
