/* SPDX-License-Identifier: MIT */
/*
 * The third witness: the machine itself, seen from outside through QEMU. Nothing inside the guest,
 * its kernel included, can fool it. While a process stands at one instruction, the registers of the
 * machine's processor and the memory that its page tables lead to are what the process has.
 */
#ifndef TF_HARNESS_ORACLE_H
#define TF_HARNESS_ORACLE_H

#include "harness/run.h"

/*
 * Compares what QEMU shows of process @pid, which stands on machine @m (tier system), with the
 * image at @path that was taken of it there. Registers that QEMU does not show and pages that are
 * not in memory are not compared and not counted. Counts go to the cell's outcome; a difference
 * fails the cell. 0, or -ETIMEDOUT (the process was never on the processor) and what tf_gdb says.
 */
int tf_oracle_look(struct tf_journey *j, struct tf_remote *m, const char *pid, const char *path,
	struct tf_vm_error *err);

#endif
