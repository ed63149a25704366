/* SPDX-License-Identifier: MIT */
/* Pre-copy, for the command: whether there are rounds, and what is said of them. */
#ifndef TF_CMD_PRECOPY_H
#define TF_CMD_PRECOPY_H

#include <stdio.h>

#include "core/capture/rounds.h"
#include "core/capture/task.h"
#include "core/channel/channel.h"
#include "core/cmd/journal.h"
#include "core/cmd/timing.h"

enum tf_precopy_wish {
	TF_PRECOPY_AUTO, /* where it pays: for TF_PRECOPY_LEAST bytes and more */
	TF_PRECOPY_ALWAYS,
	TF_PRECOPY_NEVER,
};

/* Bytes of memory of its own that go in less time than a stop takes besides (docs/bench.md). */
#define TF_PRECOPY_LEAST (UINT64_C(8) << 20)
/* Who reserves more (sanitizers) leaves a receiver no addresses to keep what comes before. */
#define TF_PRECOPY_MOST (UINT64_C(1) << 40)

struct tf_precopy {
	enum tf_precopy_wish wish;
	bool on;      /* there are rounds, and the process is tracked */
	bool without; /* there are none, where there should be: rounds.err says why */
	struct tf_rounds rounds;
};

/* Before the receiver is told what comes: tracks the process, and says so in errand; where that
 * cannot be, says why, and all goes at once. */
void tf_precopy_begin(
	struct tf_precopy *p, const char *command, pid_t pid, struct tf_errand *errand);

/* The receiver said no to that, and why: all goes at once. */
void tf_precopy_refused(struct tf_precopy *p, const char *command, const char *why);

/* Looks at the process (tf_task_begin()), and sends the rounds. packer (NULL: none) is borrowed. 0:
 * tf_task_halt() is next; or an error in t->capture.err. */
int tf_precopy_run(struct tf_precopy *p, const char *command, struct tf_task *t, pid_t pid, int fd,
	const struct telefork_options *options, struct tf_packer *packer, struct tf_timing *timing);

/* The process stands: the image is next. 0, or an error in t->capture.err. */
int tf_precopy_over(struct tf_precopy *p, struct tf_task *t);

/* What its record says of rounds; false: nothing. */
bool tf_precopy_note(const struct tf_precopy *p, struct tf_record *r);

/* A part of a line about what was done. */
void tf_precopy_tell(const struct tf_precopy *p, FILE *out);

void tf_precopy_end(struct tf_precopy *p);

#endif
