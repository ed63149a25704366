/* SPDX-License-Identifier: MIT */
/*
 * What a report has of a cell beside verdict and counts, kept as JSON from the moment that it is
 * seen: the machines, the phases of each move, and every difference that a witness found. The
 * members are described in docs/report.schema.json.
 */
#ifndef TF_HARNESS_EVIDENCE_H
#define TF_HARNESS_EVIDENCE_H

#include "core/image/compare.h"
#include "harness/run.h"

/* The cell's clock starts; tf_evidence_done() closes the last step, and takes from all jobs what
 * telefork said of its phases (--timing). */
void tf_evidence_begin(struct tf_journey *j);
void tf_evidence_done(struct tf_journey *j);

/* A step of the testbed itself begins ("probe", "witness"); the one before ends. */
void tf_evidence_step(struct tf_journey *j, const char *name);

/* Takes the lines of --timing out of what a program said: they are no reason for anything. */
void tf_evidence_strip(char *text);

/* What the machines of the cell are: kernel, processor, QEMU. */
void tf_evidence_machines(struct tf_journey *j);

/* Differences that were told so far are forgotten: the witness looks again. */
void tf_evidence_forget(struct tf_journey *j);

/* One inequality between two images. Of those that are excepted one of each kind is kept. */
void tf_evidence_difference(struct tf_journey *j, const struct tf_difference *d,
	const struct tf_file *a, const struct tf_file *b);

/* Where each thread of the image stands: address, instruction, function. */
void tf_evidence_stands(struct tf_journey *j, const struct tf_file *f);

/* QEMU and the image of @m disagree about a register (@address 0) or a byte. Texts are the image's
 * value and QEMU's. */
void tf_evidence_seen(struct tf_journey *j, const struct tf_remote *m, const char *name,
	uint64_t address, const char *image, const char *qemu);

#endif
