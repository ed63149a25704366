/* SPDX-License-Identifier: MIT */
/*
 * libFuzzer target: a receiver that gets a section of packed extents. The input is a list of what a
 * sender might do, most of it right, so that what comes behind it is reached: extents as they are
 * and compressed, lists of hashes, rests, and bytes that are none of these. Whatever it is, the
 * receiver ends with the section, or with an error that has words; and bytes that it lets through
 * have the checks that they came with only if they are what was sent. Read extent by extent from
 * bytes at hand (post-copy), it lets the same through, up to the first list.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/pack/codec.h"
#include "core/pack/store.h"
#include "core/pack/unpack.h"

#define ROOM  (64u << 10)
#define PAGE  TF_STORE_PAGE
#define LISTS 32u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What a sender says. */
static struct {
	uint8_t bytes[ROOM];
	size_t n;
	uint64_t offset; /* of the next extent */
	struct {
		uint64_t offset;
		uint32_t pages;
		uint8_t first;
	} list[LISTS];
	unsigned first, lists;
} say;

struct input {
	const uint8_t *at;
	size_t left;
};

static uint8_t next(struct input *in)
{
	in->left -= in->left > 0;
	return in->left ? *in->at++ : 0;
}

static void put(const void *p, size_t n)
{
	if (n > ROOM - say.n)
		n = ROOM - say.n;
	memcpy(say.bytes + say.n, p, n);
	say.n += n;
}

static void put_extent(uint64_t offset, uint32_t size, uint32_t how, uint32_t crc)
{
	struct tf_extent x = {offset, size | how << TF_PACK_SHIFT, crc};

	put(&x, sizeof(x));
}

/* Few, so that the same ones come again. */
static const uint8_t *page(uint8_t number)
{
	static uint8_t bytes[PAGE];

	for (size_t i = 0; i < PAGE; i++)
		bytes[i] = (uint8_t)(number % 16 * (i / 64) + i % 7);
	return bytes;
}

static void say_extent(struct input *in, enum tf_codec codec)
{
	static uint8_t bytes[2048], packed[2048];
	static struct tf_codec_state *state;
	uint32_t size = 1u + next(in) * 8u, n = size;

	if (!state && !(state = tf_codec_new()))
		abort();
	for (uint32_t i = 0; i < size && i < sizeof(bytes); i++)
		bytes[i] = i % 16 ? bytes[i - 1] : next(in);
	size = size < sizeof(bytes) ? size : sizeof(bytes);
	if (codec)
		n = (uint32_t)tf_codec_pack(state, codec, packed, size - 1, bytes, size);
	if (!n)
		return;
	put_extent(say.offset, size, codec, tf_extent_crc(say.offset, size, bytes));
	if (codec)
		put(&n, sizeof(n));
	put(codec ? packed : bytes, codec ? n : size);
	say.offset += size;
}

static void say_list(struct input *in)
{
	struct tf_hash hash[4];
	uint32_t pages = 1 + next(in) % 4;
	uint8_t first = next(in);
	unsigned at = (say.first + say.lists) % LISTS;

	for (uint32_t i = 0; i < pages; i++)
		tf_hash_page(&hash[i], page((uint8_t)(first + i * (first & 1))));
	put_extent(say.offset, pages * PAGE, TF_PACK_LIST, tf_hash_crc(say.offset, hash, pages));
	put(hash, pages * sizeof(*hash));
	say.list[at].offset = say.offset;
	say.list[at].pages = pages;
	say.list[at].first = first;
	say.lists += say.lists < LISTS;
	say.offset += pages * PAGE;
}

/* How many are lacking is the receiver's to say: any number. */
static void say_rest(struct input *in)
{
	uint32_t lacking = next(in) % 5, n = lacking * PAGE;

	if (!say.lists)
		return;
	put_extent(say.list[say.first].offset, say.list[say.first].pages * PAGE, TF_PACK_REST, 0);
	put(&n, sizeof(n));
	for (uint32_t i = 0; i < lacking; i++)
		put(page((uint8_t)(say.list[say.first].first +
				   i * (say.list[say.first].first & 1))),
			PAGE);
	say.first = (say.first + 1) % LISTS;
	say.lists--;
}

