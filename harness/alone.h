/* SPDX-License-Identifier: MIT */
/*
 * Cells of the tier "icount": the whole route lies in one machine by itself (qemu/alone.h), and
 * what happens there is the same each time, bit by bit. All of the cell is in the machine's
 * initramfs: the programs, and a script as its first process that runs them and says on the console
 * how each ended.
 */
#ifndef TF_HARNESS_ALONE_H
#define TF_HARNESS_ALONE_H

#include "harness/run.h"
#include "qemu/alone.h"

/* Whether the cell is of this tier. */
bool tf_alone_is(const struct tf_cell *cell);

/*
 * The journey of such a cell; as tf_journey_go. In the folder NAME of its machine are then kernel,
 * initramfs, console.log, qemu.log and cmdline; and recording and snapshots with options->record.
 */
int tf_alone_go(struct tf_journey *j, struct tf_vm_error *err);

/* The machine of a cell's folder NAME/. Names are kept in it. Release with tf_alone_files_done. */
struct tf_alone_files {
	struct tf_vm_alone alone;
	char *names[7];
};
int tf_alone_files(struct tf_alone_files *f, const char *folder, const struct tf_vm_machine *m,
	uint32_t seed, enum tf_vm_alone_mode mode, struct tf_vm_error *err);
void tf_alone_files_done(struct tf_alone_files *f);

#endif
