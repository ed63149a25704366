/* SPDX-License-Identifier: MIT */
/*
 * Packed extents: what a packer makes of memory, an unpacker makes memory of again, whatever was
 * there already; then each bit of it flips, and either side lies. This process is the sender, a
 * thread of it the receiver, and a list of extents what the new process would read.
 */
#include <check.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "arch/arch.h"
#include "core/base/crc32c.h"
#include "core/base/host.h"
#include "core/channel/channel.h"
#include "core/pack/packer.h"
#include "core/pack/unpack.h"
#include "tests/unit/suite.h"

#define PAGE TF_STORE_PAGE
#define SIZE ((size_t)n_pages * PAGE)
#define BASE UINT64_C(0x10000) /* their offset */
#define ALL  (TF_OFFER_LZ4 | TF_OFFER_ZSTD | TF_OFFER_STORE)

static unsigned n_pages = 2200; /* more than the window's: lists wait for their rests */
static uint8_t *memory;
static struct tf_store *store;

/* What a receiver got. */
struct receiver {
	int fd;
	struct tf_store *store;
	uint8_t *got; /* SIZE */
	uint32_t count, chain;
	struct tf_extent trailer;
	uint64_t received;
	int rc;
	struct tf_err e;
};

static uint64_t mix(uint64_t x)
{
	x = (x ^ x >> 31) * UINT64_C(0x7fb5d329728ea185);
	return x ^ x >> 27;
}

/* soft: it can be compressed to a half. */
static void fill(uint8_t *to, uint64_t page, uint64_t seed, bool soft)
{
	for (uint64_t i = 0; i < PAGE / 8; i++) {
		uint64_t word = mix((seed * n_pages + page) * PAGE + (soft ? i % 200 : i));

		memcpy(to + i * 8, &word, 8);
	}
}

static void set_up(void)
{
	struct tf_err e = {0};

	memory = malloc(SIZE);
	for (unsigned i = 0; i < n_pages; i++)
		fill(memory + (size_t)i * PAGE, i, 1, i > n_pages / 3 && i % 2);
	store = tf_store_new(2 * SIZE, &e);
	ck_assert_ptr_nonnull(store);
}

static void tear_down(void)
{
	tf_store_free(store);
	free(memory);
}

/* --- the receiver --- */

/* Takes a plain extent, as the restorer would. */
static int take_plain(void *ctx, const struct tf_extent *x, uint8_t *bytes)
{
	struct receiver *r = ctx;

	if (x->offset < BASE || x->size > SIZE || x->offset - BASE > SIZE - x->size)
		return TELEFORK_E_IMAGE;
	memcpy(r->got + (x->offset - BASE), bytes, x->size);
	if (x->crc != tf_extent_crc(x->offset, x->size, bytes))
		return TELEFORK_E_CHECKSUM;
	r->chain = tf_chain_crc(r->chain, x->crc);
	r->count++;
	return 0;
}

static int receive(struct receiver *r, struct tf_io *io, struct tf_unpacker *u)
{
	struct tf_extent x;
	int rc;

	while (!(rc = tf_io_read(io, &x, sizeof(x), &r->e)) && x.offset != TF_TRAILER_OFFSET) {
		if (x.offset == TF_PACKED_OFFSET) {
			rc = u->run(u, io, take_plain, r, &r->e);
		} else {
			uint8_t *bytes = malloc(x.size);

			rc = tf_io_read(io, bytes, x.size, &r->e);
			if (!rc)
				rc = take_plain(r, &x, bytes);
			free(bytes);
		}
		if (rc)
			return rc;
	}
	r->trailer = x;
	return rc;
}

static void *receiver_main(void *arg)
{
	struct receiver *r = arg;
	struct tf_unpacker *u = tf_unpacker_new(r->store);
	struct tf_io io;

	tf_io_init(&io, r->fd, NULL);
	io.idle_ms = 60000;
	r->count = r->chain = 0;
	r->rc = receive(r, &io, u);
	r->received = io.received;
	if (r->rc) /* as a receiver that gives up */
		shutdown(r->fd, SHUT_RDWR);
	tf_unpacker_free(u);
	return NULL;
}

/* --- the sender --- */

