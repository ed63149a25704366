/* SPDX-License-Identifier: MIT */
/* telefork restore FILE: a process from a saved image or a stream, or (--dry-run) its plan as text.
 */
#include "core/base/cleanup.h"
#include "core/cmd/cmd.h"
#include "core/cmd/timing.h"
#include "core/restore/zygote.h"

#include <argp.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct arguments {
	bool dry_run, detach, timing;
	unsigned restore; /* TELEFORK_RESTORE_* */
	unsigned copies;  /* 0: the process itself */
	const char *file;
};

/* What a restore can go without, a list with commas. NULL, or the name that is none. */
static const char *allow(char *list, unsigned *restore)
{
	static const struct {
		const char *name;
		unsigned flag;
	} kinds[] = {
		{"files", TELEFORK_RESTORE_HOLD_FILES},
		{"credentials", TELEFORK_RESTORE_OWN_USER},
		{"shared-file", TELEFORK_RESTORE_PART_FILES},
		{"shared-memory", TELEFORK_RESTORE_PART_MEMORY},
	};
	char *name;

	while ((name = strsep(&list, ","))) {
		size_t i = 0;

		while (i < sizeof(kinds) / sizeof(*kinds) && strcmp(name, kinds[i].name) != 0)
			i++;
		if (i == sizeof(kinds) / sizeof(*kinds))
			return name;
		*restore |= kinds[i].flag;
	}
	return NULL;
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct arguments *a = state->input;
	const char *unknown;

	switch (key) {
	case 'n':
		a->dry_run = true;
		return 0;
	case 'd':
		a->detach = true;
		a->restore |= TELEFORK_RESTORE_DETACHED;
		return 0;
	case 'p':
		if (!strcmp(arg, "same"))
			a->restore |= TELEFORK_RESTORE_SAME_PID;
		else if (!strcmp(arg, "new"))
			a->restore &= ~TELEFORK_RESTORE_SAME_PID;
		else
			argp_error(state, "--pid %s: same or new", arg);
		return 0;
	case 'a':
		unknown = allow(arg, &a->restore);
		if (unknown)
			argp_error(state,
				"--allow %s: it can go without files, credentials, shared-file and shared-memory",
				unknown);
		return 0;
	case 'c':
		a->copies = (unsigned)strtoul(arg, NULL, 10);
		if (!a->copies || a->copies > TF_LITTER_MAX)
			argp_error(state, "--copies %s: 1 to %u", arg, TF_LITTER_MAX);
		a->restore |= TF_RESTORE_ZYGOTE;
		return 0;
	case 't':
		a->timing = true;
		return 0;
	case ARGP_KEY_ARG:
		if (a->file)
			argp_error(state, "one FILE only");
		a->file = arg;
		return 0;
	case ARGP_KEY_END:
		if (!a->file)
			argp_error(state, "which FILE?");
		if (a->copies && a->restore & TELEFORK_RESTORE_SAME_PID)
			argp_error(state, "--copies: they cannot all have the same ids");
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

/* The process is on its own from now on. */
static int tell_pid(pid_t pid)
{
	printf("%d\n", (int)pid);
	if (!fflush(stdout) && !ferror(stdout))
		return TF_EXIT_OK;
	tf_complain("standard output", strerror(errno));
	return TF_EXIT_IO;
}

static int wait_for(pid_t pid)
{
	int status = 0;

	return tf_zygote_wait(pid, &status) ? TF_EXIT_SYSTEM : tf_exit_status(status);
}

/* The file's zygote gives birth once. */
static int start_copies(struct tf_pad *p, const struct arguments *a, pid_t *pids)
{
	int rc;

	rc = tf_pad_hold(p);
	if (!rc)
		rc = tf_zygote_make(p, a->copies, 1, pids);
	if (!rc)
		rc = tf_zygote_end(p, true);
	return rc;
}

/* The first exit code that is not 0. */
static int tell_or_wait(const struct arguments *a, const pid_t *pids)
{
	int code = 0;

	for (unsigned i = 0; i < a->copies + !a->copies; i++) {
		int one = a->detach ? tell_pid(pids[i]) : wait_for(pids[i]);

		code = code ? code : one;
	}
	return code;
}

/* Returns the exit code: of the process, if there is one. */
static int restore(const struct arguments *a, int fd)
{
	struct telefork_options o = {.stdio = TELEFORK_STDIO_INHERIT, .restore = a->restore};
	struct tf_timing timing = {.on = a->timing};
	struct tf_pad pad;
	TF_FREE pid_t *pids = calloc(a->copies + 1, sizeof(*pids));
	int rc, code;

	if (!pids)
		return TF_EXIT_SYSTEM;
	tf_timing_begin(&timing, "description");
	rc = tf_pad_prepare(&pad, fd, &o);
	if (pad.head_ns)
		tf_timing_began(&timing, "plan", pad.head_ns);
	if (!rc && pad.left.code)
		tf_complain("left behind", pad.left.text);
	if (!rc && !a->dry_run) {
		tf_timing_begin(&timing, "restore");
		rc = a->copies ? start_copies(&pad, a, pids) : tf_pad_start(&pad);
	}
	tf_timing_tell(&timing);
	if (rc == TELEFORK_E_PROTOCOL && !pad.file)
		tf_fail_more(
			&pad.err, rc, "a saved image has to be a file: restore FILE, or - < FILE");
	if (rc) {
		/* NOLINTNEXTLINE(clang-analyzer-unix.Malloc): pids is freed by its attribute */
		tf_complain(!strcmp(a->file, "-") ? "standard input" : a->file, pad.err.text);
		code = tf_exit_code(rc);
	} else if (a->dry_run) {
		code = print_plan(&pad);
	} else {
		tf_announce(&pad);
		pids[0] = a->copies ? pids[0] : pad.child;
		code = tell_or_wait(a, pids);
	}
	tf_pad_done(&pad);
	return code;
}

int tf_cmd_restore(int argc, char **argv)
{
	static const struct argp_option options[] = {
		{"dry-run", 'n', 0, 0, "Print the plan, step by step; start nothing", 0},
		{"pid", 'p', "same|new", 0,
			"Process and thread ids: those that they had, or new ones (new)", 0},
		{"detach", 'd', 0, 0,
			"Do not wait for the process: print its id as the last line, and end", 0},
		{"allow", 'a', "files", 0,
			"Go on without something: files, those that it had open and that are not "
			"here; credentials, those that this user may not give it; shared-file, "
			"what it maps shared and writes to and that is another here; "
			"shared-memory, names and keys that are in use here",
			0},
		{"copies", 'c', "N", 0, "Make N copies of it, which share memory (1 to 4096)", 0},
		{"timing", 't', 0, 0, "Say when each phase began and ended, for programs", 0},
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
