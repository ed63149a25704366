/* SPDX-License-Identifier: MIT */
/*
 * See store.h. Sets of a few places each; a page may be in either of two sets, which its hash
 * names, so that nearly all places are used before one has to go.
 *
 *   | header | hashes, WAYS for each set | pages in the same order |
 */
#include "core/pack/store.h"
#include "core/base/crc32c.h"

#include <nettle/sha2.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>

#define WAYS 8u

struct tf_store {
	uint64_t bytes, n_sets;
	atomic_uint turn; /* who goes when all is full */
	struct tf_hash *hash;
	uint8_t *page;
};

void tf_hash_page(struct tf_hash *ret, const void *page)
{
	struct sha256_ctx ctx;

	sha256_init(&ctx);
	sha256_update(&ctx, TF_STORE_PAGE, page);
	sha256_digest(&ctx, TF_HASH, ret->byte);
}

uint32_t tf_hash_crc(uint64_t offset, const struct tf_hash *hash, uint32_t n)
{
	return tf_crc32c(tf_crc32c(0, &offset, sizeof(offset)), hash, n * sizeof(*hash));
}

struct tf_store *tf_store_new(uint64_t bytes, struct tf_err *e)
{
	const uint64_t set = WAYS * (TF_STORE_PAGE + TF_HASH);
	struct tf_store *s;
	uint64_t head;

	if (bytes < 2 * TF_STORE_PAGE + set) {
		tf_fail(e, TELEFORK_E_INVAL, "a store of %llu bytes holds nothing",
			(unsigned long long)bytes);
		return NULL;
	}
	s = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE,
		-1, 0);
	if (s == MAP_FAILED) {
		tf_fail(e, TELEFORK_E_NOMEM, "no room for a store of %llu bytes",
			(unsigned long long)bytes);
		return NULL;
	}
	s->bytes = bytes;
	s->n_sets = (bytes - 2 * TF_STORE_PAGE) / set;
	s->hash = (struct tf_hash *)(s + 1);
	head = sizeof(*s) + s->n_sets * WAYS * TF_HASH;
	s->page = (uint8_t *)s + (head + TF_STORE_PAGE - 1) / TF_STORE_PAGE * TF_STORE_PAGE;
	return s;
}

void tf_store_free(struct tf_store *s)
{
	if (s)
		munmap(s, s->bytes);
}

/* First place of the one or the other set that may hold it. */
static uint64_t place(const struct tf_store *s, const struct tf_hash *hash, unsigned which)
{
	uint64_t bits;

	memcpy(&bits, hash->byte + 8 * which, sizeof(bits));
	return bits % s->n_sets * WAYS;
}

static bool same(const struct tf_hash *a, const struct tf_hash *b)
{
	return !memcmp(a, b, sizeof(*a));
}

bool tf_store_get(struct tf_store *s, const struct tf_hash *hash, void *page)
{
	for (unsigned i = 0; i < 2 * WAYS; i++) {
		uint64_t at = place(s, hash, i / WAYS) + i % WAYS;
		struct tf_hash is;

		if (!same(&s->hash[at], hash))
			continue;
		memcpy(page, s->page + at * TF_STORE_PAGE, TF_STORE_PAGE);
		tf_hash_page(&is, page);
		if (same(&is, hash))
			return true;
		memset(&s->hash[at], 0, sizeof(s->hash[at])); /* so that it is kept anew */
	}
	return false;
}

void tf_store_put(struct tf_store *s, const struct tf_hash *hash, const void *page)
{
	static const struct tf_hash none;
	uint64_t room[2] = {0}, at, best;
	unsigned turn = atomic_fetch_add(&s->turn, 1);

	/* Into the emptier one; if both are full it takes the place of one of them, each in turn.
	 */
	best = place(s, hash, turn % 2) + turn / 2 % WAYS;
	for (unsigned i = 0; i < 2 * WAYS; i++) {
		at = place(s, hash, i / WAYS) + i % WAYS;
		if (same(&s->hash[at], hash))
			return;
		if (!same(&s->hash[at], &none))
			continue;
		if (++room[i / WAYS] > room[0] || i < WAYS)
			best = at;
	}
	s->hash[best] = none; /* half written pages have no hash; and tf_store_get() looks */
	atomic_thread_fence(memory_order_seq_cst);
	memcpy(s->page + best * TF_STORE_PAGE, page, TF_STORE_PAGE);
	atomic_thread_fence(memory_order_seq_cst);
	s->hash[best] = *hash;
}
