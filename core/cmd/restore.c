/* SPDX-License-Identifier: MIT */
/* telefork restore [--dry-run] FILE: a process from a saved image or a stream, or its plan as text.
 */
#include "core/base/cleanup.h"
#include "core/cmd/cmd.h"
#include "core/restore/pad.h"

#include <argp.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

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
			argp_error(state, "one FILE only");
		a->file = arg;
		return 0;
	case ARGP_KEY_END:
		if (!a->file)
			argp_error(state, "which FILE?");
		return 0;
	}
	return ARGP_ERR_UNKNOWN;
}

static int print_plan(const struct tf_pad *p)
{
	char text[512];

	for (uint64_t i = 0; i < p->restore.plan.n_steps; i++) {
		tf_step_text(&p->restore.plan.steps[i], text, sizeof(text));
		printf("%llu\t%s\n", (unsigned long long)i, text);
	}
	if (!fflush(stdout) && !ferror(stdout))
		return TF_EXIT_OK;
	tf_complain("standard output", strerror(errno));
	return TF_EXIT_IO;
}

/* "-": standard input, which the process over here then has no part in. */
static int open_image(const char *file)
{
	int fd, null;

	if (strcmp(file, "-") != 0)
		return open(file, O_RDONLY | O_CLOEXEC);
	fd = fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 3);
	null = fd < 0 ? -1 : open("/dev/null", O_RDONLY | O_CLOEXEC);
	if (null >= 0)
		dup2(null, STDIN_FILENO);
	if (null > STDIN_FILENO)
		close(null);
	return fd;
}

/* Returns the exit code: of the process, if there is one. */
static int restore(const struct arguments *a, int fd)
{
	struct telefork_options o = {.stdio = TELEFORK_STDIO_INHERIT};
	struct tf_pad pad;
	int status = 0, rc = tf_pad_prepare(&pad, fd, &o), code;

	if (!rc && !a->dry_run)
		rc = tf_pad_start(&pad);
	if (rc == TELEFORK_E_PROTOCOL && !pad.file)
		tf_fail_more(
			&pad.err, rc, "a saved image has to be a file: restore FILE, or - < FILE");
	if (rc) {
		tf_complain(!strcmp(a->file, "-") ? "standard input" : a->file, pad.err.text);
		code = tf_exit_code(rc);
	} else if (a->dry_run) {
		code = print_plan(&pad);
	} else {
		tf_announce(&pad);
		code = telefork_child_wait(pad.child, &status) > 0 ? tf_exit_status(status)
								   : TF_EXIT_SYSTEM;
	}
	tf_pad_done(&pad);
	return code;
}

int tf_cmd_restore(int argc, char **argv)
{
	static const struct argp_option options[] = {
		{"dry-run", 'n', 0, 0, "Print the plan, step by step; start nothing", 0},
		{0},
	};
	static const struct argp argp = {.options = options,
		.parser = parse,
		.args_doc = "FILE",
		.doc = "Makes a process from a saved image and waits for it. FILE may be - for an "
		       "image or a stream on standard input.",
		.help_filter = tf_exit_help};
	struct arguments a = {0};
	TF_CLOSE int fd = -1;

	if (argp_parse(&argp, argc, argv, 0, NULL, &a))
		return TF_EXIT_USAGE;
	fd = open_image(a.file);
	if (fd < 0) {
		tf_complain(a.file, strerror(errno));
		return TF_EXIT_INPUT;
	}
	return restore(&a, fd);
}
