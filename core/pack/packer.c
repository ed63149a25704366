/* SPDX-License-Identifier: MIT */
/* See packer.h. Lists of hashes go some extents ahead of the pages, so that the line is not idle
 * while the receiver answers. */
#include "core/pack/packer.h"
#include "core/base/crc32c.h"
#include "core/channel/channel.h"
#include "core/pack/choose.h"
#include "core/pack/store.h"

#include <linux/sockios.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#define PAGES     (TF_EXTENT_MAX / TF_STORE_PAGE)
#define COUNTED   (TF_EXTENT_MAX + sizeof(uint32_t))
#define FEW_BYTES 32768u

/* A list that has gone, and what it stands for. */
struct waiting {
	struct tf_extent x;
	uint8_t *bytes; /* TF_EXTENT_MAX */
};

struct packing {
	struct tf_packer base;
	struct tf_pack_wishes wishes;
	struct tf_chooser choice;
	struct tf_codec_state *codec;
	struct tf_pack_counts counts;
	bool store;              /* the receiver has one */
	bool inside;             /* of a section */
	const struct tf_io *io;  /* that was looked at */
	uint64_t data;           /* bytes of memory that went, by whatever sink */
	unsigned first, waiting; /* in window */
	struct waiting window[TF_PACK_WINDOW];
	uint8_t *rest, *out; /* COUNTED each, the former behind its count */
	uint32_t used;       /* of out, by what is queued */
};

/* --- what the user wants --- */

bool tf_pack_parse_compress(struct tf_pack_wishes *w, const char *text)
{
	w->compress = !strcmp(text, "auto") ? TF_WISH_AUTO : TF_WISH_ALWAYS;
	for (unsigned i = 0; i < TF_CODECS; i++)
		if (!strcmp(text, tf_codec_name((enum tf_codec)i))) {
			w->codec = (enum tf_codec)i;
			w->compress = i ? TF_WISH_ALWAYS : TF_WISH_NEVER;
			return true;
		}
	return w->compress == TF_WISH_AUTO;
}

bool tf_pack_parse_store(struct tf_pack_wishes *w, const char *text)
{
	static const char *const names[] = {"auto", "never", "always"};

	for (unsigned i = 0; i < sizeof(names) / sizeof(*names); i++)
		if (!strcmp(text, names[i])) {
			w->store = (enum tf_wish)i;
			return true;
		}
	return false;
}

/* --- sections --- */

static int mark(struct packing *p, struct tf_sink *s, bool inside, struct tf_err *e)
{
	struct tf_extent x = {.offset = TF_PACKED_OFFSET, .size = inside};

	if (p->inside == inside)
		return 0;
	p->inside = inside;
	return tf_sink_queue(s, &x, NULL, 0, e);
}

/* x.size: of the bytes that it stands for; the count and n bytes follow, which stay. Where they are
 * few they go with others. */
static int write_packed(struct packing *p, struct tf_sink *s, struct tf_extent x, unsigned how,
	void *counted, uint32_t n, struct tf_err *e)
{
	int rc = mark(p, s, true, e);

	s->chain = tf_chain_crc(s->chain, x.crc);
	s->count++;
	s->data += x.size;
	x.size |= how << TF_PACK_SHIFT;
	memcpy(counted, &n, sizeof(n));
	if (!rc)
		rc = tf_sink_queue(s, &x, counted, (uint32_t)sizeof(n) + n, e);
	return rc || s->batch_bytes < FEW_BYTES ? rc : tf_sink_flush(s, e);
}

static void look(struct packing *p, const struct tf_sink *s)
{
	int unsent;

	if (p->io != s->io)
		tf_choose_anew(&p->choice);
	p->io = s->io;
	if (!tf_choose_looks(&p->choice, tf_now_ns()))
		return;
	if (!ioctl(s->io->fd, SIOCOUTQNSD, &unsent) || !ioctl(s->io->fd, SIOCOUTQ, &unsent))
		tf_choose_look(&p->choice, tf_now_ns(), s->io->sent, (uint32_t)unsent);
}

/* --- compression --- */

