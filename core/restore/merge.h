/* SPDX-License-Identifier: MIT */
/*
 * A yoyo's way home: what a copy changed is taken into this process, all of it or nothing.
 *
 *   tf_merge_receive   the stream is read, checked and staged outside the program's memory
 *   tf_merge_apply     new mappings, protected pages (undone if one fails), pages, then what is
 * gone
 */
#ifndef TF_RESTORE_MERGE_H
#define TF_RESTORE_MERGE_H

#include "core/image/stream.h"

/* Pages that arrived together: size bytes for address, which stand at data. */
struct tf_staged {
	uint64_t address;
	uint32_t size;
	uint8_t *data;
	uint8_t *undo; /* what was there before; NULL: not yet written, or not to be undone */
};

/* Bytes that stay as they are at home. */
struct tf_keep {
	uint64_t start, end;
};

#define TF_KEEP_MAX 16

struct tf_merge {
	struct tf_arena arena; /* descriptions; in no mapping's way, see tf_merge_init() */
	struct tf_arena stage; /* the bytes that arrived, behind it */
	struct tf_image image;
	struct tf_staged *staged;
	uint32_t n_staged, max_staged;
	uint64_t staged_end; /* of the latest: they ascend */
	struct tf_map *maps; /* this process's, as they are now */
	uint32_t n_maps;
	struct tf_keep keep[TF_KEEP_MAX]; /* sorted */
	uint32_t n_keep;
	int mem;     /* /proc/self/mem */
	int scratch; /* QEMU user mode: bytes on their way past its page tables; else -1 */
};

/* Reserves a place for what arrives where neither this process nor its copy has anything.
 * No allocator from here on. 0, _NOMEM, _COLLISION. */
int tf_merge_init(struct tf_merge *m, struct tf_err *e);

/* Bytes [start, end) are not to be changed; at most TF_KEEP_MAX ranges, empty ones are ignored. */
void tf_merge_keep(struct tf_merge *m, uint64_t start, uint64_t end);

/* Reads head, extents and trailer. memory: what the header promised. 0, or as the stream readers;
 * _IMAGE when a byte lies outside of this process and of what is new. */
int tf_merge_receive(
	struct tf_merge *m, struct tf_io *io, const struct tf_stream_header *h, struct tf_err *e);

/* 0, or an error with everything as it was: _LIMIT, _NOMEM, _COLLISION, _SYSTEM; _IMAGE when a
 * mapping is to change that is this process's own or among what is kept. */
int tf_merge_apply(struct tf_merge *m, struct tf_err *e);

void tf_merge_done(struct tf_merge *m);

#endif
