/* SPDX-License-Identifier: MIT */
/*
 * Machines by name. A row says what a machine is; those that come with telebed are one table,
 * others are declared in files. Scenarios, `telebed exec`, `shell` and `cp` name rows.
 */
#ifndef TF_HARNESS_MACHINES_H
#define TF_HARNESS_MACHINES_H

#include <stdbool.h>

#include "harness/command.h"
#include "harness/remote.h"
#include "harness/schema.h"

/* Where a system machine has the emulator of its programs, if they are of another architecture. */
#define TF_EMULATOR "/tmp/emulator"

/* How the programs of the QEMU end that comes beside the system's (qemu/guest/mkqemu.sh). */
#define TF_QEMU_NEWER "-newer"

struct tf_row {
	char name[32];
	char help[120];
	struct tf_spec spec;
	bool has_arch, has_tier; /* said by its own group, or by the row it starts from */
	const char *file;        /* where it is declared; NULL: it comes with telebed */
};

struct tf_rows {
	struct tf_row *v;
	size_t n, cap;
	char *files[4]; /* that were read */
	unsigned n_files;
};

/*
 * The rows of telebed, then those of $XDG_CONFIG_HOME/telebed/machines.conf and machines.conf in
 * the current folder, where there are such, then those of @file (NULL: none), which has to be
 * there. A later row of the same name takes the place of the earlier one. Release with tf_rows_done
 * in any case. -EINVAL: what the schema does not allow; -ENOENT.
 */
int tf_rows_read(struct tf_rows *rows, const char *file, struct tf_vm_error *err);

void tf_rows_done(struct tf_rows *rows);

/* NULL if there is none. */
const struct tf_row *tf_rows_find(const struct tf_rows *rows, const char *name);

/* As tf_rows_find; -EINVAL and where to look if there is none. */
int tf_rows_get(const struct tf_rows *rows, const char *name, const struct tf_row **ret,
	struct tf_vm_error *err);

/* Reads the group @s, a machine of a scenario or of a file, into @row: what the row that it starts
 * from says, and then its own attributes. Names of files are taken from the folder of the file. */
int tf_row_read(const struct tf_conf *r, const struct tf_rows *rows, const config_setting_t *s,
	struct tf_row *row);

/* Whether such a machine can be had here. Else @why says what is missing and what helps. */
bool tf_spec_possible(const struct tf_home *home, const struct tf_spec *spec, char why[static 256]);

/* The files that a machine of tier system starts from. -ENAMETOOLONG. */
int tf_spec_guest(const char *root, const struct tf_spec *spec, char kernel[static 4096],
	char initramfs[static 4096], struct tf_vm_error *err);

/* What QEMU is to be for a machine of tier system (remote_guest.c). @cache: tf_vm_cachedir(). */
int tf_spec_describe(const struct tf_spec *spec, const char *cache, struct tf_vm_machine *m,
	struct tf_vm_error *err);

/* The machine's own architecture: of a system machine that may not be that of its programs. */
const char *tf_spec_on(const struct tf_spec *spec);

/* Whether its programs run under QEMU user mode, where there is no ptrace. */
bool tf_spec_emulates(const struct tf_spec *spec);

/* Gives @spec what @own says of its attributes. */
void tf_spec_merge(struct tf_spec *spec, const struct tf_spec *own);

/* One line: architecture, tier and what is not as usual. */
const char *tf_spec_text(const struct tf_spec *spec, char *buf, size_t size);

/* The attributes of a machine, for the reference. */
extern const struct tf_key tf_machine_keys[];
extern const size_t tf_n_machine_keys;

#endif