/* On work of ours: that others had the processor meanwhile says nothing of it. */
static uint64_t spent_ns(void)
{
	return tf_clock_ns(CLOCK_THREAD_CPUTIME_ID);
}

static enum tf_codec choose(struct packing *p, uint32_t n)
{
	return p->wishes.compress == TF_WISH_AUTO ? tf_choose_codec(&p->choice, p->data, n)
						  : p->wishes.codec;
}

/* What it works with, once there is something to do. */
static bool prepare_codec(struct packing *p)
{
	if (!p->out)
		p->out = malloc(COUNTED);
	if (!p->codec)
		p->codec = tf_codec_new();
	return p->out && p->codec;
}

/* In p->out for what n bytes may become, and a count, behind what is queued. */
static int make_room(struct packing *p, struct tf_sink *s, uint32_t n, struct tf_err *e)
{
	int rc = p->used + sizeof(n) + n > COUNTED ? tf_sink_flush(s, e) : 0;

	if (!s->n_batch)
		p->used = 0;
	return rc;
}

/* Into p->out, behind what is used of it and a count. How many bytes; *ret_codec is NONE, if it is
 * better to leave them as they are. */
static uint32_t compress(struct packing *p, const void *bytes, uint32_t n, enum tf_codec *ret_codec)
{
	enum tf_codec codec = choose(p, n);
	uint64_t start = spent_ns();
	uint32_t packed;

	*ret_codec = TF_CODEC_NONE;
	if (codec == TF_CODEC_NONE || !n || !prepare_codec(p))
		return n;
	packed = (uint32_t)tf_codec_pack(
		p->codec, codec, p->out + p->used + sizeof(n), n - 1, bytes, n);
	tf_choose_learn(&p->choice, codec, p->data, n, packed ? packed : n, spent_ns() - start);
	if (!packed)
		return n;
	p->counts.in[codec] += n;
	p->counts.out[codec] += packed;
	*ret_codec = codec;
	return packed;
}

/* One extent without a list. */
static int send_extent(struct packing *p, struct tf_sink *s, uint64_t offset, const uint8_t *bytes,
	uint32_t n, bool *ret_flushed, struct tf_err *e)
{
	struct tf_extent x = {.offset = offset, .size = n};
	enum tf_codec codec;
	uint32_t packed;
	int rc = make_room(p, s, n, e);

	if (rc)
		return rc;
	packed = compress(p, bytes, n, &codec);
	if (codec == TF_CODEC_NONE)
		return tf_sink_plain(s, offset, bytes, n, ret_flushed, e);
	x.crc = tf_extent_crc(offset, n, bytes);
	rc = write_packed(p, s, x, codec, p->out + p->used, packed, e);
	p->used += (uint32_t)sizeof(packed) + packed;
	if (ret_flushed && !s->n_batch)
		*ret_flushed = true;
	return rc;
}

/* --- lists --- */

/* What the receiver says to a list; it may say why it wants no more. */
static int read_lacks(
	struct tf_sink *s, const struct tf_extent *x, struct tf_lacks *l, struct tf_err *e)
{
	int rc = tf_sink_await(s, l->magic, e);

	if (!rc)
		rc = tf_io_read(
			s->io, (char *)l + sizeof(l->magic), sizeof(*l) - sizeof(l->magic), e);
	if (rc)
		return rc;
	if (memcmp(l->magic, TF_LACKS_MAGIC, sizeof(l->magic)) || l->offset != x->offset ||
		l->size != x->size || l->crc != tf_crc32c(0, l, offsetof(struct tf_lacks, crc)))
		return tf_fail(e, TELEFORK_E_PROTOCOL,
			"the receiver's answer to a list of pages is none, or is damaged");
	return 0;
}

static bool may_list(const struct packing *p)
{
	return p->store && p->wishes.store != TF_WISH_NEVER;
}

/* A receiver that gives up may have said why before it closed, behind its answers to lists; where
 * there are none it is for others to hear. */
