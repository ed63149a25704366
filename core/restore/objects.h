/* SPDX-License-Identifier: MIT */
/* The files and the shared memory that an image maps, looked for on this machine. */
#ifndef TF_RESTORE_OBJECTS_H
#define TF_RESTORE_OBJECTS_H

#include <sys/stat.h>

#include "core/image/known.h"
#include "core/restore/build.h"

/* A file that is here and that private mappings show, as it was when it was looked for. */
struct tf_found_file {
	const char *path;
	struct stat st;
	bool usable;        /* it is known by something */
	bool told;          /* the sender hears of it */
	struct tf_known by; /* map: the first of the mappings */
};

struct tf_found {
	struct tf_found_file *file; /* in the order of their mappings */
	uint32_t n, max;
};

/* Decides what becomes of each mapped file (tf_map.here) and object (tf_object.how) here; nothing
 * is made. found: gets as many of the files as it has room for, nothing else is read of them; may
 * be NULL. restore: TELEFORK_RESTORE_PART_*: where an object cannot be had as it was, the copy gets
 * memory of its own, and left says so; without, that is a reason against in e. A descriptor that
 * cannot have its own id is told in left too. 0 or _INCOMPATIBLE. */
int tf_objects_check(struct tf_image *img, const struct tf_facts *f, unsigned restore,
	struct tf_found *found, struct tf_err *left, struct tf_err *e);

/* After a restore failed in step failed (UINT64_MAX: not known, or behind all): takes back what its
 * process, which is gone, had made that has a name. since: when that began, in seconds. */
void tf_objects_undo(const struct tf_image *img, const struct tf_restore *r, pid_t child,
	int64_t since, uint64_t failed);

#endif
