/* SPDX-License-Identifier: MIT */
/*
 * telefork verify PID FILE: a running process against an image. It stands still while an image of
 * it is written to a file without a name; that one is then compared as diff does.
 */
#include "core/base/cleanup.h"
#include "core/capture/task.h"
#include "core/cmd/cmd.h"
#include "core/cmd/diff.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct arguments {
	struct tf_diff diff;
	const char *file;
	int pid;
	char process[32]; /* how it is called */
};

static int nameless_file(struct tf_err *e)
{
	const char *folder = getenv("TMPDIR");
	int fd;

	if (!folder || !*folder)
		folder = P_tmpdir;
	fd = open(folder, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	return fd < 0 ? tf_fail_errno(e, TELEFORK_E_IO, errno, "a file in %s (TMPDIR)", folder)
		      : fd;
}

/* Writes an image of the process to fd. A process that was half asked must not be left by a signal
 * to us. */
static int look(pid_t pid, int fd, struct tf_err *e)
{
	static struct tf_task t;
	sigset_t all, before;
	int rc;

	sigfillset(&all);
	sigprocmask(SIG_BLOCK, &all, &before);
	rc = tf_task_stop(&t, pid);
	if (!rc)
		rc = tf_task_describe(&t);
	sigprocmask(SIG_SETMASK, &before, NULL);
	if (!rc)
		rc = tf_task_save(&t, fd);
	if (!rc)
		rc = tf_task_commit(&t);
	*e = t.capture.err;
	tf_task_release(&t);
	return rc;
}

static int compare(const struct arguments *a, const struct tf_file *then, int fd)
{
	char path[40];
	struct tf_err e = {0};
	struct tf_file now;
	int rc;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	rc = tf_file_open(&now, path, &e);
	if (rc) {
		tf_complain("verify", e.text);
		return tf_exit_code(rc);
	}
	rc = tf_diff_report(&a->diff, then, &now);
	if (rc == TF_EXIT_IMAGE && then->image.n_threads != now.image.n_threads)
		rc = TF_EXIT_DIFFERENT; /* it has said so */
	tf_file_close(&now);
	return rc;
}

static int verify(struct arguments *a)
{
	struct tf_err e = {0};
	struct tf_file then;
	TF_CLOSE int fd = -1;
	int rc = tf_file_open(&then, a->file, &e);

	if (rc) {
		tf_complain(NULL, e.text);
		return rc == TELEFORK_E_IO ? TF_EXIT_INPUT : tf_exit_code(rc);
	}
	snprintf(a->process, sizeof(a->process), "process %d", a->pid);
	a->diff.name[0] = a->file;
	a->diff.name[1] = a->process;
	rc = fd = nameless_file(&e);
	if (rc >= 0)
		rc = look(a->pid, fd, &e);
	if (rc)
		tf_complain("verify", e.text);
	rc = rc ? tf_exit_code(rc) : compare(a, &then, fd);
	tf_file_close(&then);
	return rc;
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct arguments *a = state->input;

	switch (key) {
	case ARGP_KEY_INIT:
		state->child_inputs[0] = &a->diff;
		return 0;
	case ARGP_KEY_ARG:
		if (state->arg_num > 1)
			argp_error(state, "one PID and one FILE");
		else if (state->arg_num)
			a->file = arg;
		else if ((a->pid = tf_parse_pid(arg)) < 0)
			argp_error(state, "%s is no process id", arg);
		return 0;
	case ARGP_KEY_END:
		if (state->arg_num < 2)
			argp_error(state, state->arg_num ? "which FILE?" : "which PID?");
		return 0;
	}
	return ARGP_ERR_UNKNOWN;
}

int tf_cmd_verify(int argc, char **argv)
{
	static const struct argp_child children[] = {{.argp = &tf_diff_argp}, {0}};
	static const struct argp argp = {.parser = parse,
		.args_doc = "PID FILE",
		.doc = "Compares a running process with an image of it, as diff does: registers, "
		       "mappings, memory page by page, and all other state. It stands still meanwhile "
		       "and goes on. The exit code says whether it is as it was.",
		.children = children,
		.help_filter = tf_exit_help};
	struct arguments a = {0};

	if (argp_parse(&argp, argc, argv, 0, NULL, &a))
		return TF_EXIT_USAGE;
	return verify(&a);
}
