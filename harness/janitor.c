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
#include <stdbool.h>
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

/* What is in a folder. */
struct list {
	struct dirent **v;
	int n;
};

static struct list list_of(const char *folder)
{
	struct list l = {0};

	l.n = scandir(folder, &l.v, NULL, NULL);
	return l;
}

static void list_done(struct list *l)
{
	for (int i = 0; i < l->n; i++)
		free(l->v[i]);
	free(l->v);
}

static bool has(const struct list *l, const char *name)
{
	for (int i = 0; i < l->n; i++)
		if (!strcmp(l->v[i]->d_name, name))
			return true;
	return false;
}

/* @e in @folder goes, unless it is what a cell has left, or a report. */
static void clean(const char *folder, const struct dirent *e)
{
	tf_vm_autofree char *path = tf_vm_format("%s/%s", folder, e->d_name);
	tf_vm_autofree char *said = path ? tf_vm_format("%s/said.txt", path) : NULL;

	if (said && e->d_type == DT_DIR && access(said, F_OK) < 0)
		tf_vm_remove_dir(path);
	if (path && e->d_type == DT_SOCK)
		unlink(path);
}

/* @before: what is somebody else's. The process ends behind this. */
static void clean_all(const char *folder, const struct list *before)
{
	struct list now = list_of(folder);

	for (int i = 0; i < now.n; i++)
		if (!has(before, now.v[i]->d_name))
			clean(folder, now.v[i]);
	if (before->n <= 2) /* . and .. */
		rmdir(folder);
}

static void wait_and_clean(int pipe, const char *folder, const struct list *before)
	__attribute__((noreturn));

/* @before NULL: all of the folder goes. */
static void wait_and_clean(int pipe, const char *folder, const struct list *before)
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
	if ((n == 0 || word != DISMISSED) && before)
		clean_all(folder, before);
	else if (n == 0 || word != DISMISSED)
		tf_vm_remove_dir(folder);
	_exit(0);
}

/* With the list of what is there, which goes with the process. */
static int start(struct tf_janitor *j, const char *folder, const struct list *before)
{
	int ends[2], rc = 0;

	if (pipe2(ends, O_CLOEXEC) < 0)
		return -errno;
	j->pid = fork();
	if (j->pid == 0)
		wait_and_clean(ends[0], folder, before);
	if (j->pid < 0)
		rc = -errno;
	close(ends[0]);
	if (rc < 0)
		close(ends[1]);
	j->pipe = ends[1];
	return rc;
}

int tf_janitor_start(const char *folder, enum tf_janitor_folder whose, struct tf_janitor **ret,
	struct tf_vm_error *err)
{
	struct tf_janitor *j = calloc(1, sizeof(*j));
	struct list before = list_of(folder);
	int rc = j && before.n >= 0 ? 0 : -ENOMEM;

	if (rc == 0)
		rc = start(j, folder, whose == TF_JANITOR_CELLS ? &before : NULL);
	list_done(&before);
	if (rc < 0) {
		free(j);
		return tf_vm_fail_errno(err, rc, "the folder %s, or who cleans it up", folder);
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
