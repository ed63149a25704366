/* SPDX-License-Identifier: MIT */
/*
 * A machine looked at from outside: a client of QEMU's gdb stub (GDB manual, appendix "Remote
 * Serial Protocol"). Nothing inside the guest can see it or fool it. While somebody is attached the
 * machine stands, unless told to go on. What the stub does not show (YMM registers, physical
 * addresses) is asked of QEMU's monitor.
 *
 * One machine, one processor: everything here is about the first.
 */
#ifndef TF_QEMU_GDB_H
#define TF_QEMU_GDB_H

#include "qemu/vm.h"

struct tf_gdb;

#define TF_GDB_VALUE_MAX 256 /* bytes of a register: z0 at the architectural maximum */

/*
 * Attach to @vm: it stands when this returns. Reads the description of its registers. A second
 * attachment is refused. -ETIMEDOUT, -EPROTO (not the protocol), -EPIPE, -EREMOTEIO (QEMU's words).
 */
int tf_gdb_attach(
	struct tf_vm *vm, int timeout_ms, struct tf_gdb **ret_gdb, struct tf_vm_error *err);

/* Detach and free: the machine goes on. NULL is fine. */
void tf_gdb_detach(struct tf_gdb *gdb);

/* Let the machine go on for @ms milliseconds, then stop it again. */
int tf_gdb_run(struct tf_gdb *gdb, int ms, struct tf_vm_error *err);

/*
 * The register that QEMU calls @name ("rax", "z0", "CONTEXTIDR_EL1"; "ymm0" by the monitor), in
 * the target's byte order: *@ret_size bytes of @value. -ENOENT: it shows no such register.
 */
int tf_gdb_register(struct tf_gdb *gdb, const char *name, uint8_t value[static TF_GDB_VALUE_MAX],
	size_t *ret_size, struct tf_vm_error *err);

#endif
