/* SPDX-License-Identifier: MIT */
/*
 * A link is where programs talk through a relay process, forked from the caller, that does to them
 * what qemu/faults.h says, under a seed. It ends with its creator. There are two kinds:
 *
 * - an Ethernet between guests: each connects to the relay's unix socket (-netdev stream, a frame
 * is a 4-byte big-endian length and the Ethernet frame). It is a learning switch with bounded
 * queues.
 * - TCP on loopback: connections to the relay's port go on to another one. What is lost comes 200
 * ms later, with all that is behind it, as TCP makes of it; reordering and duplicates do not show.
 */
#ifndef TF_QEMU_LINK_H
#define TF_QEMU_LINK_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "qemu/error.h"
#include "qemu/faults.h"

struct tf_link;

struct tf_link_stats {
	uint64_t frames; /* received, or pieces of streams */
	uint64_t bytes;
	uint64_t flooded;    /* of those: sent to all, the address being unknown or a group */
	uint64_t dropped;    /* by a fault */
	uint64_t duplicated; /* by a fault */
	uint64_t overflowed; /* because a receiver's queue was full */
	uint32_t guests;     /* connected now */
	uint32_t struck;     /* moments that came */
	int32_t message;     /* the one in which the last moment came */
	uint32_t reserved;
};

/*
 * Start a relay whose socket is @path (at most 107 bytes; must not exist). Call it before the
 * guests that use it. -ENAMETOOLONG, -EADDRINUSE, or what socket(2) and fork(2) say.
 */
int tf_link_start(const char *path, struct tf_link **ret_link, struct tf_vm_error *err);

/* Start a relay for TCP connections to 127.0.0.1:@to, which need not be listened at yet. */
int tf_link_start_stream(unsigned to, struct tf_link **ret_link, struct tf_vm_error *err);

/* The port at 127.0.0.1 where a relay for TCP listens. */
unsigned tf_link_port(const struct tf_link *link);

/* The socket's path, for struct tf_vm_config.link_path. */
const char *tf_link_path(const struct tf_link *link);

/* Pid of the relay. */
pid_t tf_link_pid(const struct tf_link *link);

/* Polls readable from when the moment of the last order has come until the next order. */
int tf_link_struck_fd(const struct tf_link *link);

/* Change the faults; in force when it returns. -EPIPE if the relay is gone. */
int tf_link_set_faults(
	struct tf_link *link, const struct tf_link_faults *faults, struct tf_vm_error *err);

/* The counters so far. -EPIPE if the relay is gone. */
int tf_link_stats(struct tf_link *link, struct tf_link_stats *ret_stats, struct tf_vm_error *err);

/* End the relay, remove the socket, free. NULL is fine. */
void tf_link_free(struct tf_link *link);

#endif
