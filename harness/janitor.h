/* SPDX-License-Identifier: MIT */
/*
 * Who cleans up when telebed cannot: a process that waits for the end of telebed, by Ctrl-C, by
 * kill -9 or otherwise, and of everything that telebed has started, and then removes what nobody
 * has a use for from the folder of the run.
 */
#ifndef TF_HARNESS_JANITOR_H
#define TF_HARNESS_JANITOR_H

#include "qemu/error.h"

struct tf_janitor;

/* Whose a folder is. */
enum tf_janitor_folder {
	TF_JANITOR_OURS,  /* all of it goes */
	TF_JANITOR_CELLS, /* what was there before stays, files do, and what a cell that has come to
			   * its end has left (a folder with a said.txt) */
};

/* From now on, until tf_janitor_dismiss. To be called before anything is started or put there. */
int tf_janitor_start(const char *folder, enum tf_janitor_folder whose, struct tf_janitor **ret,
	struct tf_vm_error *err);

/* All is in order: nothing is to be cleaned up. NULL is fine. */
void tf_janitor_dismiss(struct tf_janitor *j);

#endif
