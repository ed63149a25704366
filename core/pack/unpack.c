/* SPDX-License-Identifier: MIT */
/* See unpack.h. */
#include "core/pack/unpack.h"
#include "core/base/crc32c.h"
#include "core/channel/channel.h"
#include "core/pack/codec.h"

#include <stdlib.h>
#include <string.h>

#define PAGES (TF_EXTENT_MAX / TF_STORE_PAGE) /* of one list, at most */

/* A list whose rest has not come. */
struct waiting {
	struct tf_extent x; /* size: of the bytes, without how they are packed */
	uint8_t lacks[sizeof(((struct tf_lacks *)0)->lacks)];
	struct tf_hash hash[PAGES];
	uint16_t twin[PAGES]; /* this page comes with that one: its place; 0: none */
	uint8_t *bytes;       /* TF_EXTENT_MAX: what is there already */
};

/* Pages that were said to be lacking, by a part of their hash: they are not asked for twice. A
 * place is TF_PACK_WINDOW's times PAGES, the page, and 1. */
#define COMING 4096u

struct unpacking {
	struct tf_unpacker base;
	struct tf_store *store;
	struct tf_codec_state *codec;
	struct tf_io *from;
	tf_take_extent *take;
	void *ctx;
	struct tf_err *e;
	bool over;
	unsigned first, n; /* in window */
	struct waiting window[TF_PACK_WINDOW];
	uint16_t coming[COMING];
	uint8_t *in, *out; /* TF_EXTENT_MAX each */
};

uint32_t tf_unpack_offers(const struct tf_store *store)
{
	return TF_OFFER_LZ4 | TF_OFFER_ZSTD | (store ? TF_OFFER_STORE : 0);
}

static int hostile(struct unpacking *u, const char *what, const struct tf_extent *x)
{
	return tf_fail(u->e, TELEFORK_E_IMAGE, "packed extent at byte %llu: %s",
		(unsigned long long)x->offset, what);
}

/* --- lists --- */

static bool is_lacking(const struct waiting *w, uint32_t page)
{
	return w->lacks[page / 8] >> page % 8 & 1;
}

static int answer(struct unpacking *u, const struct waiting *w)
{
	struct tf_lacks l = {.magic = TF_LACKS_MAGIC, .offset = w->x.offset, .size = w->x.size};

	memcpy(l.lacks, w->lacks, sizeof(l.lacks));
	l.crc = tf_crc32c(0, &l, offsetof(struct tf_lacks, crc));
	return tf_io_write(u->from, &l, sizeof(l), u->e);
}

static uint16_t *coming_at(struct unpacking *u, const struct tf_hash *hash)
{
	uint16_t bits;

	memcpy(&bits, hash, sizeof(bits));
	return &u->coming[bits % COMING];
}

/* Whether a list that waits for its rest, this one included, has that page already. 0: none. */
static uint16_t find_twin(struct unpacking *u, const struct tf_hash *hash)
{
	uint16_t place = *coming_at(u, hash);
	unsigned slot = place ? (place - 1u) / PAGES : 0, page = place ? (place - 1u) % PAGES : 0;
	const struct waiting *w = &u->window[slot];

	if (!place || (slot + TF_PACK_WINDOW - u->first) % TF_PACK_WINDOW > u->n ||
		!is_lacking(w, page) || memcmp(&w->hash[page], hash, sizeof(*hash)))
		return 0;
	return place;
}

/* What is to be done about a page that is told of in the list that comes in now. */
static void look_for(struct unpacking *u, struct waiting *w, uint32_t page)
{
	const struct tf_hash *hash = &w->hash[page];

	w->twin[page] = 0;
	if (tf_store_get(u->store, hash, w->bytes + (size_t)page * TF_STORE_PAGE))
		return;
	w->twin[page] = find_twin(u, hash);
	if (w->twin[page])
		return;
	w->lacks[page / 8] |= (uint8_t)(1u << page % 8);
	*coming_at(u, hash) = (uint16_t)((w - u->window) * PAGES + page + 1);
}

/* The oldest list is whole: its pages to where others wait for them. */
static void serve_twins(struct unpacking *u)
{
	for (unsigned k = 0; k < u->n; k++) {
		struct waiting *w = &u->window[(u->first + k) % TF_PACK_WINDOW];

		for (uint32_t i = 0; i < w->x.size / TF_STORE_PAGE; i++) {
			if (!w->twin[i] || (w->twin[i] - 1u) / PAGES != u->first)
				continue;
			memcpy(w->bytes + (size_t)i * TF_STORE_PAGE,
				u->window[u->first].bytes +
					(size_t)((w->twin[i] - 1u) % PAGES) * TF_STORE_PAGE,
				TF_STORE_PAGE);
			w->twin[i] = 0;
		}
	}
}

