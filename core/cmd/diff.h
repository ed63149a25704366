/* SPDX-License-Identifier: MIT */
/* What diff and verify share: the comparison told, as lines or as JSON. */
#ifndef TF_CMD_DIFF_H
#define TF_CMD_DIFF_H

#include <argp.h>
#include <stdbool.h>

#include "core/image/file.h"

struct tf_diff {
	const char *name[2]; /* of the earlier and the later one, for people */
	bool json, all, strict;
};

/* --all, --json, --strict into a struct tf_diff: as a child of a command's own argp. */
extern const struct argp tf_diff_argp;

/* Compares b, the later one, with a, and prints what is different. The exit code. */
int tf_diff_report(const struct tf_diff *o, const struct tf_file *a, const struct tf_file *b);

#endif
