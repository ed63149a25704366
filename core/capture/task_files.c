/* SPDX-License-Identifier: MIT */
/* Descriptors of a stopped process: what each leads to, and which share one description, as dup(2)
 * makes them. Reads /proc. */
#include "core/capture/task_impl.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/kcmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "core/base/cleanup.h"

#define SETTLED_NS 20000000 /* more than a tick of any kernel */
#define INFO       256      /* the general part of /proc/PID/fdinfo/NUMBER */

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

/* --- one descriptor --- */

static void fd_path(const struct tf_task *t, int number, char path[static TF_TASK_PATH])
{
	snprintf(path, TF_TASK_PATH, "/proc/%d/fd/%d", (int)t->pid, number);
}

static int open_info(const struct tf_task *t, int number)
{
	char path[TF_TASK_PATH];

	snprintf(path, sizeof(path), "/proc/%d/fdinfo/%d", (int)t->pid, number);
	return open(path, O_RDONLY | O_CLOEXEC);
}

/* Its flags and offset, of the head of its text: some kinds have long ones. */
static int read_info(struct tf_task *t, int number, int info, char text[static INFO])
{
	TF_CLOSE int own = info < 0 ? open_info(t, number) : -1;
	ssize_t n = pread(info < 0 ? own : info, text, INFO - 1, 0);

	text[n > 0 ? n : 0] = '\0';
	return n > 0 ? 0
		     : tf_fail_errno(&t->capture.err, TELEFORK_E_SYSTEM, errno,
			       "/proc/%d/fdinfo/%d", (int)t->pid, number);
}

static void take_moment(struct tf_fd *f, const char *info, const struct stat *st)
{
	f->flags = (uint32_t)tf_text_number(info, "flags:", 8, 0);
	f->offset = tf_text_number(info, "pos:", 10, 0);
	f->size = S_ISREG(st->st_mode) ? (uint64_t)st->st_size : 0;
}

static int describe_fd(struct tf_task *t, struct tf_fd *f, int number, const struct stat *st)
{
	char path[TF_TASK_PATH], target[TF_MAX_STR];
	ssize_t n;

	fd_path(t, number, path);
	n = readlink(path, target, sizeof(target) - 1);
	target[n > 0 ? n : 0] = '\0';
	*f = (struct tf_fd){
		.fd = number,
		.kind = tf_capture_fd_kind(st, target),
		.same = -1,
		.dev = (uint64_t)major(st->st_dev) << 32 | minor(st->st_dev),
		.ino = tf_capture_fd_content(st, path) ? st->st_ino : 0,
		.path = tf_arena_strn(&t->capture.arena, target, sizeof(target)),
	};
	if ((f->kind == TF_FD_FILE || f->kind == TF_FD_DIR) &&
		!tf_capture_fd_named(st, target, path))
		f->kind = TF_FD_OTHER;
	if (f->path && is_to_be_reset(t, f))
		f->kind = TF_FD_RESET;
	return f->path ? 0 : TELEFORK_E_NOMEM;
}

/* --- what was known of it before the process stood --- */

struct tf_known_fd {
	struct tf_fd as;
	struct stat st;
	uint64_t mount, ino; /* as its text says */
	int info;            /* /proc/PID/fdinfo/NUMBER; -1 */
};

/* Only the link would tell of others: they have no inode of their own, or it says too little. */
static bool is_told_by_inode(const struct tf_task *t, const struct tf_fd *f)
{
	switch (f->kind) {
	case TF_FD_SOCKET:
		return !t->reset_tcp;
	case TF_FD_FILE:
	case TF_FD_DIR:
	case TF_FD_PIPE:
	case TF_FD_TTY:
	case TF_FD_CHAR:
		return true;
	default:
		return false;
	}
}

/* Still the same file, under the same name: renaming changes the inode's time. */
static bool is_as_known(const struct tf_known_fd *k, const char *info, const struct stat *st)
{
	return k->ino && k->ino == tf_text_number(info, "ino:", 10, 0) &&
	       k->mount == tf_text_number(info, "mnt_id:", 10, 0) && k->st.st_dev == st->st_dev &&
	       k->st.st_ino == st->st_ino && k->st.st_mode == st->st_mode &&
	       k->st.st_nlink == st->st_nlink && k->st.st_ctim.tv_sec == st->st_ctim.tv_sec &&
	       k->st.st_ctim.tv_nsec == st->st_ctim.tv_nsec;
}

/* The inode's time goes by ticks of the clock: a change just now would hide another. */
static bool is_settled(const struct stat *st)
{
	uint64_t changed =
		(uint64_t)st->st_ctim.tv_sec * 1000000000 + (uint64_t)st->st_ctim.tv_nsec;

	return changed + SETTLED_NS < tf_clock_ns(CLOCK_REALTIME);
}

