/* SPDX-License-Identifier: MIT */
/* telefork restore [--dry-run] FILE: a process from a saved image, or its plan as text. */
#include "core/base/cleanup.h"
#include "core/cmd/cmd.h"
#include "core/restore/pad.h"

#include <argp.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <sysexits.h>

struct arguments {
	bool dry_run;
	const char *file;
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct arguments *a = state->input;

	switch (key) {
	case 'n':
		a->dry_run = true;
		return 0;
	case ARGP_KEY_ARG:
		if (a->file)
			argp_usage(state);
		a->file = arg;
		return 0;
	case ARGP_KEY_NO_ARGS:
		argp_usage(state);
	}
	return ARGP_ERR_UNKNOWN;
}

static void print_plan(const struct tf_pad *p)
{
	char text[512];

	for (uint64_t i = 0; i < p->restore.plan.n_steps; i++) {
		tf_step_text(&p->restore.plan.steps[i], text, sizeof(text));
		printf("%llu\t%s\n", (unsigned long long)i, text);
	}
}

static int exit_code(const char *file, const struct tf_err *e)
{
	fprintf(stderr, "telefork: %s: %s\n", file, e->text);
	return e->code == TELEFORK_E_IO ? EX_IOERR : EX_DATAERR;
}

int tf_cmd_restore(int argc, char **argv)
{
	static const struct argp_option options[] = {
		{"dry-run", 'n', 0, 0, "Print the plan, step by step; start nothing", 0},
		{0},
	};
	static const struct argp argp = {.options = options, .parser = parse, .args_doc = "FILE",
		.doc = "Makes a process from a saved image and waits for it."};
	struct telefork_options o = {.stdio = TELEFORK_STDIO_INHERIT};
	struct arguments a = {0};
	struct tf_pad pad;
	TF_CLOSE int fd = -1;
	int rc, status = 0;

	if (argp_parse(&argp, argc, argv, 0, NULL, &a))
		return EX_USAGE;
	fd = open(a.file, O_RDONLY | O_CLOEXEC);
	if (fd < 0) {
		fprintf(stderr, "telefork: %s: %s\n", a.file, strerror(errno));
		return EX_NOINPUT;
	}
	rc = tf_pad_prepare(&pad, fd, &o);
	if (!rc && a.dry_run)
		print_plan(&pad);
	else if (!rc)
		rc = tf_pad_start(&pad);
	if (rc)
		rc = exit_code(a.file, &pad.err);
	else if (!a.dry_run && telefork_child_wait(pad.child, &status) > 0)
		rc = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
	tf_pad_done(&pad);
	return rc;
}
