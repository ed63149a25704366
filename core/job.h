/* SPDX-License-Identifier: MIT */
/*
 * A transfer under way: the snapshot (a child that the program does not see) and the pipe on which
 * it says READY, once, and DONE, once.
 */
#ifndef TF_JOB_H
#define TF_JOB_H

#include "core/telefork.h"

#include <stdbool.h>

enum tf_status_kind {
	TF_STATUS_READY = 1, /* frozen: the parent may go on. result.error: nothing was started */
	TF_STATUS_DONE,      /* result is complete */
};

/* One message on the status pipe; smaller than PIPE_BUF, so it is written and read whole. */
struct tf_status {
	uint32_t kind;
	int32_t pid; /* of the snapshot */
	struct telefork_result result;
};

_Static_assert(sizeof(struct tf_status) <= 4096, "a status message must fit PIPE_BUF");

struct telefork_job {
	int fd;         /* read end of the status pipe */
	int channel_fd; /* what the transfer writes to */
	pid_t snapshot; /* child, or (reparented) somebody's */
	bool child;     /* ours to reap, with __WALL */
	bool cancelled;
	uint64_t start_ns, stopped_ns;
};

/* Reads one message of that kind. False at end of file. */
bool tf_status_read(int fd, uint32_t kind, struct tf_status *status);

/* Writes one; failures are the reader's absence and are ignored. No lock. */
void tf_status_write(int fd, const struct tf_status *status);

#endif
