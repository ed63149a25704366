/* SPDX-License-Identifier: MIT */
/* telebed exec: a command in a machine that is made for it. */
#include <argp.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <unistd.h>

#include "harness/bed.h"
#include "qemu/io.h"

#define BIN      "/tmp/bin/"
#define WORK     "/tmp/work"
#define WITH_MAX 64

struct arguments {
	char **args; /* machine and command */
	const char *with[WITH_MAX], *machines;
	unsigned n_with;
};

enum { KEY_WITH = 'w', KEY_MACHINES = 'm' };

/* Files go where they are here, below the command's folder. */
static int put_files(struct tf_bed *b, const struct arguments *a)
{
	int rc = 0;

	for (unsigned i = 0; i < a->n_with && rc == 0; i++) {
		tf_vm_autofree char *there = tf_vm_format(WORK "/%s", a->with[i]);
		struct stat st;

		if (stat(a->with[i], &st) < 0)
			return tf_vm_fail_errno(&b->err, -errno, "%s", a->with[i]);
		rc = there ? tf_vm_put(b->vm, a->with[i], there, st.st_mode & 0777, &b->err)
			   : tf_vm_fail(&b->err, -ENOMEM, "no memory");
	}
	return rc;
}

/* A program that is a file of the host's is put into the guest first. */
static int command(struct tf_bed *b, const struct arguments *a, char **argv)
{
	struct tf_vm_callbacks cb = tf_bed_callbacks;
	struct tf_vm_command cmd = {
		.argv = (const char *const *)argv,
		.cwd = a->n_with ? WORK : NULL,
	};
	tf_vm_autofree char *there = NULL;
	struct stat st;
	uint32_t job;
	int rc = put_files(b, a);

	cb.arg = b;
	if (rc == 0 && strchr(argv[0], '/') && stat(argv[0], &st) == 0 && S_ISREG(st.st_mode)) {
		there = tf_vm_format(BIN "%s", strrchr(argv[0], '/') + 1);
		rc = there ? tf_vm_put(b->vm, argv[0], there, 0755, &b->err) : -ENOMEM;
		argv[0] = there;
	}
	if (rc == 0)
		rc = tf_bed_spawn(b, &cmd, &job);
	while (rc == 0 && !b->closed && !b->dead)
		tf_vm_wait(&b->vm, 1, &cb, 60000);
	return b->dead ? -ECHILD : rc;
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct arguments *a = state->input;

	switch (key) {
	case KEY_WITH:
		if (a->n_with == WITH_MAX)
			argp_error(state, "more than %d files", WITH_MAX);
		else if (arg[0] == '/' || strstr(arg, ".."))
			argp_error(state, "--with %s: expected a file below this folder", arg);
		else
			a->with[a->n_with++] = arg;
		return 0;
	case KEY_MACHINES:
		a->machines = arg;
		return 0;
	case ARGP_KEY_ARGS:
		if (state->argc - state->next < 2)
			argp_usage(state);
		a->args = state->argv + state->next;
		return 0;
	case ARGP_KEY_NO_ARGS:
		argp_usage(state);
	}
	return ARGP_ERR_UNKNOWN;
}

int tf_bed_exec(int argc, char **argv)
{
	static const struct argp_option options[] = {
		{"with", KEY_WITH, "FILE", 0,
			"Put FILE, named from here, into the same place of the folder in which the "
			"command then runs",
			0},
		{"machines", KEY_MACHINES, "FILE", 0, "Further rows of machines", 0},
		{0},
	};
	static const struct argp argp = {.options = options,
		.parser = parse,
		.args_doc = "MACHINE -- COMMAND [ARG...]",
		.doc = "Runs a command in a fresh machine (telebed machines shows them), with its "
		       "output and its exit code. The machine has a small Debian: a COMMAND with a slash that "
		       "is a file here is copied there first."};
	struct tf_bed b = {0};
	struct arguments a = {0};
	char **args;
	int rc;

	if (argp_parse(&argp, argc, argv, ARGP_IN_ORDER, NULL, &a) || !a.args)
		return EX_USAGE;
	args = a.args;
	rc = tf_bed_start(&b, args[0], a.machines);
	args += strcmp(args[1], "--") ? 1 : 2;
	if (rc == 0)
		rc = *args ? command(&b, &a, args) : tf_vm_fail(&b.err, -EINVAL, "no command");
	tf_bed_end(&b);
	return tf_bed_exit_code(&b, rc);
}
