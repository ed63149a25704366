/* SPDX-License-Identifier: MIT */
/* How far a transfer is: a bar on a terminal that is written over and over, with bytes, rate and
 * time left; nothing elsewhere. */
#ifndef TF_CMD_PROGRESS_H
#define TF_CMD_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

struct tf_progress {
	bool terminal;
	uint64_t start_ns, told_ns;
};

void tf_progress_begin(struct tf_progress *p);

/* done of all bytes: at most ten lines a second. ctx is a struct tf_progress. */
void tf_progress_tell(void *ctx, uint64_t done, uint64_t all);

/* Takes the line away. */
void tf_progress_end(struct tf_progress *p);

/* "12.3 MiB" into buf. */
const char *tf_bytes_text(uint64_t bytes, char buf[static 24]);

#endif