/* Sends memory, in pieces of that size; returns what the sender says, and r what the receiver. */
static int carry(const struct tf_pack_wishes *wishes, uint32_t offers, size_t piece,
	struct receiver *r, struct tf_pack_counts *ret_counts, struct tf_err *e)
{
	static struct tf_sink sink;
	struct tf_packer *p;
	struct tf_io io;
	pthread_t t;
	int fd[2], rc;

	*e = (struct tf_err){0};
	/* NOLINTNEXTLINE(clang-analyzer-optin.portability.UnixAPI): SIZE is not 0 */
	*r = (struct receiver){.store = r->store, .got = calloc(1, SIZE)};
	ck_assert(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd));
	r->fd = fd[1];
	ck_assert(!pthread_create(&t, NULL, receiver_main, r));
	tf_io_init(&io, fd[0], NULL);
	io.idle_ms = 60000;
	io.heed = true;
	sink = (struct tf_sink){.io = &io, .crc_instruction = tf_crc32c_has_instruction()};
	rc = tf_packer_new(wishes, offers, &p, e);
	sink.packer = p;
	for (size_t at = 0; at < SIZE && !rc; at += piece)
		rc = tf_sink_data(&sink, BASE + at, memory + at,
			SIZE - at < piece ? SIZE - at : piece, NULL, e);
	if (!rc)
		rc = tf_sink_end(&sink, NULL, e);
	shutdown(fd[0], SHUT_WR);
	ck_assert(!pthread_join(t, NULL));
	*ret_counts = tf_packer_counts(p);
	if (!rc && !r->rc) {
		ck_assert_uint_eq(r->count, sink.count);
		ck_assert_uint_eq(r->trailer.size, sink.count);
		ck_assert_uint_eq(r->chain, sink.chain);
		ck_assert_uint_eq(r->trailer.crc, sink.chain);
		ck_assert_uint_eq(sink.data, SIZE);
	}
	tf_packer_free(p);
	close(fd[0]);
	close(fd[1]);
	return rc;
}

static uint64_t carry_right(const struct tf_pack_wishes *wishes, uint32_t offers, size_t piece,
	struct tf_store *in, struct tf_pack_counts *n)
{
	struct receiver r = {.store = in};
	struct tf_err e;

	int rc = carry(wishes, offers, piece, &r, n, &e);

	ck_assert_msg(!rc && !r.rc, "sender: %s; receiver: %d %s", e.text, r.rc, r.e.text);
	ck_assert(!memcmp(r.got, memory, SIZE));
	free(r.got);
	return r.received;
}

/* --- what arrives --- */

START_TEST(compressed)
{
	static const size_t pieces[] = {TF_EXTENT_MAX, 3 * PAGE, 100000};
	struct tf_pack_wishes w = {.compress = TF_WISH_ALWAYS, .store = TF_WISH_NEVER};
	struct tf_pack_counts n;

	for (w.codec = TF_CODEC_LZ4; w.codec < TF_CODECS; w.codec++)
		for (unsigned i = 0; i < 3; i++) {
			uint64_t bytes = carry_right(&w, ALL, pieces[i], NULL, &n);

			ck_assert_uint_lt(bytes, SIZE * 9 / 10);
			ck_assert_uint_gt(n.in[w.codec], SIZE / 2);
			ck_assert_uint_eq(n.in[w.codec] - n.out[w.codec] > SIZE / 10, 1);
		}
}
END_TEST

START_TEST(not_offered)
{
	struct tf_pack_wishes automatic = {0},
			      w = {.compress = TF_WISH_ALWAYS, .codec = TF_CODEC_LZ4};
	struct tf_pack_counts n;
	struct tf_packer *p;
	struct tf_err e = {0};

	ck_assert_uint_ge(carry_right(&automatic, 0, TF_EXTENT_MAX, NULL, &n), SIZE);
	ck_assert_int_eq(tf_packer_new(&w, TF_OFFER_ZSTD, &p, &e), TELEFORK_E_UNSUPPORTED);
	ck_assert_ptr_nonnull(strstr(e.text, "does not take lz4"));
	w = (struct tf_pack_wishes){.store = TF_WISH_ALWAYS};
	e = (struct tf_err){0};
	ck_assert_int_eq(tf_packer_new(&w, TF_OFFER_LZ4, &p, &e), TELEFORK_E_UNSUPPORTED);
	ck_assert_ptr_nonnull(strstr(e.text, "keeps no pages"));
}
END_TEST

