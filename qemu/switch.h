/* SPDX-License-Identifier: MIT */
/*
 * The pure half of a link: which port an Ethernet address was last seen on, and how the byte
 * stream of a QEMU "stream" netdev is cut into frames.
 */
#ifndef TF_QEMU_SWITCH_H
#define TF_QEMU_SWITCH_H

#include <stddef.h>
#include <stdint.h>

#define TF_LINK_ADDRESSES 256         /* remembered; the oldest gives way */
#define TF_LINK_MAX_FRAME (68 * 1024) /* a virtio-net frame with offloads, and some */
#define TF_LINK_MIN_FRAME 14          /* an Ethernet header */
#define TF_LINK_FLOOD     (-1)

struct tf_link_table {
	struct tf_link_address {
		uint8_t mac[6];
		int port;
		uint64_t seen; /* 0: unused */
	} entries[TF_LINK_ADDRESSES];
	uint64_t clock;
};

/* Remember that @mac was seen on @port. Group addresses are not learnt. */
void tf_link_learn(struct tf_link_table *t, const uint8_t mac[static 6], int port);

/* The port of @mac, or TF_LINK_FLOOD for a group address or an unknown one. */
int tf_link_lookup(const struct tf_link_table *t, const uint8_t mac[static 6]);

/* Forget all addresses on @port (its guest is gone). */
void tf_link_forget(struct tf_link_table *t, int port);

/*
 * Look at @len bytes of a stream. > 0: the first frame's length, which follows the 4-byte
 * prefix. 0: more bytes are needed. -EBADMSG: a length out of bounds, the stream is lost.
 */
int tf_link_next_frame(const uint8_t *data, size_t len);

#endif
