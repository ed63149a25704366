/* SPDX-License-Identifier: MIT */
/* Descriptors that do not travel, and locks that are held through those that do. Reads /proc. */
#include "core/capture/check_impl.h"

#include <dirent.h>
#include <errno.h>
#include <linux/kcmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "core/capture/capture.h"
#include "core/restore/build.h"

static const struct {
	const char *path; /* how the link begins */
	enum tf_obstacle_kind kind;
} links[] = {
	{"anon_inode:[eventpoll]", TF_OBSTACLE_EPOLL},
	{"anon_inode:[eventfd", TF_OBSTACLE_EVENTFD},
	{"anon_inode:[timerfd]", TF_OBSTACLE_TIMERFD},
	{"anon_inode:[signalfd]", TF_OBSTACLE_SIGNALFD},
	{"anon_inode:inotify", TF_OBSTACLE_INOTIFY},
	{"anon_inode:[fanotify]", TF_OBSTACLE_INOTIFY},
	{"anon_inode:[io_uring]", TF_OBSTACLE_IO_URING},
	{"anon_inode:[perf_event]", TF_OBSTACLE_PERF},
	{"anon_inode:bpf", TF_OBSTACLE_BPF},
	{"anon_inode:[userfaultfd]", TF_OBSTACLE_USERFAULTFD},
	{"anon_inode:[pidfd]", TF_OBSTACLE_PIDFD},
	{"pidfd:", TF_OBSTACLE_PIDFD}, /* 6.9 */
	{"anon_inode:[landlock-ruleset]", TF_OBSTACLE_LANDLOCK},
	{"anon_inode:landlock-ruleset", TF_OBSTACLE_LANDLOCK}, /* before 6.14 */
	{"/secretmem", TF_OBSTACLE_SECRET},
};

/* A file that has a name, but leads to something else over there. */
static bool is_this_kernels(const char *path)
{
	return !strncmp(path, "/proc/", 6) && path[6] >= '0' && path[6] <= '9';
}

static enum tf_obstacle_kind kind_of_socket(struct tf_check *c, const char *path)
{
	const char *const tcp[2] = {tf_check_text(c, "net/tcp"), tf_check_text(c, "net/tcp6")};

	return tf_capture_is_tcp(path, tcp) ? TF_OBSTACLE_TCP : TF_OBSTACLE_SOCKET;
}

static enum tf_obstacle_kind kind_of(
	struct tf_check *c, const struct stat *st, const char *path, const char *proc)
{
	struct statfs fs;

	for (size_t i = 0; i < sizeof(links) / sizeof(*links); i++)
		if (!strncmp(path, links[i].path, strlen(links[i].path)))
			return links[i].kind;
	if (!statfs(proc, &fs) && (unsigned)fs.f_type == TF_MQUEUE_MAGIC)
		return TF_OBSTACLE_MQUEUE;
	if (is_this_kernels(path))
		return TF_OBSTACLE_PROC;
	switch (tf_capture_fd_kind(st, path)) {
	case TF_FD_FILE:
	case TF_FD_DIR:
		return path[0] == '/' ? TF_OBSTACLE_DELETED : TF_OBSTACLE_OTHER;
	case TF_FD_PIPE:
		return TF_OBSTACLE_PIPE;
	case TF_FD_SOCKET:
		return kind_of_socket(c, path);
	case TF_FD_TTY:
		return TF_OBSTACLE_TTY;
	case TF_FD_CHAR:
		return TF_OBSTACLE_DEVICE;
	default:
		return S_ISBLK(st->st_mode) ? TF_OBSTACLE_DEVICE : TF_OBSTACLE_OTHER;
	}
}

/* A regular file without a name, such as a memfd: it travels with its content. */
static bool is_memory(const struct stat *st, const char *path, const char *proc)
{
	return !st->st_nlink && path[0] == '/' && tf_capture_fd_content(st, proc);
}

/* What the receiver opens again by its name, or makes. */
static bool travels(const struct stat *st, int fd, const char *path, const char *proc)
{
	const struct tf_image img = {.source.origin = TF_ORIGIN_TASK};
	struct tf_fd f = {.fd = fd, .kind = tf_capture_fd_kind(st, path), .same = -1, .path = path};

	if (is_memory(st, path, proc))
		return true;
	return tf_restore_opens(&img, &f) && tf_capture_fd_named(st, path, proc);
}

/* Standard streams become the receiver's, whatever they are here, and so does what is a duplicate
 * of one. */
static bool is_stream(const struct tf_check *c, int fd)
{
	for (int i = 0; i <= STDERR_FILENO; i++)
		if (fd == i || !syscall(SYS_kcmp, c->pid, c->pid, KCMP_FILE, fd, i))
			return true;
	return false;
}

static void check_fd(struct tf_check *c, int fd)
{
	char path[64], target[TF_MAX_STR];
	enum tf_obstacle_kind kind;
	struct stat st = {0};
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/%d/fd/%d", (int)c->pid, fd);
	n = readlink(path, target, sizeof(target) - 1);
	if (n < 0)
		return; /* closed meanwhile */
	target[n] = '\0';
	stat(path, &st);
	kind = kind_of(c, &st, target, path);
	if (fd > STDERR_FILENO && is_memory(&st, target, path))
		tf_check_shared(
			c, (uint64_t)major(st.st_dev) << 32 | minor(st.st_dev), st.st_ino, target);
	/* Unless the kernel writes through it to memory. */
	if (!tf_obstacle_info[kind].waivable ||
		(!travels(&st, fd, target, path) && !is_stream(c, fd)))
		tf_check_add(c, kind, "descriptor %d (%s)", fd, target);
	snprintf(path, sizeof(path), "fdinfo/%d", fd);
	if (strstr(tf_check_text(c, path), "\nlock:"))
		tf_check_add(c, TF_OBSTACLE_LOCK, "descriptor %d (%s)", fd, target);
}

void tf_check_fds(struct tf_check *c)
{
	char path[64];
	struct dirent *entry;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/fd", (int)c->pid);
	dir = opendir(path);
	if (!dir)
		tf_check_add(c, TF_OBSTACLE_ACCESS, "descriptors of process %d: %s", (int)c->pid,
			strerror(errno));
	while (dir && (entry = readdir(dir)))
		if (entry->d_name[0] != '.')
			check_fd(c, atoi(entry->d_name));
	if (dir)
		closedir(dir);
}