/* One page of a hundred is another: at most 3 percent of the bytes. */
START_TEST(again)
{
	struct tf_pack_wishes w = {.store = TF_WISH_ALWAYS};
	struct tf_pack_counts n;

	ck_assert_uint_ge(carry_right(&w, ALL, TF_EXTENT_MAX, store, &n), SIZE * 7 / 10);
	ck_assert_uint_eq(n.listed, SIZE);
	ck_assert_uint_eq(n.known, 0);
	for (unsigned i = 7; i < n_pages; i += 100)
		fill(memory + (size_t)i * PAGE, i, 2, false);
	ck_assert_uint_lt(carry_right(&w, ALL, TF_EXTENT_MAX, store, &n), SIZE * 3 / 100);
	ck_assert_uint_eq(n.known, SIZE - n_pages / 100 * PAGE);
	/* In pieces, too, and pages that are elsewhere now. */
	memmove(memory, memory + n_pages / 2 * (size_t)PAGE, 100 * (size_t)PAGE);
	ck_assert_uint_lt(carry_right(&w, ALL, 3 * PAGE, store, &n), SIZE * 3 / 100);
	ck_assert_uint_eq(n.known, SIZE);
	/* What is no whole page goes as it is. */
	ck_assert_uint_lt(carry_right(&w, ALL, 100 * PAGE + 100, store, &n), SIZE);
	ck_assert_uint_lt(n.known, SIZE);
}
END_TEST

/* What is there twice comes once, wherever its second place is. */
START_TEST(twins)
{
	struct tf_pack_wishes w = {.store = TF_WISH_ALWAYS};
	struct tf_pack_counts n;
	unsigned copies = 0;

	for (unsigned i = 0; i < n_pages; i += i % 7 + 1, copies++)
		memcpy(memory + (size_t)i * PAGE, memory + i / 3 * (size_t)PAGE, PAGE);
	carry_right(&w, ALL, TF_EXTENT_MAX, store, &n);
	ck_assert_uint_gt(n.known, copies / 2 * PAGE);
	for (unsigned i = 0; i < n_pages; i++)
		fill(memory + (size_t)i * PAGE, 0, 3, false);
	ck_assert_uint_lt(carry_right(&w, ALL, TF_EXTENT_MAX, store, &n), SIZE / 100);
	ck_assert_uint_eq(n.known, SIZE - PAGE);
}
END_TEST

START_TEST(both)
{
	struct tf_pack_wishes w = {
		.store = TF_WISH_ALWAYS, .compress = TF_WISH_ALWAYS, .codec = TF_CODEC_ZSTD};
	struct tf_pack_counts n;

	ck_assert_uint_lt(carry_right(&w, ALL, TF_EXTENT_MAX, store, &n), SIZE * 9 / 10);
	ck_assert_uint_lt(carry_right(&w, ALL, TF_EXTENT_MAX, store, &n), SIZE / 100);
}
END_TEST

/* A store that is too small has something, and gives nothing wrong. */
START_TEST(full)
{
	struct tf_pack_wishes w = {.store = TF_WISH_ALWAYS};
	struct tf_err e = {0};
	struct tf_store *small = tf_store_new(SIZE / 3, &e);
	struct tf_pack_counts n;

	for (unsigned i = 0; i < 3; i++)
		carry_right(&w, ALL, TF_EXTENT_MAX, small, &n);
	ck_assert_uint_gt(n.known, SIZE / 20);
	ck_assert_uint_lt(n.known, SIZE / 2);
	tf_store_free(small);
	ck_assert_ptr_null(tf_store_new(PAGE, &e));
	ck_assert_int_eq(e.code, TELEFORK_E_INVAL);
}
END_TEST

/* --- the store --- */

START_TEST(nearly_all_places)
{
	unsigned held = 0;
	struct tf_hash h;
	uint8_t page[PAGE];
	struct tf_err e = {0};
	/* Room for n_pages and their hashes. */
	struct tf_store *s = tf_store_new(n_pages * (uint64_t)(PAGE + TF_HASH) + 3 * PAGE, &e);

	for (unsigned i = 0; i < n_pages; i++) {
		tf_hash_page(&h, memory + (size_t)i * PAGE);
		tf_store_put(s, &h, memory + (size_t)i * PAGE);
		tf_store_put(s, &h, memory + (size_t)i * PAGE);
	}
	for (unsigned i = 0; i < n_pages; i++) {
		tf_hash_page(&h, memory + (size_t)i * PAGE);
		held += tf_store_get(s, &h, page) && !memcmp(page, memory + (size_t)i * PAGE, PAGE);
	}
	ck_assert_uint_gt(held, n_pages * 93 / 100);
	tf_store_free(s);
}
END_TEST

