/* SPDX-License-Identifier: MIT */
/*
 * The sender's side of packed extents (unpack.h): what the receiver has already is not sent, and
 * the rest is compressed where that is faster than sending it. Not for a forked child: allocates.
 */
#ifndef TF_PACK_PACKER_H
#define TF_PACK_PACKER_H

#include "core/image/stream.h"
#include "core/pack/codec.h"

enum tf_wish { TF_WISH_AUTO, TF_WISH_NEVER, TF_WISH_ALWAYS };

/* What the user wants; auto: where it is faster. */
struct tf_pack_wishes {
	enum tf_wish compress; /* TF_WISH_ALWAYS: by that codec */
	enum tf_codec codec;
	enum tf_wish store;
};

/* "auto", "none", "lz4" or "zstd", and "auto", "never" or "always". False: it is none of them. */
bool tf_pack_parse_compress(struct tf_pack_wishes *w, const char *text);
bool tf_pack_parse_store(struct tf_pack_wishes *w, const char *text);

/* What came of it, in bytes of memory. */
struct tf_pack_counts {
	uint64_t listed, known;                 /* hashed; there already */
	uint64_t in[TF_CODECS], out[TF_CODECS]; /* compressed: before and after */
};

/* For a receiver with those offers (TF_OFFER_*). *ret, to be freed in any case: NULL if nothing is
 * to be packed. 0, _NOMEM, or _UNSUPPORTED: it is to be always, and the receiver does not offer it.
 */
int tf_packer_new(const struct tf_pack_wishes *wishes, uint32_t offers, struct tf_packer **ret,
	struct tf_err *e);
void tf_packer_free(struct tf_packer *p);

/* NULL: of nothing. */
struct tf_pack_counts tf_packer_counts(const struct tf_packer *p);

#endif
