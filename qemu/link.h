/* SPDX-License-Identifier: MIT */
/*
 * A link is an Ethernet between guests: a relay process, forked from the caller, to whose unix
 * socket each guest connects (-netdev stream, a frame is a 4-byte big-endian length and the
 * Ethernet frame). It is a learning switch with bounded queues, and the place where loss,
 * delay, reordering and partition happen, under a seed. It ends with its creator.
 */
#ifndef TF_QEMU_LINK_H
#define TF_QEMU_LINK_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "qemu/error.h"

struct tf_link;

/* What the relay does to every frame; all zero is a perfect link. */
struct tf_link_faults {
	uint64_t seed;        /* of the generator that decides about loss and reordering */
	uint32_t loss_ppm;    /* frames dropped, parts per million */
	uint32_t reorder_ppm; /* frames held back for @delay_us more (1 ms if that is 0) */
	uint32_t delay_us;    /* added to every frame */
	bool cut;             /* partition: every frame is dropped */
};

struct tf_link_stats {
	uint64_t frames; /* received from guests */
	uint64_t bytes;
	uint64_t flooded;    /* of those: sent to all, the address being unknown or a group */
	uint64_t dropped;    /* by a fault */
	uint64_t overflowed; /* because a receiver's queue was full */
	uint32_t guests;     /* connected now */
	uint32_t reserved;
};

/*
 * Start a relay whose socket is @path (at most 107 bytes; must not exist). Call it before the
 * guests that use it. -ENAMETOOLONG, -EADDRINUSE, or what socket(2) and fork(2) say.
 */
int tf_link_start(const char *path, struct tf_link **ret_link, struct tf_vm_error *err);

/* The socket's path, for struct tf_vm_config.link_path. */
const char *tf_link_path(const struct tf_link *link);

/* Pid of the relay. */
pid_t tf_link_pid(const struct tf_link *link);

/* Change the faults; in force when it returns. -EPIPE if the relay is gone. */
int tf_link_set_faults(
	struct tf_link *link, const struct tf_link_faults *faults, struct tf_vm_error *err);

/* The counters so far. -EPIPE if the relay is gone. */
int tf_link_stats(struct tf_link *link, struct tf_link_stats *ret_stats, struct tf_vm_error *err);

/* End the relay, remove the socket, free. NULL is fine. */
void tf_link_free(struct tf_link *link);

#endif
