/* SPDX-License-Identifier: MIT */
/* The commands of telebed(1), and where things are. */
#ifndef TF_HARNESS_COMMAND_H
#define TF_HARNESS_COMMAND_H

#include <stddef.h>

#include "qemu/error.h"

/* Each command: argv[0] is its name; returns the exit code. */
int tf_bed_run(int argc, char **argv);
int tf_bed_report(int argc, char **argv);
int tf_bed_list(int argc, char **argv);
int tf_bed_exec(int argc, char **argv);
int tf_bed_shell(int argc, char **argv);
int tf_bed_cp(int argc, char **argv);
int tf_bed_torture(int argc, char **argv);
int tf_bed_replay(int argc, char **argv);
int tf_bed_machines(int argc, char **argv);
int tf_bed_schema(int argc, char **argv);
int tf_bed_mutants(int argc, char **argv);

/* Where this program lives: ROOT/build/ARCH[-VARIANT]/bin/telebed. */
struct tf_home {
	char exe[4096];
	char root[4096];
	char variant[64]; /* with its dash, or "" */
};

/* Finds out from /proc/self/exe. -ENOENT if it is not in a build folder. */
int tf_home_find(struct tf_home *p, struct tf_vm_error *err);

/* The build's own programs come last in PATH: QEMUs beside the system's. */
void tf_home_programs(const struct tf_home *p);

#endif
