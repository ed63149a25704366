/* SPDX-License-Identifier: MIT */
/* The sender's half of a move that did not come to its end: asking what became of it. */
#ifndef TF_CMD_SETTLE_H
#define TF_CMD_SETTLE_H

#include "core/cmd/journal.h"
#include "core/image/stream.h"

/* Asks the receiver of a move for its outcome, on a connection of its own; it decides if it had
 * not. reply->outcome, or an error: nobody can be asked, or a receiver that cannot tell. */
int tf_settle_ask(const struct tf_record *r, int idle_ms, struct tf_reply *reply, struct tf_err *e);

#endif
