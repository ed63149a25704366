/* SPDX-License-Identifier: MIT */
/* Descriptors of a stopped process: what each leads to, and which share one description, as dup(2)
 * makes them. Reads /proc. */
#include "core/capture/task_impl.h"

#include <dirent.h>
#include <errno.h>
#include <linux/kcmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

/* proc_pid_net(5): the state is the fourth column (01: established; up to 0B but for 07, closed,
 * and 0A, listening: on its way there or from there), the inode the tenth. */
bool tf_capture_is_tcp(const char *link, const char *const tcp[2])
{
	unsigned long long inode, found;
	unsigned state;

	if (sscanf(link, "socket:[%llu]", &inode) != 1)
		return false;
	for (unsigned i = 0; i < 2; i++)
		for (const char *p = tcp[i]; *p; p = strchrnul(p, '\n'), p += *p == '\n')
			if (sscanf(p, "%*d: %*s %*s %x %*s %*s %*s %*s %*s %llu", &state, &found) ==
					2 &&
				found == inode)
				return state != 7 && state != 10;
	return false;
}

static bool is_to_be_reset(struct tf_task *t, const struct tf_fd *f)
{
	char *tcp[2];
	size_t size;

	if (!t->reset_tcp || f->kind != TF_FD_SOCKET ||
		tf_task_read_text(t, "net/tcp", &tcp[0], &size))
		return false;
	if (tf_task_read_text(t, "net/tcp6", &tcp[1], &size)) /* a kernel without IPv6 */
		tcp[1] = "";
	return tf_capture_is_tcp(f->path, (const char *const *)tcp);
}

static int describe_fd(struct tf_task *t, struct tf_fd *f, int number)
{
	char name[40], path[TF_TASK_PATH], target[TF_MAX_STR];
	char *info;
	size_t size;
	struct stat st = {0};
	ssize_t n;
	int rc;

	snprintf(name, sizeof(name), "fdinfo/%d", number);
	rc = tf_task_read_text(t, name, &info, &size);
	if (rc)
		return rc;
	snprintf(path, sizeof(path), "/proc/%d/fd/%d", (int)t->pid, number);
	n = readlink(path, target, sizeof(target) - 1);
	target[n > 0 ? n : 0] = '\0';
	stat(path, &st);
	*f = (struct tf_fd){
		.fd = number,
		.kind = tf_capture_fd_kind(&st, target),
		.flags = (uint32_t)tf_text_number(info, "flags:", 8, 0),
		.same = -1,
		.offset = tf_text_number(info, "pos:", 10, 0),
		.size = S_ISREG(st.st_mode) ? (uint64_t)st.st_size : 0,
		.dev = (uint64_t)major(st.st_dev) << 32 | minor(st.st_dev),
		.ino = tf_capture_fd_content(&st, path) ? st.st_ino : 0,
		.path = tf_arena_strn(&t->capture.arena, target, sizeof(target)),
	};
	if ((f->kind == TF_FD_FILE || f->kind == TF_FD_DIR) &&
		!tf_capture_fd_named(&st, target, path))
		f->kind = TF_FD_OTHER;
	if (f->path && is_to_be_reset(t, f))
		f->kind = TF_FD_RESET;
	return f->path ? 0 : TELEFORK_E_NOMEM;
}

static unsigned count_entries(DIR *dir)
{
	unsigned n = 0;

	while (readdir(dir))
		n++;
	rewinddir(dir);
	return n;
}

static int by_number(const void *a, const void *b)
{
	const struct tf_fd *x = a, *y = b;

	return x->fd < y->fd ? -1 : x->fd > y->fd;
}

/* kcmp(2) orders descriptions; where it is not to be had, none is another's duplicate. */
static int by_description(const void *a, const void *b, void *ctx)
{
	const struct tf_fd *x = *(const struct tf_fd *const *)a;
	const struct tf_fd *y = *(const struct tf_fd *const *)b;
	const pid_t *pid = ctx;
	int order = strcmp(x->path, y->path);
	long rc;

	if (order || x == y)
		return order;
	rc = syscall(SYS_kcmp, *pid, *pid, KCMP_FILE, x->fd, y->fd);
	return rc == 1 ? -1 : rc == 2 ? 1 : by_number(x, y);
}

static bool is_same(pid_t pid, const struct tf_fd *x, const struct tf_fd *y)
{
	return !strcmp(x->path, y->path) && !syscall(SYS_kcmp, pid, pid, KCMP_FILE, x->fd, y->fd);
}

static int find_duplicates(struct tf_task *t)
{
	struct tf_image *img = &t->capture.image;
	struct tf_fd **order = tf_arena_array(&t->capture.arena, img->n_fds + 1, sizeof(*order));

	if (!order)
		return TELEFORK_E_NOMEM;
	for (uint32_t i = 0; i < img->n_fds; i++)
		order[i] = &img->fds[i];
	qsort_r(order, img->n_fds, sizeof(*order), by_description, &t->pid);
	for (uint32_t i = 0, first = 0; i < img->n_fds; i++) {
		if (i == first || !is_same(t->pid, order[first], order[i]))
			first = i;
		else
			order[i]->same = order[first]->fd;
	}
	return 0;
}

int tf_task_files(struct tf_task *t)
{
	struct tf_image *img = &t->capture.image;
	char path[TF_TASK_PATH];
	struct dirent *entry;
	unsigned n;
	DIR *dir;
	int rc = 0;

	snprintf(path, sizeof(path), "/proc/%d/fd", (int)t->pid);
	dir = opendir(path);
	if (!dir)
		return tf_fail_errno(&t->capture.err, TELEFORK_E_SYSTEM, errno, "%s", path);
	n = count_entries(dir);
	img->fds = tf_arena_array(&t->capture.arena, n, sizeof(*img->fds));
	while (img->fds && !rc && (entry = readdir(dir)))
		if (entry->d_name[0] != '.' && img->n_fds < n)
			rc = describe_fd(t, &img->fds[img->n_fds++], atoi(entry->d_name));
	closedir(dir);
	if (!img->fds)
		return TELEFORK_E_NOMEM;
	qsort(img->fds, img->n_fds, sizeof(*img->fds), by_number);
	return rc ? rc : find_duplicates(t);
}
