/* SPDX-License-Identifier: MIT */
/*
 * One snapshot for many receivers: a chain. The sender sends to the first, and each passes on to
 * the next what it reads, as it reads it; so every link carries the image once.
 *
 *   sender  --->  receiver 1  --->  receiver 2  --->  ...      greeting, chain head, stream
 *           <---              <---              <---           an answer of each, with its index
 *
 * Who cannot be reached is passed over. Whoever stands behind a link that breaks while memory is on
 * the way is told to have failed: the stream cannot be had again, and nothing is ever sent twice.
 */
#ifndef TF_MANY_H
#define TF_MANY_H

#include "core/channel/channel.h"
#include "core/image/stream.h"

#define TF_CHAIN_MAX  1024u /* receivers */
#define TF_CHAIN_TEXT 256   /* of what a receiver says, the beginning */

/* Follows the greeting of TF_ERRAND_CHAIN; then size bytes: the addresses of the first and of those
 * that come behind it, each with a zero at its end. */
struct tf_chain_head {
	uint32_t index; /* of the first, counted from 1 */
	uint32_t n;     /* addresses */
	uint32_t size, reserved;
	struct tf_zygote_name zygote; /* they are kept under that name; "": they run */
};

struct tf_chain {
	struct tf_chain_head head;
	char *uris; /* head.size bytes */
};

/* Of the receiver with that index; reply.message_size bytes of text follow. */
struct tf_chain_reply {
	uint32_t index, reserved;
	struct tf_reply reply;
};

/* The k-th address. */
const char *tf_chain_uri(const struct tf_chain *c, uint32_t k);

/* The rest of the chain, without its first. */
void tf_chain_step(struct tf_chain *c);

/* Reads a head that came from a sender; c->uris is the caller's to free. 0, _PROTOCOL, _NOMEM. */
int tf_chain_read(struct tf_io *io, struct tf_chain *c, struct tf_err *e);

/* Dials the first of c that can be reached, and tells it what stands behind it. c is then what is
 * left, that one first; of each that was passed over `failed` is told. A descriptor, or an error if
 * none is left. */
int tf_chain_dial(struct tf_chain *c, const struct telefork_options *options,
	void (*failed)(void *ctx, uint32_t index, const struct tf_err *why), void *ctx,
	struct tf_err *e);

/* One answer; message has TELEFORK_MESSAGE_MAX bytes. */
int tf_chain_reply_write(
	struct tf_io *io, uint32_t index, const struct tf_reply *r, const char *message);
int tf_chain_reply_read(
	struct tf_io *io, uint32_t *ret_index, struct tf_reply *r, char *message, struct tf_err *e);

#endif