static int hear_why(struct packing *p, struct tf_sink *s, int rc, struct tf_err *e)
{
	struct tf_err why = {0};
	struct tf_lacks l;

	if (rc != TELEFORK_E_CLOSED || !may_list(p))
		return rc;
	s->io->idle_ms = TF_WHY_MS;
	while (!read_lacks(s, &p->window[p->first].x, &l, &why))
		p->first = (p->first + 1) % TF_PACK_WINDOW;
	if (!why.code || why.code == TELEFORK_E_CLOSED)
		return rc;
	*e = why;
	return why.code;
}

/* The pages that it lacks, of the oldest list. */
static int send_rest(struct packing *p, struct tf_sink *s, struct tf_err *e)
{
	struct waiting *w = &p->window[p->first];
	struct tf_lacks l;
	enum tf_codec codec;
	uint32_t n = 0, packed;
	uint8_t *rest = p->rest + sizeof(n);
	int rc = read_lacks(s, &w->x, &l, e);

	if (!rc)
		rc = make_room(p, s, w->x.size, e);
	if (rc)
		return rc;
	p->first = (p->first + 1) % TF_PACK_WINDOW;
	p->waiting--;
	for (uint32_t i = 0; i < w->x.size / TF_STORE_PAGE; i++) {
		if (!(l.lacks[i / 8] >> i % 8 & 1))
			continue;
		memcpy(rest + n, w->bytes + (size_t)i * TF_STORE_PAGE, TF_STORE_PAGE);
		n += TF_STORE_PAGE;
	}
	p->counts.listed += w->x.size;
	p->counts.known += w->x.size - n;
	packed = compress(p, rest, n, &codec);
	rc = write_packed(
		p, s, w->x, TF_PACK_REST | codec, codec ? p->out + p->used : p->rest, packed, e);
	return rc ? rc : tf_sink_flush(s, e);
}

static int send_list(struct packing *p, struct tf_sink *s, uint64_t offset, const uint8_t *bytes,
	uint32_t n, struct tf_err *e)
{
	struct tf_extent head = {.offset = offset, .size = n | TF_PACK_LIST << TF_PACK_SHIFT};
	struct tf_hash hash[PAGES];
	struct iovec iov[2] = {{&head, sizeof(head)}, {hash, n / TF_STORE_PAGE * sizeof(*hash)}};
	struct waiting *w;
	uint64_t start;
	int rc = p->waiting == TF_PACK_WINDOW ? send_rest(p, s, e) : 0;

	w = &p->window[(p->first + p->waiting) % TF_PACK_WINDOW];
	if (!rc && !p->rest)
		p->rest = malloc(COUNTED);
	if (!rc && !w->bytes)
		w->bytes = malloc(TF_EXTENT_MAX);
	if (!rc && (!p->rest || !w->bytes))
		rc = tf_fail(e, TELEFORK_E_NOMEM, "out of memory for pages");
	if (!rc)
		rc = mark(p, s, true, e);
	if (!rc)
		rc = tf_sink_flush(s, e);
	if (rc)
		return rc;
	memcpy(w->bytes, bytes, n);
	start = spent_ns();
	for (uint32_t i = 0; i < n / TF_STORE_PAGE; i++)
		tf_hash_page(&hash[i], w->bytes + (size_t)i * TF_STORE_PAGE);
	tf_choose_hashed(&p->choice, n, spent_ns() - start);
	w->x = (struct tf_extent){offset, n, tf_extent_crc(offset, n, w->bytes)};
	head.crc = tf_hash_crc(offset, hash, n / TF_STORE_PAGE);
	s->io->heed = false; /* what it says early is not a refusal */
	p->waiting++;
	return tf_io_writev(s->io, iov, 2, e);
}

/* --- the packer --- */

/* Of small pieces the window holds so little that a line waits for answers. */
static bool is_listed(const struct packing *p, uint64_t n)
{
	if (!may_list(p) || n < TF_STORE_PAGE)
		return false;
	return p->wishes.store == TF_WISH_ALWAYS ||
	       (n >= TF_CHOOSE_SMALL && tf_choose_list(&p->choice));
}

/* How much goes in one way: what is left as it is by the sink's own measure, unless there is
 * something to be learned of the line. */
