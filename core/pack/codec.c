/* SPDX-License-Identifier: MIT */
/* See codec.h. The fast levels: others would be slower than most links. */
#include "core/pack/codec.h"

#include <lz4.h>
#include <stdlib.h>
#include <zstd.h>

#define ZSTD_LEVEL 1

struct tf_codec_state {
	ZSTD_CCtx *pack;
	ZSTD_DCtx *unpack;
	void *lz4;
};

struct tf_codec_state *tf_codec_new(void)
{
	struct tf_codec_state *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	s->pack = ZSTD_createCCtx();
	s->unpack = ZSTD_createDCtx();
	s->lz4 = malloc((size_t)LZ4_sizeofState());
	if (s->pack && s->unpack && s->lz4)
		return s;
	tf_codec_free(s);
	return NULL;
}

void tf_codec_free(struct tf_codec_state *s)
{
	if (!s)
		return;
	ZSTD_freeCCtx(s->pack);
	ZSTD_freeDCtx(s->unpack);
	free(s->lz4);
	free(s);
}

const char *tf_codec_name(enum tf_codec codec)
{
	static const char *const names[] = {"none", "lz4", "zstd"};

	return names[codec];
}

size_t tf_codec_pack(struct tf_codec_state *s, enum tf_codec codec, void *to, size_t room,
	const void *from, size_t n)
{
	size_t done;

	if (codec == TF_CODEC_LZ4)
		return (size_t)LZ4_compress_fast_extState(s->lz4, from, to, (int)n, (int)room, 1);
	done = ZSTD_compressCCtx(s->pack, to, room, from, n, ZSTD_LEVEL);
	return ZSTD_isError(done) ? 0 : done;
}

bool tf_codec_unpack(struct tf_codec_state *s, enum tf_codec codec, void *to, size_t n,
	const void *from, size_t size)
{
	if (codec == TF_CODEC_LZ4)
		return LZ4_decompress_safe(from, to, (int)size, (int)n) == (int)n;
	return ZSTD_decompressDCtx(s->unpack, to, n, from, size) == n;
}
