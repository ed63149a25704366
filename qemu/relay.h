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

/* What both kinds have. */
struct tf_relay {
	int listener, control;
	int struck; /* eventfd: the moment has come */
	struct tf_link_faults faults;
	struct tf_link_stats stats;
	bool held;               /* since the moment; ends with the next order */
	enum tf_link_break dead; /* a break for good has come: which */
};

/* Does what the creator says; *@ret_changed: there are other faults now. Ends the process once the
 * creator is gone. */
void tf_relay_obey(struct tf_relay *r, bool *ret_changed);

/* The moment has come, as side @from was about to say more: tells the creator. There is none after
 * it until the next order. What was to happen to the conversation is returned. */
enum tf_link_break tf_relay_strike(struct tf_relay *r, const struct tf_link_talk *t, int from);

/*
 * Relay between the guests that connect to the listening socket, until the other end of the control
 * socket is closed. Runs in a forked child with no other descriptors.
 */
_Noreturn void tf_relay_run(struct tf_relay *r);

/* The same for TCP connections, which go on to 127.0.0.1:@to (stream.c). */
_Noreturn void tf_relay_run_streams(struct tf_relay *r, unsigned to);

#endif
