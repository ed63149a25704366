/* SPDX-License-Identifier: MIT */
/*
 * One QEMU process as a machine: start it cold or out of a template, ask for its descriptors,
 * end it. A struct tf_vm belongs to one thread at a time. Every QEMU lives under a small guard
 * process that kills it as soon as the program that started it is gone, kill -9 included.
 *
 * Files in the run folder of a vm: console.log (the guest's serial console), qemu.log (QEMU's
 * stderr) and cmdline (the command line, one argument to a line, to be looked at by hand).
 */
#ifndef TF_QEMU_VM_H
#define TF_QEMU_VM_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "qemu/error.h"
#include "qemu/machine.h"
#include "qemu/qmp.h"

struct tf_vm;
struct tf_vm_template;

/* Who a guest is on the link; two guests of one link must differ in all of it. */
struct tf_vm_identity {
	char host[64];
	uint8_t ipv4[4]; /* 0.0.0.0: leave the network down */
	uint8_t prefix;  /* bits */
	uint8_t mac[6];
	uint64_t seed; /* what its random pool gets follows from it; 0: real random bytes */
};

/* The identity number @n (1..254): vm<n>, 10.77.0.<n>/24, 52:54:00:4d:00:<n>. */
struct tf_vm_identity tf_vm_identity(unsigned int n);

struct tf_vm_config {
	struct tf_vm_machine machine; /* tf_vm_clone uses only its name, if it has one */
	struct tf_vm_guest guest;     /* tf_vm_clone: the template's is used */
	struct tf_vm_identity id;
	const char *rundir;       /* existing folder of this vm alone; log files go there */
	const char *link_path;    /* tf_link_path(), or NULL for no network */
	const char *const *extra; /* further QEMU arguments, NULL-terminated, or NULL */
	int timeout_ms;           /* until the agent answers; 0: 180,000 */
};

/*
 * Boot a machine cold, wait until its agent answers and give it its identity (tf_vm_setup).
 * Everything in @config is copied. Errors carry QEMU's stderr and the last console lines:
 * -ECHILD (QEMU ended), -ETIMEDOUT (no answer in time), -ENOENT (kernel, initramfs, program).
 */
int tf_vm_boot(const struct tf_vm_config *config, struct tf_vm **ret_vm, struct tf_vm_error *err);

/* As tf_vm_boot, but out of @tmpl (some 0.1 s); the template may be freed afterwards. */
int tf_vm_clone(const struct tf_vm_template *tmpl, const struct tf_vm_config *config,
	struct tf_vm **ret_vm, struct tf_vm_error *err);

/* The machine's facts, owned by @vm: description, identity, run folder. */
const struct tf_vm_machine *tf_vm_machine(const struct tf_vm *vm);
const struct tf_vm_identity *tf_vm_identity_of(const struct tf_vm *vm);
const char *tf_vm_rundir(const struct tf_vm *vm);

/* The QMP connection, owned by @vm. */
struct tf_qmp *tf_vm_qmp(struct tf_vm *vm);

/* Pid of QEMU. */
pid_t tf_vm_pid(const struct tf_vm *vm);

/* Milliseconds from the exec of QEMU to the agent's first answer. */
int tf_vm_ready_ms(const struct tf_vm *vm);

/* The processor's time that QEMU took for that: on a busy host it waits longer than it works. */
int tf_vm_ready_cpu_ms(const struct tf_vm *vm);

/* Stop the guest's CPUs (a paused machine), and let them go on. */
int tf_vm_pause(struct tf_vm *vm, struct tf_vm_error *err);
int tf_vm_resume(struct tf_vm *vm, struct tf_vm_error *err);

/* SIGKILL to QEMU (a dead machine); returns when it is reaped. @vm stays valid, calls fail. */
int tf_vm_kill(struct tf_vm *vm);

/* True once QEMU has ended; *@ret_status (may be NULL) is then its wait(2) status. */
bool tf_vm_dead(struct tf_vm *vm, int *ret_status);

/*
 * Put into @err why @vm does not answer: @what, whether QEMU lives, its last words on stderr
 * and the console's last lines. Returns -ECHILD if QEMU has ended, else @code.
 */
int tf_vm_explain(struct tf_vm *vm, int code, const char *what, struct tf_vm_error *err);

/* Kill QEMU if it still runs, close all, free. NULL is fine. Log files stay. */
void tf_vm_free(struct tf_vm *vm);

#endif
