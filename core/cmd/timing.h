/* SPDX-License-Identifier: MIT */
/* When the phases of a command began and ended, for programs that draw them (--timing). */
#ifndef TF_CMD_TIMING_H
#define TF_CMD_TIMING_H

#include <stdbool.h>
#include <stdint.h>

#define TF_TIMING_PHASES 16

/* Phases follow one another: each ends where the next one begins. Zero-initialise. */
struct tf_timing {
	bool on; /* else nothing is told */
	unsigned n;
	struct {
		const char *name; /* static, one word */
		uint64_t ns;      /* as of tf_now_ns() */
	} begun[TF_TIMING_PHASES];
};

/* A phase begins now. What is beyond TF_TIMING_PHASES belongs to the last one. */
void tf_timing_begin(struct tf_timing *t, const char *name);

/* The same, of one that began at ns. */
void tf_timing_began(struct tf_timing *t, const char *name, uint64_t ns);

/* The last phase ends now. Tells all of them on standard error, one a line:
 * "telefork: timing NAME BEGIN END", in nanoseconds of CLOCK_REALTIME, by which those of several
 * machines can be put together. Further calls tell nothing. */
void tf_timing_tell(struct tf_timing *t);

#endif