static int take_list(struct unpacking *u, const struct tf_extent *x, uint32_t size)
{
	struct waiting *w = &u->window[(u->first + u->n) % TF_PACK_WINDOW];
	uint32_t pages = size / TF_STORE_PAGE;
	int rc;

	if (!u->store)
		return hostile(u, "a list of pages, for which there is no store here", x);
	if (size % TF_STORE_PAGE || u->n == TF_PACK_WINDOW)
		return hostile(u, "a list of half a page, or one too many", x);
	if (!w->bytes && !(w->bytes = malloc(TF_EXTENT_MAX)))
		return tf_fail(u->e, TELEFORK_E_NOMEM, "out of memory for a list of pages");
	rc = tf_io_read(u->from, w->hash, pages * sizeof(*w->hash), u->e);
	if (rc)
		return rc;
	if (x->crc != tf_hash_crc(x->offset, w->hash, pages))
		return tf_fail(u->e, TELEFORK_E_CHECKSUM,
			"the list of pages at byte %llu arrived damaged",
			(unsigned long long)x->offset);
	w->x = (struct tf_extent){.offset = x->offset, .size = size};
	memset(w->lacks, 0, sizeof(w->lacks));
	for (uint32_t i = 0; i < pages; i++)
		look_for(u, w, i);
	u->n++;
	return answer(u, w);
}

/* bytes: the lacking pages. */
static int fill_in(struct unpacking *u, struct waiting *w, const uint8_t *bytes)
{
	for (uint32_t i = 0; i < w->x.size / TF_STORE_PAGE; i++) {
		struct tf_hash is;

		if (!is_lacking(w, i))
			continue;
		tf_hash_page(&is, bytes);
		if (memcmp(&is, &w->hash[i], sizeof(is)))
			return hostile(u, "a page is not the one that was announced", &w->x);
		tf_store_put(u->store, &is, bytes);
		memcpy(w->bytes + (size_t)i * TF_STORE_PAGE, bytes, TF_STORE_PAGE);
		bytes += TF_STORE_PAGE;
	}
	return 0;
}

/* --- bytes --- */

/* How many bytes of a packed extent follow, as it says. */
static int check_count(struct unpacking *u, const struct tf_extent *x, uint32_t size,
	enum tf_codec codec, uint32_t n)
{
	if (codec >= TF_CODECS || (codec ? n >= size : n != size))
		return hostile(u, "more bytes than there can be, or in a way that is not known", x);
	return 0;
}

/* They are n bytes at `in`; size bytes, in the end, at *ret. */
static int unpack(struct unpacking *u, const struct tf_extent *x, uint32_t size,
	enum tf_codec codec, uint8_t *in, uint32_t n, uint8_t **ret)
{
	*ret = codec ? u->out : in;
	if (codec && !tf_codec_unpack(u->codec, codec, u->out, size, in, n))
		return tf_fail(u->e, TELEFORK_E_CHECKSUM,
			"the extent at byte %llu arrived damaged: it is no %s of %u bytes",
			(unsigned long long)x->offset, tf_codec_name(codec), size);
	return 0;
}

/* What follows a packed extent's header. */
static int take_bytes(struct unpacking *u, const struct tf_extent *x, uint32_t size,
	enum tf_codec codec, uint8_t **ret)
{
	uint32_t n;
	int rc = tf_io_read(u->from, &n, sizeof(n), u->e);

	if (!rc)
		rc = check_count(u, x, size, codec, n);
	if (!rc)
		rc = tf_io_read(u->from, u->in, n, u->e);
	return rc ? rc : unpack(u, x, size, codec, u->in, n, ret);
}

static int take_rest(
	struct unpacking *u, const struct tf_extent *x, uint32_t size, enum tf_codec codec)
{
	struct waiting *w = &u->window[u->first];
	uint32_t lacking = 0;
	uint8_t *bytes;
	int rc;

	if (!u->n || x->offset != w->x.offset || size != w->x.size)
		return hostile(u, "pages that no list has announced", x);
	for (uint32_t i = 0; i < size / TF_STORE_PAGE; i++)
		lacking += is_lacking(w, i);
	rc = take_bytes(u, x, lacking * TF_STORE_PAGE, codec, &bytes);
	if (!rc)
		rc = fill_in(u, w, bytes);
	if (rc)
		return rc;
	serve_twins(u);
	u->first = (u->first + 1) % TF_PACK_WINDOW;
	u->n--;
	w->x.crc = x->crc;
	return u->take(u->ctx, &w->x, w->bytes);
}

