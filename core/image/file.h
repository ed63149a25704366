/* SPDX-License-Identifier: MIT */
/*
 * An image file opened for reading: the head decoded, memory read by address. For inspect, diff and
 * restore; of any known architecture on any host. A file is as untrusted as a stream.
 */
#ifndef TF_IMAGE_FILE_H
#define TF_IMAGE_FILE_H

#include <sys/types.h>

#include "core/image/image.h"

struct tf_file {
	int fd; /* owned; -1: not open */
	uint64_t size;
	struct tf_arena arena; /* holds the image */
	struct tf_image image;
};

/* Opens and decodes path; the file must be a regular one that reaches to the image's data_end. What
 * follows data_end (the extent table) is not looked at. On failure nothing stays open and e names
 * path. TELEFORK_E_IO (cannot be opened or read), _IMAGE, _VERSION, _NOMEM. */
int tf_file_open(struct tf_file *f, const char *path, struct tf_err *e);

/* Closes and frees; safe on a zeroed-with-fd--1 or already closed file. */
void tf_file_close(struct tf_file *f);

/* Reads n bytes of the process's memory at addr, across mappings; absent pages, and what a mapping
 * has behind its data, read as zero. Returns n, TELEFORK_E_INVAL if a byte of the range is not
 * mapped, or TELEFORK_E_IO. */
ssize_t tf_file_read(const struct tf_file *f, uint64_t addr, void *buf, size_t n);

/* Bytes of [start, end) that the file really holds: what segments carry, without the file's holes.
 */
uint64_t tf_file_present(const struct tf_file *f, uint64_t start, uint64_t end);

/* The first run of [start, end) that the file holds bytes for, in whole pages; all else reads as
 * zero. False if there is none. */
bool tf_file_run(const struct tf_file *f, uint64_t start, uint64_t end, struct tf_run *ret_run);

#endif