START_TEST(shared_and_looked_at)
{
	struct tf_hash h;
	uint8_t page[PAGE], *at;
	int status;
	pid_t pid;

	tf_hash_page(&h, memory);
	ck_assert(!tf_store_get(store, &h, page));
	pid = fork();
	if (!pid) {
		tf_store_put(store, &h, memory);
		_exit(0);
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert(tf_store_get(store, &h, page));
	ck_assert(!memcmp(page, memory, PAGE));
	at = memmem(store, 2 * SIZE, memory, PAGE); /* as if somebody was writing to it */
	ck_assert_ptr_nonnull(at);
	at[PAGE - 1] ^= 1;
	ck_assert(!tf_store_get(store, &h, page));
	tf_store_put(store, &h, memory);
	ck_assert(tf_store_get(store, &h, page));
}
END_TEST

/* --- damage and lies --- */

/* A stream that somebody wrote by hand: a section of one extent, or what is to be refused. */
struct crafted {
	uint8_t bytes[1 << 17];
	size_t n;
};

static void put(struct crafted *c, const void *p, size_t n)
{
	ck_assert_uint_le(n, sizeof(c->bytes) - c->n);
	memcpy(c->bytes + c->n, p, n);
	c->n += n;
}

static void put_extent(
	struct crafted *c, uint64_t offset, uint32_t size, uint32_t how, uint32_t crc)
{
	struct tf_extent x = {offset, size | how << TF_PACK_SHIFT, crc};

	put(c, &x, sizeof(x));
}

static void put_counted(struct crafted *c, const void *p, uint32_t n)
{
	put(c, &n, sizeof(n));
	put(c, p, n);
}

static void put_end(struct crafted *c)
{
	put_extent(c, TF_PACKED_OFFSET, 0, 0, 0);
	put_extent(c, TF_TRAILER_OFFSET, 1, 0, 0);
}

static void put_list(struct crafted *c, uint32_t pages, const uint8_t *of, uint32_t spoil)
{
	struct tf_hash h[16];

	for (uint32_t i = 0; i < pages; i++)
		tf_hash_page(&h[i], of + (size_t)i * PAGE);
	put_extent(c, BASE, pages * PAGE, TF_PACK_LIST, tf_hash_crc(BASE, h, pages) ^ spoil);
	put(c, h, pages * sizeof(*h));
}

static struct crafted crafted(void)
{
	static struct crafted c;

	c.n = 0;
	put_extent(&c, TF_PACKED_OFFSET, 1, 0, 0);
	return c;
}

/* What a receiver says to it. */
static int hear(const struct crafted *c, struct receiver *r)
{
	pthread_t t;
	int fd[2];

	*r = (struct receiver){.store = r->store, .got = calloc(1, SIZE)};
	ck_assert(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd));
	r->fd = fd[1];
	ck_assert(!pthread_create(&t, NULL, receiver_main, r));
	for (size_t at = 0; at < c->n;) {
		ssize_t n = send(fd[0], c->bytes + at, c->n - at, MSG_NOSIGNAL);

		if (n < 0)
			break;
		at += (size_t)n;
	}
	shutdown(fd[0], SHUT_WR);
	ck_assert(!pthread_join(t, NULL));
	close(fd[0]);
	close(fd[1]);
	return r->rc;
}

/* Every bit of a compressed block, and of what stands before it. zstd has some that say nothing. */
START_TEST(flipped)
{
	static uint8_t packed[16 * PAGE];
	struct tf_codec_state *codec = tf_codec_new();
	struct receiver r = {0};
	unsigned right = 0;
	const uint8_t *soft = memory + (n_pages / 2 | 1) * (size_t)PAGE;

	for (enum tf_codec k = TF_CODEC_LZ4; k < TF_CODECS; k++) {
		struct crafted good = crafted();
		uint32_t size = 2 * PAGE, from = (uint32_t)good.n, n;

		n = (uint32_t)tf_codec_pack(codec, k, packed, size - 1, soft, size);
		ck_assert_uint_gt(n, 0);
		put_extent(&good, BASE, size, k, tf_extent_crc(BASE, size, soft));
		put_counted(&good, packed, n);
		put_end(&good);
		ck_assert_msg(!hear(&good, &r), "%s", r.e.text);
		free(r.got);
		for (size_t bit = from * 8; bit < (from + 20 + n) * 8; bit += bit < 400 ? 1 : 97) {
			struct crafted bad = good;

			bad.bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
			ck_assert_msg(hear(&bad, &r) || !memcmp(r.got, soft, size), "%s: bit %zu",
				tf_codec_name(k), bit);
			right += !r.rc;
			free(r.got);
		}
	}
	ck_assert_uint_le(right, 2);
	tf_codec_free(codec);
}
END_TEST

