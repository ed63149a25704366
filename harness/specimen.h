/* SPDX-License-Identifier: MIT */
/*
 * An image file taken apart to be damaged: all of it in memory, what is known and the bytes, so
 * that it can be written again with correct checksums, as if capture or transit had lost something.
 */
#ifndef TF_HARNESS_SPECIMEN_H
#define TF_HARNESS_SPECIMEN_H

#include "core/image/file.h"

struct tf_specimen {
	struct tf_file file; /* the image is file.image, and may be changed */
	const struct tf_arch *arch;
	struct tf_run *runs; /* memory that is present, by address; each inside one mapping */
	uint8_t **bytes;     /* of each run */
	uint64_t n_runs;
};

/* Reads an image. On failure nothing is left open. 0 or what tf_file_open() and _NOMEM say. */
int tf_specimen_read(struct tf_specimen *s, const char *path, struct tf_err *e);

/* Has this signal wait for the process: its copy finds it sent, and need not be woken. 0, _NOMEM.
 */
int tf_specimen_wake(struct tf_specimen *s, int signo, struct tf_err *e);

/* Writes an image of what s is by now. _INVAL where that is none: memory outside mappings. */
int tf_specimen_write(struct tf_specimen *s, const char *path, struct tf_err *e);

/* Frees; safe on a zeroed one. */
void tf_specimen_done(struct tf_specimen *s);

/* The runs of a mapping: how many, and the first. */
uint64_t tf_specimen_runs(const struct tf_specimen *s, const struct tf_map *m, uint64_t *ret_first);

/* The page at addr if it is present, else NULL. */
uint8_t *tf_specimen_page(const struct tf_specimen *s, uint64_t addr);

/* Has n runs from first on absent. */
void tf_specimen_drop(struct tf_specimen *s, uint64_t first, uint64_t n);

/* Has one present page absent; once only. 0, _NOMEM. */
int tf_specimen_drop_page(struct tf_specimen *s, uint64_t addr);

#endif
