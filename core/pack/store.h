/* SPDX-License-Identifier: MIT */
/*
 * Pages that a receiver has seen, by the hash of their content: what it has need not be sent again.
 * The memory is shared by all processes that were forked since, bounded, and needs no lock: whoever
 * takes a page out looks whether it is the one that its hash says, so that a page which was being
 * written, or was written by somebody who died over it, is one that is not there.
 */
#ifndef TF_PACK_STORE_H
#define TF_PACK_STORE_H

#include <stdbool.h>

#include "core/base/err.h"

#define TF_STORE_PAGE 4096u /* of every architecture: smaller pieces would be mostly hashes */
#define TF_HASH       24u   /* bytes: SHA-256, cut */

struct tf_hash {
	uint8_t byte[TF_HASH];
};

struct tf_store;

/* The check of a list of hashes, which belongs to an offset. */
uint32_t tf_hash_crc(uint64_t offset, const struct tf_hash *hash, uint32_t n);

/* The hash of a page of TF_STORE_PAGE bytes. */
void tf_hash_page(struct tf_hash *ret, const void *page);

/* A store of at most that many bytes, of which nothing is used yet; or NULL with _NOMEM, _INVAL. */
struct tf_store *tf_store_new(uint64_t bytes, struct tf_err *e);
void tf_store_free(struct tf_store *s);

/* Copies the page with that hash. False: it is not there; the copy is then any bytes. */
bool tf_store_get(struct tf_store *s, const struct tf_hash *hash, void *page);

/* Keeps a page whose hash was computed from it. Where all is full another one goes. */
void tf_store_put(struct tf_store *s, const struct tf_hash *hash, const void *page);

#endif
