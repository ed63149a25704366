/* SPDX-License-Identifier: MIT */
/*
 * The process behind a link, seen from link.c: what it is told and what it answers.
 */
#ifndef TF_QEMU_RELAY_H
#define TF_QEMU_RELAY_H

#include "qemu/link.h"

enum tf_relay_op {
	TF_RELAY_STATS,
	TF_RELAY_FAULTS,
};

/* One datagram on the control socket; the answer to each is a struct tf_link_stats. */
struct tf_relay_order {
	uint32_t op;
	uint32_t reserved;
	struct tf_link_faults faults;
};

/*
 * Relay between the guests that connect to the listening socket @listener, until the other
 * end of @control is closed. Runs in a forked child with no other descriptors; never returns.
 */
void tf_relay_run(int listener, int control) __attribute__((noreturn));

#endif
