/* SPDX-License-Identifier: MIT */
/* See keep.h. */
#include "harness/keep.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "harness/alone.h"
#include "harness/inputs.h"
#include "qemu/io.h"

#define SUMS_MS   60000
#define FILES_MAX (TF_CELL_ARGS + 6 * TF_CELL_MACHINES + 8)

/* --- the cell again --- */

static void put_quoted(FILE *f, const char *word)
{
	fputc('\'', f);
	for (; *word; word++)
		fputs(*word == '\'' ? "'\\''" : (char[2]){*word}, f);
	fputc('\'', f);
}

static void keep_repro(const struct tf_journey *j)
{
	const struct tf_run_options *o = j->options;
	tf_vm_autofree char *scenario = tf_vm_format("%s/%s.conf", j->folder, j->cell->scenario);
	tf_vm_autofree char *path = tf_vm_format("%s/repro.sh", j->folder);
	tf_vm_autofree char *machines = o->machines ? realpath(o->machines, NULL) : NULL;
	const char *cache = getenv("TELEFORK_CACHE");
	FILE *f = path && scenario ? fopen(path, "we") : NULL;

	if (!f)
		return;
	tf_vm_copy_file(j->cell->file, scenario, NULL);
	fputs("#!/bin/sh\n# This cell again; its folder is kept in \"again\", beside this file.\n"
	      "here=$(cd \"$(dirname \"$0\")\" && pwd) || exit\n",
		f);
	if (cache) {
		fputs("TELEFORK_CACHE=", f);
		put_quoted(f, cache);
		fputs(" \\\n", f);
	}
	fputs("exec ", f);
	put_quoted(f, o->telebed);
	fputs(" run \"$here\"/", f);
	put_quoted(f, strrchr(scenario, '/') + 1);
	fputs(" --filter =", f);
	put_quoted(f, j->cell->name);
	fprintf(f, " --seed %" PRIu64, o->seed);
	if (machines) {
		fputs(" --machines ", f);
		put_quoted(f, machines);
	}
	if (j->outcome->repetition)
		fprintf(f, " --repeat %u", j->outcome->repetition + 1);
	fprintf(f, " --keep --out \"$here/again\"%s \"$@\"\n", o->record ? " --record" : "");
	fchmod(fileno(f), 0700);
	fclose(f);
}

/* --- what it began with --- */

struct files {
	char *v[FILES_MAX + 1];
	size_t n;
};

/* Takes @path over; a second one of the same is dropped. */
static void add(struct files *list, char *path)
{
	bool known = !path || list->n == FILES_MAX || (path[0] == '/' && access(path, R_OK));

	for (size_t i = 0; !known && i < list->n; i++)
		known = !strcmp(list->v[i], path);
	if (known)
		free(path);
	else
		list->v[list->n++] = path;
}

static void add_machine(const struct tf_journey *j, const struct tf_spec *spec, struct files *list)
{
	const char *root = j->options->root, *variant = j->options->variant;
	static const char *const programs[] = {"telefork", "telefork-pad", "telefork-witness"};
	char kernel[4096], initramfs[4096];
	struct tf_remote m = {.spec = *spec};

	if (spec->tier == TF_TIER_USER) {
		add(list, tf_vm_format("%s%s", spec->qemu[0] ? "" : "qemu-",
				  spec->qemu[0] ? spec->qemu : spec->arch));
	} else if (spec->tier != TF_TIER_NATIVE &&
		   tf_spec_guest(root, spec, kernel, initramfs, NULL) == 0) {
		add(list,
			strdup(spec->qemu[0] ? spec->qemu : tf_vm_qemu_program(tf_spec_on(spec))));
		add(list, strdup(kernel));
		add(list, strdup(initramfs));
	}
	for (size_t i = 0; i < sizeof(programs) / sizeof(*programs); i++)
		add(list, tf_vm_format(
				  "%s/build/%s%s/bin/%s", root, spec->arch, variant, programs[i]));
	add(list, tf_journey_program(j, &m));
	for (unsigned i = 0; j->cell->files[i]; i++)
		add(list, tf_journey_file(j, &m, j->cell->files[i]));
}

static void copy_lines(FILE *to, const char *path)
{
	FILE *from = fopen(path, "re");
	char line[1024];

	while (from && fgets(line, sizeof(line), from))
		fputs(line, to);
	if (from)
		fclose(from);
}

