/* SPDX-License-Identifier: MIT */
/*
 * What a kept cell leaves in its folder, so that a failure can be understood and repeated:
 *
 *   said.txt    every program of the cell: machine, fate, standard output and error
 *   why.txt     what did not hold
 *   NAME/       of each machine: console.log, qemu.log, cmdline, link.pcap
 *   *.tf        images
 *   and what is in keep.h
 */
#ifndef TF_HARNESS_EXPLAIN_H
#define TF_HARNESS_EXPLAIN_H

#include "harness/run.h"

/* Writes all of it but the images, which are there. Best effort: what cannot be written is missing.
 */
void tf_explain(const struct tf_journey *j);

/* Of it said.txt: the jobs of @n machines, NULL among them for none. */
void tf_explain_jobs(const char *folder, struct tf_remote *const machines[], unsigned n);

#endif