static const struct tf_known_fd *find_known(const struct tf_task *t, int number)
{
	for (uint32_t i = 0; i < t->n_known; i++)
		if (t->known[i].as.fd == number)
			return &t->known[i];
	return NULL;
}

/* One that closes meanwhile is not known. */
static void know_fd(struct tf_task *t, int number)
{
	struct tf_known_fd *k = &t->known[t->n_known];
	char path[TF_TASK_PATH], info[INFO];
	const struct tf_err none = t->capture.err;

	fd_path(t, number, path);
	k->info = open_info(t, number);
	if (k->info >= t->most_fds) {
		close(k->info);
		k->info = -1;
	}
	if (k->info >= 0 && !read_info(t, number, k->info, info) && !stat(path, &k->st) &&
		!describe_fd(t, &k->as, number, &k->st))
		t->opens_memory |= tf_task_opens_memory(&k->as);
	if (k->as.path && is_told_by_inode(t, &k->as) && is_settled(&k->st)) {
		k->mount = tf_text_number(info, "mnt_id:", 10, 0);
		k->ino = tf_text_number(info, "ino:", 10, 0);
		t->n_known++;
		return;
	}
	t->capture.err = none;
	tf_closep(&k->info);
}

static int take_fd(struct tf_task *t, struct tf_fd *f, int number)
{
	const struct tf_known_fd *k = find_known(t, number);
	char path[TF_TASK_PATH], info[INFO];
	struct stat st = {0};
	int rc = read_info(t, number, k ? k->info : -1, info);

	if (rc)
		return rc;
	fd_path(t, number, path);
	stat(path, &st);
	if (k && is_as_known(k, info, &st))
		*f = k->as;
	else
		rc = describe_fd(t, f, number, &st);
	take_moment(f, info, &st);
	return rc;
}

/* --- all --- */

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
	size_t each = sizeof(struct tf_fd *);
	struct tf_fd **order = tf_arena_array(&t->capture.arena, img->n_fds + 1, each);

	if (!order)
		return TELEFORK_E_NOMEM;
	for (uint32_t i = 0; i < img->n_fds; i++)
		order[i] = &img->fds[i];
	qsort_r(order, img->n_fds, each, by_description, &t->pid);
	for (uint32_t i = 0, first = 0; i < img->n_fds; i++) {
		if (i == first || !is_same(t->pid, order[first], order[i]))
			first = i;
		else
			order[i]->same = order[first]->fd;
	}
	return 0;
}

static DIR *open_list(struct tf_task *t)
{
	char path[TF_TASK_PATH];

	snprintf(path, sizeof(path), "/proc/%d/fd", (int)t->pid);
	if (!t->fd_list)
		t->fd_list = opendir(path);
	return t->fd_list;
}

void tf_task_files_before(struct tf_task *t)
{
	struct dirent *entry;
	unsigned n;

	if (!open_list(t))
		return;
	n = count_entries(t->fd_list);
	t->known = tf_arena_array(&t->capture.arena, n, sizeof(*t->known));
	while (t->known && (entry = readdir(t->fd_list)))
		if (entry->d_name[0] != '.' && t->n_known < n)
			know_fd(t, atoi(entry->d_name));
}

void tf_task_files_close(struct tf_task *t)
{
	for (uint32_t i = 0; i < t->n_known; i++)
		tf_closep(&t->known[i].info);
	t->n_known = 0;
	if (t->fd_list)
		closedir(t->fd_list);
	t->fd_list = NULL;
}

static int add_fd(struct tf_task *t, uint32_t *room, int number)
{
	struct tf_image *img = &t->capture.image;
	struct tf_fd *all = img->fds;

	if (img->n_fds == *room) {
		*room = 2 * *room + t->n_known + 16;
		all = tf_arena_array(&t->capture.arena, *room, sizeof(*all));
		if (!all)
			return TELEFORK_E_NOMEM;
		if (img->n_fds)
			memcpy(all, img->fds, img->n_fds * sizeof(*all));
		img->fds = all;
	}
	return take_fd(t, &all[img->n_fds++], number);
}

int tf_task_files(struct tf_task *t)
{
	struct tf_image *img = &t->capture.image;
	struct dirent *entry;
	uint32_t room = 0;
	int rc = 0;

	if (!open_list(t))
		return tf_fail_errno(&t->capture.err, TELEFORK_E_SYSTEM, errno,
			"descriptors of process %d", (int)t->pid);
	rewinddir(t->fd_list);
	while (!rc && (entry = readdir(t->fd_list)))
		if (entry->d_name[0] != '.')
			rc = add_fd(t, &room, atoi(entry->d_name));
	if (!rc && img->n_fds)
		qsort(img->fds, img->n_fds, sizeof(*img->fds), by_number);
	return rc ? rc : find_duplicates(t);
}