static void is_told(const struct crafted *c, const char *says, int code)
{
	struct receiver r = {.store = store};

	ck_assert_int_eq(hear(c, &r), code);
	ck_assert_msg(strstr(r.e.text, says) != NULL, "\"%s\": no \"%s\"", r.e.text, says);
	free(r.got);
	r.store = NULL;
	ck_assert_int_ne(hear(c, &r), 0);
	free(r.got);
}

/* A sender that lies. */
START_TEST(lying_sender)
{
	uint8_t *wrong = memory + 5 * (size_t)PAGE;
	struct tf_codec_state *codec = tf_codec_new();
	static uint8_t packed[PAGE];
	static const uint8_t bomb[] = {
		0x1f, 0, 1, 0, 255, 255, 255, 255, 255, 255, 255, 255, 255, 10};

#define LIE(WHAT, CODE, ...)                  \
	do {                                  \
		struct crafted c = crafted(); \
                                              \
		__VA_ARGS__;                  \
		is_told(&c, WHAT, CODE);      \
	} while (0)
	LIE("not the one that was announced", TELEFORK_E_IMAGE, {
		put_list(&c, 2, memory, 0);
		put_extent(&c, BASE, 2 * PAGE, TF_PACK_REST, 0);
		put_counted(&c, wrong, 2 * PAGE);
	});
	LIE("arrived damaged", TELEFORK_E_CHECKSUM, put_list(&c, 2, memory, 1));
	LIE("more bytes than there can be", TELEFORK_E_IMAGE, {
		put_list(&c, 2, memory, 0);
		put_extent(&c, BASE, 2 * PAGE, TF_PACK_REST, 0);
		put_counted(&c, memory, 3 * PAGE);
	});
	LIE("no list has announced", TELEFORK_E_IMAGE, {
		put_list(&c, 2, memory, 0);
		put_extent(&c, BASE + PAGE, 2 * PAGE, TF_PACK_REST, 0);
	});
	LIE("no list has announced", TELEFORK_E_IMAGE, {
		put_list(&c, 2, memory, 0);
		put_extent(&c, BASE, PAGE, TF_PACK_REST, 0);
		put_counted(&c, memory, PAGE);
	});
	LIE("no list has announced", TELEFORK_E_IMAGE, put_extent(&c, BASE, PAGE, TF_PACK_REST, 0));
	LIE("one too many", TELEFORK_E_IMAGE, {
		for (unsigned i = 0; i <= TF_PACK_WINDOW; i++)
			put_list(&c, 1, memory, 0);
	});
	LIE("half a page", TELEFORK_E_IMAGE, put_extent(&c, BASE, PAGE + 1, TF_PACK_LIST, 0));
	LIE("ends too early", TELEFORK_E_IMAGE, {
		put_list(&c, 2, memory, 0);
		put_end(&c);
	});
	LIE("impossible size", TELEFORK_E_IMAGE, put_extent(&c, BASE, TF_EXTENT_MAX + 1, 1, 0));
	LIE("a way that is not known", TELEFORK_E_IMAGE, {
		put_extent(&c, BASE, PAGE, TF_CODECS, 0);
		put_counted(&c, memory, 100);
	});
	LIE("it is no lz4 of 4096 bytes", TELEFORK_E_CHECKSUM, {
		put_extent(&c, BASE, PAGE, TF_CODEC_LZ4, 0);
		put_counted(&c, bomb, sizeof(bomb));
	});
	for (enum tf_codec k = TF_CODEC_LZ4; k < TF_CODECS; k++)
		LIE(k == TF_CODEC_LZ4 ? "it is no lz4 of 4100" : "it is no zstd of 4100",
			TELEFORK_E_CHECKSUM, {
				put_extent(&c, BASE, PAGE + 4, k, 0);
				put_counted(&c, packed,
					(uint32_t)tf_codec_pack(codec, k, packed, PAGE,
						memory + (n_pages / 2 | 1) * (size_t)PAGE, PAGE));
			});
#undef LIE
	tf_codec_free(codec);
}
END_TEST

