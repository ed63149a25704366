/* SPDX-License-Identifier: MIT */
/* Standard input and output, two pipes, as one descriptor: what sshd gives a command. */
#ifndef TF_CMD_PUMP_H
#define TF_CMD_PUMP_H

#include "core/base/err.h"

/*
 * Forks. In the child: returns a socket; what comes from standard input can be read from it, what
 * is written to it goes to standard output, and both of those are /dev/null from here on. The
 * parent passes the bytes on until nobody holds the socket any more, and exits as the child did.
 * _SYSTEM if that cannot be had.
 */
int tf_pump_stdio(struct tf_err *e);

#endif
