/* SPDX-License-Identifier: MIT */
/* What this host allows. */
#ifndef TF_HARNESS_HOST_H
#define TF_HARNESS_HOST_H

#include <stdbool.h>

/* Whether programs that telebed starts on this host can be looked at from outside, by telefork and
 * its witness; else why not, and what helps. */
bool tf_host_looks(char why[static 256]);

#endif
