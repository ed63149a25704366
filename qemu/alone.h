/* SPDX-License-Identifier: MIT */
/*
 * A machine by itself: no link, no agent, nothing of the host's time. Its clock counts instructions
 * (-icount), so two runs of the same files are the same bit by bit, and one that was recorded can
 * be gone through with a debugger in both directions. What it does is in its initramfs; it ends by
 * itself.
 */
#ifndef TF_QEMU_ALONE_H
#define TF_QEMU_ALONE_H

#include <stdint.h>

#include "qemu/child.h"
#include "qemu/machine.h"

enum tf_vm_alone_mode {
	TF_VM_ALONE_RUN,
	TF_VM_ALONE_RECORD, /* the same run, and `recording` and `snapshots` are made */
	TF_VM_ALONE_REPLAY, /* out of these; it stands until `gdb` lets it go */
};

/* Strings are borrowed. */
struct tf_vm_alone {
	struct tf_vm_machine machine; /* TCG, one core */
	const char *kernel, *initramfs, *append;
	uint32_t seed; /* of what the guest gets as random */
	enum tf_vm_alone_mode mode;
	const char *recording; /* file; not for TF_VM_ALONE_RUN */
	const char *snapshots; /* qcow2 file: the way back */
	const char *console;   /* file, made new */
	const char *log;       /* file: what QEMU says */
	const char *cmdline;   /* file: how it was started; or NULL */
	const char *gdb;       /* socket that gdb connects to; TF_VM_ALONE_REPLAY */
};

/* The command line, pure. */
void tf_vm_alone_args(struct tf_vm_args *args, const struct tf_vm_alone *a);

/*
 * Start it; with TF_VM_ALONE_RECORD the file for snapshots is made. It ends with the caller
 * (qemu/child.h). -EINVAL (machine), or what tf_vm_child_start says.
 */
int tf_vm_alone_start(
	const struct tf_vm_alone *a, struct tf_vm_child **ret_child, struct tf_vm_error *err);

#endif
