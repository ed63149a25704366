/* SPDX-License-Identifier: MIT */
/*
 * A yoyo's receiver stays between: it puts the copy's output and its way back into frames
 * (channel/frames.h), tells how the copy ended, and kills it when the sender is gone.
 *
 *   sender <==== frames ==== receiver <---- back (socket), output (two pipes) ---- copy
 */
#ifndef TF_RESTORE_RELAY_H
#define TF_RESTORE_RELAY_H

#include <sys/types.h>

#include "core/base/io.h"

struct tf_relay {
	struct tf_io io; /* to the sender; its fd is borrowed */
	int back;        /* owned; -1: not open */
	int output[2];   /* owned: the copy's 1 and 2 */
	pid_t child;     /* the copy: ours, and leader of its process group */
};

/* The copy's ends, until it has them. */
struct tf_relay_ends {
	int back, output[2];
};

#define TF_RELAY_NONE                            \
	{                                        \
		.back = -1, .output = { -1, -1 } \
	}
#define TF_RELAY_NO_ENDS       \
	{                      \
		-1,            \
		{              \
			-1, -1 \
		}              \
	}

/* Opens both sides' ends. 0 or _SYSTEM with nothing left open. */
int tf_relay_open(struct tf_relay *r, int fd, const struct telefork_options *options,
	struct tf_relay_ends *ends, struct tf_err *e);

/* Those of ends that are open. */
void tf_relay_close_ends(struct tf_relay_ends *ends);

/* Relays until the copy has ended and the sender has everything, or the sender is gone. Then the
 * copy and its process group are dead. Leaves the copy to be reaped. */
void tf_relay_run(struct tf_relay *r);

/* Our ends. */
void tf_relay_close(struct tf_relay *r);

#endif
