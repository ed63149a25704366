/* SPDX-License-Identifier: MIT */
/* A receiver in a chain (core/many.h): what comes goes on to the next, too. */
#ifndef TF_CMD_FORWARD_H
#define TF_CMD_FORWARD_H

#include "core/many.h"

/* Reads what stands behind the greeting, reaches the next receiver, and leaves a process between
 * that passes everything on. Returns the descriptor to receive from in the place of fd, which is
 * closed; or an error. *ret: the chain, this receiver first. */
int tf_forward_begin(
	int fd, const struct telefork_options *options, struct tf_chain *ret, struct tf_err *e);

#endif
