/* SPDX-License-Identifier: MIT */
/*
 * What images say about a cell: how much was carried, and whether what arrived is what left. The
 * images come from the process itself or from a witness outside of it.
 */
#ifndef TF_HARNESS_COMPARE_H
#define TF_HARNESS_COMPARE_H

#include "harness/run.h"

/* Counts registers, mappings and bytes of the image at @path into the cell's outcome. An image that
 * cannot be read fails the cell. Returns 0. */
int tf_witness_count(struct tf_journey *j, const char *path);

/*
 * The witness, for a probe that was started with --wait.
 *
 * tf_witness_save: has it save itself, as @name on its machine, once it surely stands where it
 * waits, and fetches the image to @path. tf_witness_copy: when the image was made a process again
 * by @receiver, takes an image of that, from outside by ptrace (in QEMU user mode, which has none,
 * the copy saves itself again), and compares it with @original. tf_witness_socket: sends the probe
 * off to the last receiver, takes images of both from outside, and compares them.
 *
 * Whatever is different and not excepted is a loss and fails the cell; differences.txt in its
 * folder has all of it. Nobody is released. 0, or errors as tf_job_wait.
 */
int tf_witness_save(
	struct tf_journey *j, const char *name, const char *path, struct tf_vm_error *err);
int tf_witness_copy(struct tf_journey *j, struct tf_job *receiver, const char *original,
	const char *name, struct tf_vm_error *err);
int tf_witness_socket(struct tf_journey *j, struct tf_vm_error *err);

#endif