static void say_nonsense(struct input *in)
{
	for (unsigned n = next(in); n && in->left; n--) {
		uint8_t byte = next(in);

		put(&byte, 1);
	}
}

static void say_all(struct input *in)
{
	say.n = say.first = say.lists = 0;
	say.offset = PAGE;
	while (in->left && say.n < ROOM)
		switch (next(in) % 8) {
		case 0:
			say_extent(in, TF_CODEC_NONE);
			break;
		case 1:
			say_extent(in, TF_CODEC_LZ4);
			break;
		case 2:
			say_extent(in, TF_CODEC_ZSTD);
			break;
		case 3:
		case 4:
			say_list(in);
			break;
		case 5:
			say_rest(in);
			break;
		case 6:
			say_nonsense(in);
			break;
		default: /* a bit of it is another one */
			if (say.n)
				say.bytes[(next(in) << 8 | next(in)) % say.n] ^=
					(uint8_t)(1u << next(in) % 8);
		}
	put_extent(TF_PACKED_OFFSET, 0, 0, 0);
}

/* What was let through, in order. */
struct passed {
	unsigned n;
	uint32_t crc[ROOM / sizeof(struct tf_extent)];
};

/* Whole extents of possible sizes. */
static int pass(void *ctx, const struct tf_extent *x, uint8_t *bytes)
{
	struct passed *p = ctx;

	if (!x->size || x->size > TF_EXTENT_MAX || p->n == sizeof(p->crc) / sizeof(*p->crc))
		abort();
	p->crc[p->n++] = tf_extent_crc(x->offset, x->size, bytes);
	return 0;
}

/* In a buffer that ends where they do. */
static void pass_at_hand(struct tf_unpacker *u, const struct passed *all)
{
	static struct passed some;
	uint8_t *bytes = malloc(say.n + 1);
	struct tf_err e = {0};
	size_t at = 0;
	int64_t n = 1;

	if (!bytes)
		abort();
	memcpy(bytes, say.bytes, say.n);
	some.n = 0;
	while (n > 0 && say.n - at >= sizeof(struct tf_extent)) {
		struct tf_extent x;

		memcpy(&x, bytes + at, sizeof(x));
		if (x.offset == TF_PACKED_OFFSET || x.offset == TF_TRAILER_OFFSET)
			break;
		n = u->one(u, bytes + at, say.n - at, pass, &some, &e);
		if (n > (int64_t)(say.n - at) || (n < 0 && (n != e.code || !e.text[0])))
			abort();
		at += n > 0 ? (size_t)n : 0;
	}
	if (some.n > all->n || memcmp(some.crc, all->crc, some.n * sizeof(*some.crc)))
		abort();
	free(bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct passed passed;
	struct input in = {data, size};
	struct tf_err e = {0};
	struct tf_store *store = size % 4 ? tf_store_new(64 * PAGE, &e) : NULL;
	struct tf_unpacker *u = tf_unpacker_new(store);
	struct tf_io from;
	int fd[2], room = 2 * ROOM, rc;

	say_all(&in);
	if (!u || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd))
		abort();
	setsockopt(fd[0], SOL_SOCKET, SO_SNDBUF, &room, sizeof(room));
	if (send(fd[0], say.bytes, say.n, MSG_DONTWAIT) != (ssize_t)say.n)
		abort();
	shutdown(fd[0], SHUT_WR);
	tf_io_init(&from, fd[1], NULL);
	passed.n = 0;
	rc = u->run(u, &from, pass, &passed, &e);
	if (rc != e.code || (rc && !e.text[0]))
		abort();
	pass_at_hand(u, &passed);
	tf_unpacker_free(u);
	tf_store_free(store);
	close(fd[0]);
	close(fd[1]);
	return 0;
}
