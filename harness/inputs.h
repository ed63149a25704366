/* SPDX-License-Identifier: MIT */
/*
 * What a run is made of: the Debian packages in its guests and of the newer QEMU
 * (qemu/guest/inputs.sh), and every file that a cell began with.
 */
#ifndef TF_HARNESS_INPUTS_H
#define TF_HARNESS_INPUTS_H

#include "harness/run.h"

/* The list of packages in the guest that @spec asks for, made with it; malloc'ed. NULL without
 * memory. */
char *tf_inputs_list(const char *root, const struct tf_spec *spec);

/* Tells @report of each package that is not the pinned version, in any guest of @cells or in
 * their QEMU. */
void tf_inputs_report(const char *root, const struct tf_cells *cells, struct tf_report *report);

#endif
