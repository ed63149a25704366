/* SPDX-License-Identifier: MIT */
/* See packing.h. */
#include "core/cmd/packing.h"
#include "core/cmd/progress.h"

enum { KEY_COMPRESS = 1024, KEY_STORE };

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct tf_pack_wishes *w = state->input;

	switch (key) {
	case KEY_COMPRESS:
		if (!tf_pack_parse_compress(w, arg))
			argp_error(state, "--compress %s: auto, none, lz4 or zstd", arg);
		return 0;
	case KEY_STORE:
		if (!tf_pack_parse_store(w, arg))
			argp_error(state, "--store %s: auto, never or always", arg);
		return 0;
	}
	return ARGP_ERR_UNKNOWN;
}

static const struct argp_option options[] = {
	{"compress", KEY_COMPRESS, "HOW", 0,
		"Compress memory: auto (where that is faster), none, lz4 or zstd", 0},
	{"store", KEY_STORE, "WHEN", 0,
		"Send only pages that the receiver has not kept: auto (where that is faster), never "
		"or always",
		0},
	{0},
};

static const struct argp argp = {.options = options, .parser = parse};

const struct argp_child tf_packing_children[] = {{.argp = &argp}, {0}};

void tf_packing_tell(FILE *out, const struct tf_packer *packer)
{
	struct tf_pack_counts n = tf_packer_counts(packer);
	char before[24], after[24];

	if (n.known)
		fprintf(out, ", %s were there", tf_bytes_text(n.known, before));
	for (unsigned i = 0; i < TF_CODECS; i++)
		if (n.in[i])
			fprintf(out, ", %s by %s: %s", tf_bytes_text(n.in[i], before),
				tf_codec_name((enum tf_codec)i), tf_bytes_text(n.out[i], after));
}
