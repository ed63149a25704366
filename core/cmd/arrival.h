/* SPDX-License-Identifier: MIT */
/*
 * The receiver's half of a move: what it knows of one that arrives stands in its journal, and every
 * question about it is answered from there. Whoever renames the record of a prepared copy decides:
 * to "committed", and it runs; to "gone", and it never does.
 */
#ifndef TF_CMD_ARRIVAL_H
#define TF_CMD_ARRIVAL_H

#include "core/cmd/journal.h"
#include "core/restore/pad.h"

struct tf_arrival {
	struct tf_journal journal;
	char id[TF_MOVE_ID_TEXT + 1];
	char from[TF_ADDRESS_TEXT], to[TF_ADDRESS_TEXT];
	struct tf_mark mark; /* for tf_pad_prepare() */
	int held;            /* -1: nothing is recorded */
	pid_t child;         /* that is recorded */
};

/* Before anything is received: whether this move can be recorded. 0, _INVAL (it was made before),
 * _SYSTEM. tf_arrival_end() in either case. */
int tf_arrival_begin(struct tf_arrival *a, const uint8_t id[static TF_MOVE_ID], struct tf_err *e);

/* The copy is held: records that, if a->mark has not when it began to take rounds: its disk need
 * not be waited for then while the original stands, unless it is another process now. 0 or _SYSTEM.
 */
int tf_arrival_prepared(struct tf_arrival *a, const struct tf_pad *pad, struct tf_err *e);

/* The copy was let go, and is whole. */
void tf_arrival_running(struct tf_arrival *a);

/* Post-copy: it ran, but is not whole, and was ended. */
void tf_arrival_lost(struct tf_arrival *a);

/* Something failed, after tf_arrival_prepared() or before: decides that the copy is gone, and ends
 * it. False if it runs by now. */
bool tf_arrival_undo(struct tf_arrival *a, struct tf_pad *pad);

/* Lets go of its record; what that says stays. */
void tf_arrival_end(struct tf_arrival *a);

/* What became of a move: decided, if it was not. *ret_pid: of the copy. Its enum tf_outcome, or
 * _SYSTEM. */
int tf_arrival_settle(const uint8_t id[static TF_MOVE_ID], int32_t *ret_pid, struct tf_err *e);

/* Ends what a receiver that was killed left half done. */
void tf_arrival_recover(void);

#endif
