/* SPDX-License-Identifier: MIT */
/*
 * telebed replay: the folder of a kept cell, in gdb. Of a cell of tier icount it is the run itself,
 * at the point where it failed (rewind.c); of others the last image.
 */
#include <argp.h>
#include <dirent.h>
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

#include "harness/command.h"
#include "harness/keep.h"
#include "harness/remote.h"
#include "harness/rewind.h"
#include "qemu/io.h"

static int read_cell(struct tf_rewind *r)
{
	tf_vm_autofree char *path = tf_vm_format("%s/" TF_KEEP_CELL, r->folder);
	json_error_t why;

	r->cell = path ? json_load_file(path, 0, &why) : NULL;
	if (!r->cell)
		return tf_vm_fail(&r->err, -ENOENT,
			"%s: not the folder of a kept cell (telebed run says where one is): %s",
			r->folder, path ? why.text : "no memory");
	return 0;
}

static int is_image(const struct dirent *e)
{
	size_t n = strlen(e->d_name);

	return n > 3 && !strcmp(e->d_name + n - 3, ".tf");
}

/* The last image that was taken: of those with a number, the highest. */
static char *find_image(const char *folder)
{
	struct dirent **list = NULL;
	int n = scandir(folder, &list, is_image, versionsort);
	char *path = n > 0 ? tf_vm_format("%s/%s", folder, list[n - 1]->d_name) : NULL;

	for (int i = 0; i < n; i++)
		free(list[i]);
	free(list);
	return path;
}

static int open_image(struct tf_rewind *r)
{
	tf_vm_autofree char *image = find_image(r->folder);
	tf_vm_autofree char *program = tf_vm_format("%s/" TF_KEEP_PROGRAM, r->folder);
	const char *argv[16] = {TF_REWIND_GDB, "-nx", "-q"};
	size_t n = 3;

	printf("%s: tier %s has no recording: %s; only machines of tier icount are the same each time\n",
		tf_rewind_text(r, "cell"), tf_rewind_text(r, "tier"),
		json_integer_value(json_object_get(r->cell, "machines")) > 1
			? "what its machines do depends on each other's and the host's time"
			: "what its machine does depends on the host's time");
	if (!image)
		return tf_vm_fail(&r->err, -ENOENT,
			"%s: no image was taken in this cell either; said.txt has what was said, and "
			"repro.sh runs it again",
			r->folder);
	printf("its last image instead: %s\n", image);
	fflush(stdout);
	argv[n++] = "-c";
	argv[n++] = image;
	if (program && access(program, R_OK) == 0)
		argv[n++] = program;
	if (r->batch) {
		argv[n++] = "-batch";
		argv[n++] = "-ex";
		argv[n++] = "x/i $pc";
		argv[n++] = "-ex";
		argv[n++] = "backtrace 20";
	}
	return tf_rewind_gdb(r, argv);
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct tf_rewind *r = state->input;

	switch (key) {
	case 'b':
		r->batch = true;
		return 0;
	case ARGP_KEY_ARG:
		if (r->folder)
			argp_usage(state);
		r->folder = arg;
		return 0;
	case ARGP_KEY_NO_ARGS:
		argp_usage(state);
	}
	return ARGP_ERR_UNKNOWN;
}

int tf_bed_replay(int argc, char **argv)
{
	static const struct argp_option options[] = {
		{"batch", 'b', 0, 0,
			"No terminal: print the failing point and the instruction before, and end",
			0},
		{0},
	};
	static const struct argp argp = {.options = options,
		.parser = parse,
		.args_doc = "FOLDER",
		.doc = "Opens the folder of a kept cell in gdb. A cell of tier icount is run again, "
		       "out of its recording, to where it failed; reverse-stepi and reverse-continue "
		       "go back from there. Of another cell it is the last image."};
	struct tf_rewind r = {0};
	int rc;

	if (argp_parse(&argp, argc, argv, 0, NULL, &r))
		return EX_USAGE;
	rc = read_cell(&r);
	if (rc == 0)
		rc = strcmp(tf_rewind_text(&r, "tier"), tf_tier_names[TF_TIER_ICOUNT])
			     ? open_image(&r)
			     : tf_rewind(&r);
	if (rc < 0)
		fprintf(stderr, "telebed: %s\n", r.err.text);
	json_decref(r.cell);
	return rc == -ENOENT || rc == -EINVAL ? EX_NOINPUT : rc < 0 ? EX_UNAVAILABLE : rc;
}