static uint32_t piece(struct packing *p, bool list, uint64_t size)
{
	uint32_t most = TF_EXTENT_MAX;

	if (!list && (p->data < TF_EXTENT_MAX || choose(p, TF_EXTENT_SIZE)))
		most = TF_EXTENT_SIZE;
	if (most > size)
		most = (uint32_t)size;
	return list ? most / TF_STORE_PAGE * TF_STORE_PAGE : most;
}

static int data(struct tf_packer *base, struct tf_sink *s, uint64_t offset, const void *bytes,
	uint64_t size, bool *ret_flushed, struct tf_err *e)
{
	struct packing *p = (struct packing *)base;
	const uint8_t *at = bytes;
	int rc = 0;

	while (size && !rc) {
		bool list;
		uint32_t most;

		look(p, s);
		list = is_listed(p, size);
		most = piece(p, list, size);
		rc = list ? send_list(p, s, offset, at, most, e)
			  : send_extent(p, s, offset, at, most, ret_flushed, e);
		p->data += most;
		at += most;
		offset += most;
		size -= most;
	}
	return hear_why(p, s, rc, e);
}

static int end(struct tf_packer *base, struct tf_sink *s, struct tf_err *e)
{
	struct packing *p = (struct packing *)base;
	int rc = tf_sink_flush(s, e);

	while (p->waiting && !rc)
		rc = send_rest(p, s, e);
	if (!rc)
		rc = mark(p, s, false, e);
	return hear_why(p, s, rc, e);
}

static int check_wishes(const struct tf_pack_wishes *w, uint32_t offers, struct tf_err *e)
{
	static const uint32_t offer[] = {0, TF_OFFER_LZ4, TF_OFFER_ZSTD};

	if (w->compress == TF_WISH_ALWAYS && !(offers & offer[w->codec]))
		return tf_fail(e, TELEFORK_E_UNSUPPORTED,
			"the receiver does not take %s: leave --compress away",
			tf_codec_name(w->codec));
	if (w->store == TF_WISH_ALWAYS && !(offers & TF_OFFER_STORE))
		return tf_fail(e, TELEFORK_E_UNSUPPORTED,
			"the receiver keeps no pages: leave --store away, or start it with "
			"telefork serve --store MIB");
	return 0;
}

static unsigned codecs(const struct tf_pack_wishes *w, uint32_t offers)
{
	if (w->compress == TF_WISH_NEVER)
		return 0;
	return (offers & TF_OFFER_LZ4 ? 1u << TF_CODEC_LZ4 : 0) |
	       (offers & TF_OFFER_ZSTD ? 1u << TF_CODEC_ZSTD : 0);
}

int tf_packer_new(const struct tf_pack_wishes *wishes, uint32_t offers, struct tf_packer **ret,
	struct tf_err *e)
{
	struct packing *p;
	int rc = check_wishes(wishes, offers, e);

	*ret = NULL;
	if (rc)
		return rc;
	if (!codecs(wishes, offers) &&
		(!(offers & TF_OFFER_STORE) || wishes->store == TF_WISH_NEVER))
		return 0;
	p = calloc(1, sizeof(*p));
	if (!p)
		return tf_fail(e, TELEFORK_E_NOMEM, "out of memory for packing");
	*ret = &p->base;
	p->base = (struct tf_packer){.data = data, .end = end};
	p->wishes = *wishes;
	p->store = offers & TF_OFFER_STORE;
	tf_choose_begin(&p->choice, codecs(wishes, offers));
	return 0;
}

void tf_packer_free(struct tf_packer *base)
{
	struct packing *p = (struct packing *)base;

	if (!p)
		return;
	for (unsigned i = 0; i < TF_PACK_WINDOW; i++)
		free(p->window[i].bytes);
	tf_codec_free(p->codec);
	free(p->rest);
	free(p->out);
	free(p);
}

struct tf_pack_counts tf_packer_counts(const struct tf_packer *base)
{
	return base ? ((const struct packing *)base)->counts : (struct tf_pack_counts){0};
}