static int take_extent(
	struct unpacking *u, const struct tf_extent *x, uint32_t size, enum tf_codec codec)
{
	struct tf_extent plain = {.offset = x->offset, .size = size, .crc = x->crc};
	uint8_t *bytes = u->in;
	int rc = codec ? take_bytes(u, x, size, codec, &bytes)
		       : tf_io_read(u->from, bytes, size, u->e);

	return rc ? rc : u->take(u->ctx, &plain, bytes);
}

static int take_one(struct unpacking *u)
{
	struct tf_extent x;
	int rc = tf_io_read(u->from, &x, sizeof(x), u->e);
	uint32_t size = x.size & ((1u << TF_PACK_SHIFT) - 1), how = x.size >> TF_PACK_SHIFT;

	if (rc)
		return rc;
	if (x.offset == TF_PACKED_OFFSET || x.offset == TF_TRAILER_OFFSET) {
		if (x.offset == TF_TRAILER_OFFSET || u->n)
			return hostile(u, "the section ends too early", &x);
		u->over = true;
		return x.size ? hostile(u, "a section in a section", &x) : 0;
	}
	if (!size || size > TF_EXTENT_MAX)
		return hostile(u, "an impossible size", &x);
	if (how == TF_PACK_LIST)
		return take_list(u, &x, size);
	if (how & TF_PACK_REST)
		return take_rest(u, &x, size, (enum tf_codec)(how & ~TF_PACK_REST));
	return take_extent(u, &x, size, (enum tf_codec)how);
}

/* What it works with, once there is something to do. */
static int prepare(struct unpacking *u)
{
	if (u->codec)
		return 0;
	u->in = malloc(TF_EXTENT_MAX);
	u->out = malloc(TF_EXTENT_MAX);
	u->codec = u->in && u->out ? tf_codec_new() : NULL;
	return u->codec ? 0 : tf_fail(u->e, TELEFORK_E_NOMEM, "out of memory for unpacking");
}

static int begin(struct unpacking *u, tf_take_extent *take, void *ctx, struct tf_err *e)
{
	u->take = take;
	u->ctx = ctx;
	u->e = e;
	return prepare(u);
}

static int run(struct tf_unpacker *base, struct tf_io *from, tf_take_extent *take, void *ctx,
	struct tf_err *e)
{
	struct unpacking *u = (struct unpacking *)base;
	int rc = begin(u, take, ctx, e);

	u->from = from;
	for (u->over = false; !rc && !u->over;)
		rc = take_one(u);
	return rc;
}

/* As take_extent(), of bytes that are there. */
static int64_t one(struct tf_unpacker *base, uint8_t *at, size_t there, tf_take_extent *take,
	void *ctx, struct tf_err *e)
{
	struct unpacking *u = (struct unpacking *)base;
	struct tf_extent x;
	enum tf_codec codec;
	uint32_t n, head = sizeof(x);
	uint8_t *bytes;
	int rc = begin(u, take, ctx, e);

	if (rc || there < sizeof(x))
		return rc;
	memcpy(&x, at, sizeof(x));
	codec = (enum tf_codec)(x.size >> TF_PACK_SHIFT);
	n = x.size &= (1u << TF_PACK_SHIFT) - 1;
	if (!x.size || x.size > TF_EXTENT_MAX)
		return hostile(u, "an impossible size", &x);
	if (codec != TF_CODEC_NONE) {
		head += sizeof(n);
		if (there < head)
			return 0;
		memcpy(&n, at + sizeof(x), sizeof(n));
		rc = check_count(u, &x, x.size, codec, n);
	}
	if (rc || there - head < n)
		return rc;
	rc = unpack(u, &x, x.size, codec, at + head, n, &bytes);
	if (!rc)
		rc = u->take(u->ctx, &x, bytes);
	return rc ? rc : (int64_t)head + n;
}

struct tf_unpacker *tf_unpacker_new(struct tf_store *store)
{
	struct unpacking *u = calloc(1, sizeof(*u));

	if (!u)
		return NULL;
	u->base.run = run;
	u->base.one = one;
	u->store = store;
	return &u->base;
}

void tf_unpacker_free(struct tf_unpacker *base)
{
	struct unpacking *u = (struct unpacking *)base;

	if (!u)
		return;
	for (unsigned i = 0; i < TF_PACK_WINDOW; i++)
		free(u->window[i].bytes);
	tf_codec_free(u->codec);
	free(u->in);
	free(u->out);
	free(u);
}