/* Versions of this program, the host and the packages in guests. */
static void put_versions(const struct tf_journey *j, FILE *f)
{
	const struct tf_cell *c = j->cell;
	struct utsname u;

	fprintf(f, "telebed %s\n", TF_VERSION);
	if (uname(&u) == 0)
		fprintf(f, "host: %s %s %s %s\n", u.sysname, u.release, u.version, u.machine);
	for (unsigned i = 0; i < c->n_machines; i++) {
		tf_vm_autofree char *path = tf_inputs_list(j->options->root, &c->machines[i]);

		if (!path || c->machines[i].tier < TF_TIER_SYSTEM)
			continue;
		fprintf(f,
			"machine %s: kind, architecture, package, version, SHA-256, = or the "
			"pinned version\n",
			c->machine_names[i]);
		copy_lines(f, path);
	}
}

/* Sums of files, and of programs, named without a folder, with what they say of themselves. */
static void put_sums(struct files *list, const char *to)
{
	const char *argv[FILES_MAX + 5] = {"sh", "-c",
		"for f; do\n"
		"	case $f in */*) ;; *) \"$f\" --version | head -n 1; f=$(command -v \"$f\") ;; esac\n"
		"	sha256sum \"$f\"\n"
		"done",
		"sh"};
	struct tf_vm_error ignored;
	struct tf_vm_child *child;

	memcpy(argv + 4, list->v, list->n * sizeof(*argv));
	if (tf_vm_child_start(argv, NULL, 0, to, &child, &ignored) < 0)
		return;
	tf_vm_child_ended(child, SUMS_MS, NULL);
	tf_vm_child_free(child);
}

static void keep_inputs(const struct tf_journey *j)
{
	tf_vm_autofree char *path = tf_vm_format("%s/inputs.txt", j->folder);
	struct files list = {0};
	FILE *f = path ? fopen(path, "we") : NULL;

	if (!f)
		return;
	put_versions(j, f);
	fclose(f);
	add(&list, strdup(j->options->telebed));
	add(&list, tf_vm_format("%s/%s.conf", j->folder, j->cell->scenario));
	for (unsigned i = 0; i < j->cell->n_machines; i++)
		add_machine(j, &j->cell->machines[i], &list);
	put_sums(&list, path);
	for (size_t i = 0; i < list.n; i++)
		free(list.v[i]);
}

/* --- for telebed replay --- */

static void keep_program(const struct tf_journey *j)
{
	struct tf_remote m = {.spec = j->cell->machines[j->cell->route[0]]};
	tf_vm_autofree char *from = tf_journey_program(j, &m);
	tf_vm_autofree char *to = tf_vm_format("%s/" TF_KEEP_PROGRAM, j->folder);

	if (!j->cell->program && from && to)
		tf_vm_copy_file(from, to, NULL);
}

static void keep_cell(const struct tf_journey *j)
{
	const struct tf_cell *c = j->cell;
	const struct tf_spec *spec = &c->machines[c->route[0]];
	tf_vm_autofree char *path = tf_vm_format("%s/" TF_KEEP_CELL, j->folder);
	tf_vm_autofree char *text = NULL;
	struct tf_vm_machine m = {0};
	char cache[4096];
	json_t *all;

	if (tf_alone_is(c) && tf_vm_cachedir(cache, sizeof(cache), NULL) == 0)
		tf_spec_describe(spec, cache, &m, NULL);
	all = json_pack("{s:s, s:s, s:s, s:s, s:s, s:i, s:s, s:s, s:i, s:s, s:I}", "cell", c->name,
		"build", c->build, "arch", spec->arch, "tier", tf_tier_names[spec->tier], "machine",
		c->machine_names[c->route[0]], "machines", (int)c->n_machines, "qemu", m.qemu,
		"cpu", m.cpu, "memory", (int)m.memory_mib, "board", m.board, "seed",
		(json_int_t)(uint32_t)j->seed);
	text = all ? json_dumps(all, JSON_INDENT(1)) : NULL;
	json_decref(all);
	if (path && text)
		tf_vm_write_file(path, text, strlen(text), NULL);
}

void tf_keep(const struct tf_journey *j)
{
	keep_repro(j);
	keep_inputs(j);
	keep_program(j);
	keep_cell(j);
}
