/* SPDX-License-Identifier: MIT */
/*
 * The way back through a cell of tier icount. Its recording is replayed to where the probe found
 * the first thing lost (probe_lost), or to the instruction at which a signal ended it, and gdb is
 * there. A recording that was not made is made first: the same machine does the same again.
 */
#ifndef TF_HARNESS_REWIND_H
#define TF_HARNESS_REWIND_H

#include <jansson.h>
#include <stdbool.h>

#include "qemu/error.h"

#define TF_REWIND_GDB "gdb-multiarch"

struct tf_rewind {
	const char *folder; /* of the cell */
	bool batch;         /* print the point and the instruction before, and end */
	json_t *cell;       /* its cell.json (keep.h) */
	struct tf_vm_error err;
};

/* Text of cell.json; "" if there is none. */
const char *tf_rewind_text(const struct tf_rewind *r, const char *key);

/* gdb on our terminal. Its exit code; negative: r->err. */
int tf_rewind_gdb(struct tf_rewind *r, const char *const argv[]);

/* All of it. gdb's exit code, or negative: r->err. */
int tf_rewind(struct tf_rewind *r);

#endif
