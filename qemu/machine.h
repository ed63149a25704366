/* SPDX-License-Identifier: MIT */
/*
 * What a machine is (architecture, CPU model, memory, cores), and the pure functions that turn
 * it into pieces of QEMU's command line. All that differs between architectures is one table
 * in machine.c. Only tf_vm_probe_kvm() touches the system.
 */
#ifndef TF_QEMU_MACHINE_H
#define TF_QEMU_MACHINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "qemu/error.h"

enum tf_vm_accel {
	TF_VM_TCG,
	TF_VM_KVM,
};

struct tf_vm_machine {
	char name[32]; /* for messages and folder names: [A-Za-z0-9._-] */
	char arch[16]; /* "x86_64" or "aarch64" */
	char cpu[128]; /* -cpu, without commas from untrusted places */
	unsigned int memory_mib;
	unsigned int cores;
	enum tf_vm_accel accel;
	char qemu[128]; /* QEMU's program; "": the architecture's, in PATH */
	char board[64]; /* further -M properties, "mte=on" for instance; "" for none */
};

/* The files a guest starts from, as made by qemu/guest/mkguest.sh. Strings are borrowed. */
struct tf_vm_guest {
	const char *kernel;
	const char *initramfs;
	const char *append; /* added to the kernel's command line, or NULL */
};

/* An argument list under construction. Zero-initialise; v[n] is always NULL. */
struct tf_vm_args {
	char **v;
	size_t n;
	size_t cap;
	bool failed; /* an allocation failed: the list must not be used */
};

/* Append one printf-formatted argument. Allocation failure is remembered in @args->failed. */
void tf_vm_args_add(struct tf_vm_args *args, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

/* @value for a place inside of one of QEMU's options, malloc'ed; NULL without memory. */
char *tf_vm_escape(const char *value);

/* Write the list into @path, one argument to a line, quoted for a shell. */
int tf_vm_args_write(const struct tf_vm_args *args, const char *path, struct tf_vm_error *err);

/* Free the strings and the vector; @args is empty afterwards. */
void tf_vm_args_done(struct tf_vm_args *args);

/*
 * Fill @m with the defaults of @arch: cpu "max" (x86_64) or "max,pauth-impdef=on" (aarch64),
 * 256 MiB, 1 core, TCG, name = arch. -EINVAL and a list of the known ones for another @arch.
 */
int tf_vm_machine_init(struct tf_vm_machine *m, const char *arch, struct tf_vm_error *err);

/* Check ranges and characters of every field (QEMU options must not be injected through them). */
int tf_vm_machine_check(const struct tf_vm_machine *m, struct tf_vm_error *err);

/* The QEMU program of @arch, "qemu-system-x86_64"; NULL for an unknown architecture. */
const char *tf_vm_qemu_program(const char *arch);

/* The QEMU program of @m: its own, or its architecture's. */
const char *tf_vm_machine_qemu(const struct tf_vm_machine *m);

/* The architecture of the host itself in our spelling ("x86_64", "aarch64"), from uname(2). */
const char *tf_vm_host_arch(void);

/* -M, -cpu, -smp, -m, -accel and the RAM object in file @ram (NULL: anonymous memory). */
void tf_vm_args_machine(
	struct tf_vm_args *args, const struct tf_vm_machine *m, const char *ram, bool share);

/* -kernel, -initrd and -append with the architecture's console. */
void tf_vm_args_kernel(
	struct tf_vm_args *args, const struct tf_vm_machine *m, const struct tf_vm_guest *guest);

/*
 * What every guest has: no defaults, no display, no reboot; the serial console into the file
 * @console; QMP on the inherited descriptor @qmp_fd; the virtio-serial port "ctl" on @ctl_fd.
 */
void tf_vm_args_common(struct tf_vm_args *args, const char *console, int qmp_fd, int ctl_fd);

/*
 * One virtio-net card with @mac, attached to the relay's socket @link_path, or to a hub with
 * nothing else in it if that is NULL (templates, guests without a network).
 */
void tf_vm_args_net(struct tf_vm_args *args, const char *link_path, const uint8_t mac[static 6]);

/* -incoming defer -S: a process that will be filled from a template. */
void tf_vm_args_incoming(struct tf_vm_args *args);

/*
 * Whether KVM works for @m: a QEMU of its architecture is run for at most 5 s with -accel kvm;
 * failure, abort and hang all count as "no". The answer is kept in @cachedir together with the
 * boot id. True only for the host's own architecture.
 */
bool tf_vm_probe_kvm(const struct tf_vm_machine *m, const char *cachedir);

/*
 * Write the cache folder into @buf: $TELEFORK_CACHE, else $XDG_CACHE_HOME/telefork, else
 * $HOME/.cache/telefork; the folder is made (mode 0700). -ENAMETOOLONG, -ENOENT (no HOME).
 */
int tf_vm_cachedir(char *buf, size_t size, struct tf_vm_error *err);

#endif
