/* SPDX-License-Identifier: MIT */
/*
 * See janitor.h. A pipe tells the end: telebed has one end, and so has every guard (qemu/child.h)
 * of what it starts; when all are gone, the janitor reads the end of the file.
 */
#include "harness/janitor.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "qemu/child.h"
#include "qemu/io.h"

#define DISMISSED 'd'

struct tf_janitor {
	int pipe;
	pid_t pid;
};

/* The folder @name in @folder goes, unless it is what a cell has left. */
static void clean(const char *folder, const char *name)
{
	tf_vm_autofree char *path = tf_vm_format("%s/%s", folder, name);
	tf_vm_autofree char *said = path ? tf_vm_format("%s/said.txt", path) : NULL;

	if (said && access(said, F_OK) < 0)
		tf_vm_remove_dir(path);
}

static void clean_all(const char *folder)
{
	struct dirent **list = NULL;
	int n = scandir(folder, &list, NULL, NULL);

	for (int i = 0; i < n; i++) {
		if (list[i]->d_name[0] != '.' && list[i]->d_type == DT_DIR)
			clean(folder, list[i]->d_name);
		free(list[i]);
	}
	free(list);
	rmdir(folder);
}

static void wait_and_clean(int pipe, const char *folder) __attribute__((noreturn));

static void wait_and_clean(int pipe, const char *folder)
{
	sigset_t all;
	char word = 0;
	ssize_t n;
	int null;

	setsid(); /* a terminal's Ctrl-C is for telebed */
	sigfillset(&all);
	sigprocmask(SIG_BLOCK, &all, NULL);
	prctl(PR_SET_NAME, "tf-janitor");
	if (pipe != 3)
		dup2(pipe, 3);
	close_range(4, ~0u, 0);
	/* Our standard streams may be somebody's pipe, who would wait for our end. */
	null = open("/dev/null", O_RDWR);
	for (int fd = 0; fd < 3; fd++)
		dup2(null, fd);
	close(null);
	if (chdir("/") < 0)
		_exit(1);
	do
		n = read(3, &word, 1);
	while (n < 0 && errno == EINTR);
	if (n == 0 || word != DISMISSED)
		clean_all(folder);
	_exit(0);
}

int tf_janitor_start(const char *folder, struct tf_janitor **ret, struct tf_vm_error *err)
{
	struct tf_janitor *j = calloc(1, sizeof(*j));
	int ends[2];

	if (!j)
		return tf_vm_fail(err, -ENOMEM, "no memory");
	if (pipe2(ends, O_CLOEXEC) < 0) {
		free(j);
		return tf_vm_fail_errno(err, -errno, "pipe");
	}
	j->pid = fork();
	if (j->pid == 0)
		wait_and_clean(ends[0], folder);
	close(ends[0]);
	j->pipe = ends[1];
	if (j->pid < 0) {
		close(j->pipe);
		free(j);
		return tf_vm_fail_errno(err, -errno, "fork");
	}
	tf_vm_child_keep(j->pipe);
	*ret = j;
	return 0;
}

void tf_janitor_dismiss(struct tf_janitor *j)
{
	const char word = DISMISSED;

	if (!j)
		return;
	tf_vm_child_keep(-1);
	(void)!write(j->pipe, &word, 1);
	close(j->pipe);
	while (waitpid(j->pid, NULL, 0) < 0 && errno == EINTR)
		;
	free(j);
}
