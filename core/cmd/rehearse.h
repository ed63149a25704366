/* SPDX-License-Identifier: MIT */
/*
 * Under QEMU user mode code is translated where it runs for the first time, which takes longer than
 * running it, and a fork has what its parent has. So a receiver receives itself once before it
 * waits for others: its sessions find translated what they are about to do.
 */
#ifndef TF_CMD_REHEARSE_H
#define TF_CMD_REHEARSE_H

#include "core/telefork.h"

/* Natively nothing. What goes wrong has no consequence. */
void tf_rehearse(const struct telefork_options *options);

#endif
