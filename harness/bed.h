/* SPDX-License-Identifier: MIT */
/* One machine by hand: made for a command, ended with it (telebed exec, shell). */
#ifndef TF_HARNESS_BED_H
#define TF_HARNESS_BED_H

#include "harness/janitor.h"
#include "harness/machines.h"
#include "qemu/remote.h"

struct tf_bed {
	struct tf_vm_error err;
	struct tf_home home;
	struct tf_rows rows;
	struct tf_site site;
	char run[32]; /* its folder */
	struct tf_janitor *janitor;
	struct tf_remote *machine;
	struct tf_vm *vm;
	int status; /* of the command; -1: not ended */
	bool closed, dead;
};

/* Starts the machine of the row @name, @machines: file of further rows or NULL. What is wrong is in
 * b->err. To be ended in any case. */
int tf_bed_start(struct tf_bed *b, const char *name, const char *machines);

void tf_bed_end(struct tf_bed *b);

/* Starts the command, under an emulator if the machine's programs have one. */
int tf_bed_spawn(struct tf_bed *b, const struct tf_vm_command *command, uint32_t *ret_job);

/* Output goes to our own; the end is noted in @b, which is what arg is. */
extern const struct tf_vm_callbacks tf_bed_callbacks;

/* For the end: says what was wrong; the exit code. */
int tf_bed_exit_code(const struct tf_bed *b, int rc);

#endif
