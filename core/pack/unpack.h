/* SPDX-License-Identifier: MIT */
/*
 * The receiver's side of packed extents: compressed ones, and those of which the sender first tells
 * the hashes of their pages, so that only pages come that are not in the store.
 *
 *   sender                              receiver
 *   list of an extent's hashes ------>  looks them up, takes what is there
 *   the next lists ... <--------------  which are lacking
 *   rest: the lacking pages --------->  checks them, keeps them in the store; the extent is whole
 *
 * Bytes from strangers: sizes are bounded before anything is believed, pages have the hashes that
 * were told, and extents are checked again by whoever gets them.
 */
#ifndef TF_PACK_UNPACK_H
#define TF_PACK_UNPACK_H

#include "core/pack/store.h"
#include "core/restore/pad.h"

/* What to tell a sender: TF_OFFER_*. store may be NULL. */
uint32_t tf_unpack_offers(const struct tf_store *store);

/* For struct tf_pad. store (NULL: none) is borrowed. NULL: out of memory. */
struct tf_unpacker *tf_unpacker_new(struct tf_store *store);
void tf_unpacker_free(struct tf_unpacker *u);

#endif
