/* SPDX-License-Identifier: MIT */
/*
 * Pages of files that the destination has need not travel. A sender says in the stream's header
 * that it can leave them out (TF_STREAM_OFFER) and sends all other memory; meanwhile the receiver
 * tells which of the head's mappings it has the file of, and by what it knows the file:
 *
 *   tf_known_header | struct tf_known[count]
 *
 * The sender believes it where its own mapping is of the same file, and then sends only pages that
 * the process has made its own. All of it can come from anybody: what is wrong is not believed, and
 * then the bytes travel. Runs in a forked child: no allocator, no lock.
 *
 * A post-copy's receiver has to know before its plan what will not come, as nobody waits for pages
 * of files. So there the head says by what the sender knows the files of mappings that are nothing
 * but these files' (image.known), and the receiver tells which of them it has.
 */
#ifndef TF_IMAGE_KNOWN_H
#define TF_IMAGE_KNOWN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TF_KNOWN_MAGIC "TFKNOWN1"
#define TF_KNOWN_MAX   1024u /* mappings */
#define TF_KNOWN_PAGE  4096u /* of a file's beginning: what it is known by stands there */
#define TF_KNOWN_ID    32u   /* bytes of a build-id, at most */

struct tf_known_header {
	char magic[8];
	uint32_t count, crc; /* of the array */
};

/* A mapping of the head, by its index, and the file that the receiver has for it. */
struct tf_known {
	uint32_t map;
	uint32_t crc;            /* CRC32C of the file's first TF_KNOWN_PAGE bytes */
	uint64_t size;           /* of the file */
	uint8_t id[TF_KNOWN_ID]; /* its build-id, zeroes behind it */
};

/* Fills in what a file is known by, from its first TF_KNOWN_PAGE bytes: crc, id. False: it has no
 * build-id there. */
bool tf_known_by(const uint8_t page[static TF_KNOWN_PAGE], struct tf_known *ret);

/* The same, for many; instruction: tf_crc32c_has_instruction(). */
bool tf_known_by_with(
	bool instruction, const uint8_t page[static TF_KNOWN_PAGE], struct tf_known *ret);

/* Whether both are of one file, by its size, build-id and first page. */
bool tf_known_same(const struct tf_known *a, const struct tf_known *b);

#endif
