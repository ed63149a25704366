/* SPDX-License-Identifier: MIT */
/* The compressions of extents, by libraries. Not for a forked child: they allocate. */
#ifndef TF_PACK_CODEC_H
#define TF_PACK_CODEC_H

#include <stdbool.h>
#include <stddef.h>

enum tf_codec { TF_CODEC_NONE, TF_CODEC_LZ4, TF_CODEC_ZSTD, TF_CODECS };

struct tf_codec_state; /* what compressing and its reverse work with; one for each thread */

/* NULL: out of memory. NULL may be freed. */
struct tf_codec_state *tf_codec_new(void);
void tf_codec_free(struct tf_codec_state *s);

/* "none", "lz4", "zstd". */
const char *tf_codec_name(enum tf_codec codec);

/* Compresses n bytes into at most room bytes. How many they are; 0: there was not enough room. */
size_t tf_codec_pack(struct tf_codec_state *s, enum tf_codec codec, void *to, size_t room,
	const void *from, size_t n);

/* The reverse, of hostile bytes: whether they are exactly n bytes, compressed. Never writes more
 * than those. */
bool tf_codec_unpack(struct tf_codec_state *s, enum tf_codec codec, void *to, size_t n,
	const void *from, size_t size);

#endif