struct liar {
	int fd;
	enum {
		WRONG_OFFSET,
		WRONG_SIZE,
		WRONG_CRC,
		WRONG_MAGIC,
		REFUSES,
		REFUSES_AND_ENDS,
		LIES
	} how;
};

/* A receiver that answers lists with something else. */
static void *lie(void *arg)
{
	struct liar *l = arg;
	struct tf_lacks a = {.magic = TF_LACKS_MAGIC, .offset = BASE, .size = TF_EXTENT_MAX};
	struct tf_reply r = {.code = TELEFORK_E_LIMIT, .message_size = 5};
	char sink[65536];

	a.offset += l->how == WRONG_OFFSET;
	a.size -= l->how == WRONG_SIZE ? PAGE : 0;
	a.crc = tf_crc32c(0, &a, offsetof(struct tf_lacks, crc)) ^ (l->how == WRONG_CRC);
	if (l->how == WRONG_MAGIC)
		a.magic[0] ^= 1;
	memcpy(r.magic, TF_REPLY_MAGIC, sizeof(r.magic));
	if (l->how < REFUSES) {
		send(l->fd, &a, sizeof(a), MSG_NOSIGNAL);
	} else {
		send(l->fd, &r, sizeof(r), MSG_NOSIGNAL);
		send(l->fd, "enoug", 5, MSG_NOSIGNAL);
		if (l->how == REFUSES_AND_ENDS)
			shutdown(l->fd, SHUT_RDWR);
	}
	while (recv(l->fd, sink, sizeof(sink), 0) > 0)
		;
	return NULL;
}

START_TEST(lying_receiver)
{
	int code = _i < REFUSES ? TELEFORK_E_PROTOCOL : TELEFORK_E_LIMIT;
	struct tf_pack_wishes w = {.store = TF_WISH_ALWAYS};
	static struct tf_sink sink;
	struct liar l = {.how = (unsigned)_i};
	struct tf_packer *p;
	struct tf_err e = {0};
	struct tf_io io;
	pthread_t t;
	int fd[2], rc;

	ck_assert(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd));
	l.fd = fd[1];
	ck_assert(!pthread_create(&t, NULL, lie, &l));
	tf_io_init(&io, fd[0], NULL);
	sink = (struct tf_sink){.io = &io, .crc_instruction = tf_crc32c_has_instruction()};
	ck_assert(!tf_packer_new(&w, ALL, &p, &e));
	sink.packer = p;
	rc = tf_sink_data(&sink, BASE, memory, SIZE, NULL, &e) ?: tf_sink_end(&sink, NULL, &e);
	ck_assert_msg(rc == code, "%d: %s", rc, e.text);
	ck_assert_int_eq(e.code, rc);
	shutdown(fd[0], SHUT_RDWR);
	ck_assert(!pthread_join(t, NULL));
	tf_packer_free(p);
	close(fd[0]);
	close(fd[1]);
}
END_TEST

/* --- extent by extent, of bytes that are at hand --- */

/* Those of a section, in pieces as they might come; how many bytes were taken, or an error. */
static int64_t one_by_one(struct receiver *r, const struct crafted *c, size_t piece)
{
	struct tf_unpacker *u = tf_unpacker_new(r->store);
	uint8_t *in = malloc(c->n); /* of that size: who reads more is found out */
	size_t at = sizeof(struct tf_extent), there = at;
	int64_t n = 0;

	memcpy(in, c->bytes, c->n);
	r->got = calloc(1, SIZE);
	r->e = (struct tf_err){0};
	while (at < c->n - 2 * sizeof(struct tf_extent) && n >= 0) {
		n = u->one(u, in + at, there - at, take_plain, r, &r->e);
		if (n > 0)
			at += (size_t)n;
		if (!n && there == c->n)
			break;
		if (!n)
			there = c->n - there < piece ? c->n : there + piece;
	}
	tf_unpacker_free(u);
	free(in);
	return n < 0 ? n : (int64_t)at;
}

