/* SPDX-License-Identifier: MIT */
/*
 * /proc/PID/maps and smaps into struct tf_map. The parser is a pure function of the text (proc(5));
 * the reader takes whole files into an arena. No allocator, no lock: runs in a forked
 * child. */
#ifndef TF_BASE_MAPS_H
#define TF_BASE_MAPS_H

#include "core/image/image.h"

/* The first size - 1 bytes of a small file of /proc, zero-terminated; "" on failure. 0 or -errno.
 */
int tf_proc_peek(const char *path, char *buf, size_t size);

/* Reads a /proc file completely into the arena, zero-terminated.
 * 0, _NOMEM, _SYSTEM (names path). */
int tf_proc_read(
	struct tf_arena *a, const char *path, char **ret_text, size_t *ret_size, struct tf_err *e);

/* The same of an open file; path is for messages. */
int tf_proc_read_from(struct tf_arena *a, int fd, const char *path, char **ret_text,
	size_t *ret_size, struct tf_err *e);

/* Parses maps or smaps text. Areas at or above TF_MAX_ADDR ([vsyscall]) are left out. data_end is
 * set to end; kind from the path; vmflags from VmFlags lines where there are any. *ret_maps (arena)
 * is sorted as the kernel gives it. 0, _NOMEM, _SYSTEM with the line's number. */
int tf_maps_parse(struct tf_arena *a, const char *text, size_t size, struct tf_map **ret_maps,
	uint32_t *ret_n, struct tf_err *e);

/* Both: reads and parses path. */
int tf_maps_read(struct tf_arena *a, const char *path, struct tf_map **ret_maps, uint32_t *ret_n,
	struct tf_err *e);

/* The first n mappings of smaps; the kernel does not look at the pages of any other. */
int tf_maps_read_first(struct tf_arena *a, const char *path, uint32_t n, struct tf_map **ret_maps,
	uint32_t *ret_n, struct tf_err *e);

/* What smaps tells of a mapping beside its line. */
struct tf_smap {
	uint64_t start, end;
	uint64_t resident; /* bytes that are present or swapped; pages of zeros are not counted */
	uint32_t vmflags;
};

/* Calls fn for each mapping in path, a smaps file, in its order. Keeps nothing: the text is 700
 * bytes for a mapping. Uses the arena's free end meanwhile, so fn must not allocate there.
 * 0, _NOMEM, _SYSTEM. */
int tf_smaps_each(struct tf_arena *a, const char *path,
	void (*fn)(void *ctx, const struct tf_smap *m), void *ctx, struct tf_err *e);

/* The two-letter names of smaps(5) for the TF_VMF_* bits, space-separated into buf. */
void tf_vmflags_text(uint32_t vmflags, char *buf, size_t size);

#endif
