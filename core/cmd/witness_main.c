/* SPDX-License-Identifier: MIT */
/*
 * telefork-witness: looks at a running process from outside and writes what it is into an image,
 * for `telefork diff` with what it was or should be. The process stands still meanwhile and goes on
 * unharmed. Small and static, so that it runs in any machine of the testbed.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include "core/capture/task.h"
#include "core/channel/channel.h"

static int usage(FILE *out)
{
	fprintf(out,
		"usage: telefork-witness PID FILE\n\n"
		"Stops process PID, writes an image of it to FILE and lets it go on. Needs the\n"
		"right to ptrace it. Exit code 0; 64: usage; 69: the process cannot be looked at;\n"
		"74: FILE cannot be written.\n");
	return out == stdout ? 0 : EX_USAGE;
}

static int complain(const struct tf_err *e)
{
	fprintf(stderr, "telefork-witness: %s\n", e->text);
	return e->code == TELEFORK_E_IO ? EX_IOERR : EX_UNAVAILABLE;
}

/* A process that was half asked must not be left by a signal to us. */
static void hold_signals(void)
{
	sigset_t all;

	sigfillset(&all);
	sigprocmask(SIG_BLOCK, &all, NULL);
}

static int look(pid_t pid, const char *path)
{
	static struct tf_task t;
	struct tf_err *e = &t.capture.err;
	int fd, rc = tf_task_stop(&t, pid);

	if (rc)
		return complain(e);
	fd = tf_file_create(path, e);
	rc = fd < 0 ? fd : tf_task_describe(&t);
	if (!rc)
		rc = tf_task_save(&t, fd);
	if (!rc)
		rc = tf_task_commit(&t);
	if (!rc)
		rc = tf_file_publish(fd, e);
	if (fd >= 0)
		tf_file_forget(fd);
	if (!rc)
		printf("%d: %u registers, %u mappings, %llu bytes%s\n", (int)pid,
			tf_regs_count(tf_arch_by_machine(t.capture.image.source.machine),
				&t.capture.image.threads->regs, &t.capture.image.cpu),
			t.capture.image.n_maps, (unsigned long long)t.capture.memory,
			t.capture.image.source.flags & TF_SOURCE_OUTSIDE
				? "; it could not be asked: signal actions, altstack, tid address "
				  "and brk are unknown"
				: "");
	tf_task_release(&t);
	return rc ? complain(e) : 0;
}

int main(int argc, char **argv)
{
	char *end = NULL;
	long pid;

	if (argc == 2 && !strcmp(argv[1], "--help"))
		return usage(stdout);
	if (argc != 3)
		return usage(stderr);
	errno = 0;
	pid = strtol(argv[1], &end, 10);
	if (errno || *end || pid <= 0 || pid > TF_MAX_TID) {
		fprintf(stderr, "telefork-witness: %s is no process id\n", argv[1]);
		return EX_USAGE;
	}
	hold_signals();
	return look((pid_t)pid, argv[2]);
}