START_TEST(at_hand)
{
	static const size_t pieces[] = {1, 7, 1000, sizeof(struct crafted)};
	static uint8_t packed[16 * PAGE];
	struct tf_codec_state *codec = tf_codec_new();
	const uint8_t *soft = memory + (n_pages / 2 | 1) * (size_t)PAGE;
	struct crafted good = crafted();
	struct receiver r = {0};

	for (enum tf_codec k = TF_CODEC_NONE; k < TF_CODECS; k++) {
		uint32_t size = (k + 1) * PAGE, n = size;
		uint64_t at = BASE + k * 8 * PAGE;

		put_extent(&good, at, size, k, tf_extent_crc(at, size, soft));
		if (k)
			n = (uint32_t)tf_codec_pack(codec, k, packed, size - 1, soft, size);
		if (k)
			put_counted(&good, packed, n);
		else
			put(&good, soft, size);
	}
	put_end(&good);
	for (unsigned i = 0; i < 4; i++) {
		ck_assert_int_eq(one_by_one(&r, &good, pieces[i]),
			(int64_t)(good.n - 2 * sizeof(struct tf_extent)));
		for (unsigned k = 0; k < TF_CODECS; k++)
			ck_assert(!memcmp(r.got + (size_t)k * 8 * PAGE, soft, (k + 1) * PAGE));
		free(r.got);
	}
	for (size_t bit = 16 * 8; bit < (good.n - 32) * 8; bit += 97) {
		struct crafted bad = good;
		bool whole;

		bad.bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
		whole = one_by_one(&r, &bad, sizeof(bad)) ==
			(int64_t)(good.n - 2 * sizeof(struct tf_extent));
		ck_assert_msg(!whole || !memcmp(r.got + 16 * (size_t)PAGE, soft, 3 * PAGE),
			"bit %zu", bit);
		free(r.got);
	}
	tf_codec_free(codec);
}
END_TEST

/* Nobody can ask what is in a list; and what else is no extent. */
START_TEST(not_at_hand)
{
	static const struct {
		uint32_t size, how, counted;
		const char *says;
	} lie[] = {
		{PAGE, TF_PACK_LIST, 0, "a way that is not known"},
		{PAGE, TF_PACK_REST, 0, "a way that is not known"},
		{PAGE, TF_CODECS, 100, "a way that is not known"},
		{PAGE, TF_CODEC_LZ4, PAGE, "more bytes than there can be"},
		{PAGE, TF_CODEC_ZSTD, UINT32_MAX, "more bytes than there can be"},
		{PAGE, TF_CODEC_ZSTD, 100, "it is no zstd"},
		{0, 0, 0, "impossible size"},
		{TF_EXTENT_MAX + 1, 0, 0, "impossible size"},
		{TF_EXTENT_MAX + 1, TF_CODEC_LZ4, 0, "impossible size"},
	};

	for (size_t i = 0; i < sizeof(lie) / sizeof(*lie); i++) {
		struct receiver r = {.store = store};
		struct crafted c = crafted();

		put_extent(&c, BASE, lie[i].size, lie[i].how, 0);
		put(&c, &lie[i].counted, 4);
		put(&c, memory, 16 * PAGE);
		ck_assert_int_lt(one_by_one(&r, &c, sizeof(c)), 0);
		ck_assert_msg(strstr(r.e.text, lie[i].says) != NULL, "\"%s\": no \"%s\"", r.e.text,
			lie[i].says);
		free(r.got);
	}
}
END_TEST

int main(void)
{
	Suite *s = suite_create("pack");
	TCase *t = tcase_create("pack");

	if (tf_host_emulated()) /* it takes its time for hashes */
		n_pages = 600;
	suite_add_tcase(s, t);
	tcase_set_timeout(t, SUITE_LIMIT_S);
	tcase_add_checked_fixture(t, set_up, tear_down);
	tcase_add_test(t, compressed);
	tcase_add_test(t, not_offered);
	tcase_add_test(t, again);
	tcase_add_test(t, twins);
	tcase_add_test(t, both);
	tcase_add_test(t, full);
	tcase_add_test(t, nearly_all_places);
	tcase_add_test(t, shared_and_looked_at);
	tcase_add_test(t, flipped);
	tcase_add_test(t, lying_sender);
	tcase_add_test(t, at_hand);
	tcase_add_test(t, not_at_hand);
	tcase_add_loop_test(t, lying_receiver, 0, LIES);
	return suite_run(s);
}
