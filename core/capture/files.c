/* SPDX-License-Identifier: MIT */
/* The process's descriptors, as a list. They do not travel yet: their numbers are reserved in the
 * copy. Forked child: no allocator, no lock. */
#include "core/capture/capture.h"
#include "core/base/host.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

uint32_t tf_capture_fd_kind(const struct stat *st, const char *path)
{
	if (!strncmp(path, "anon_inode:", 11))
		return TF_FD_ANON;
	switch (st->st_mode & S_IFMT) {
	case S_IFREG:
		return TF_FD_FILE;
	case S_IFDIR:
		return TF_FD_DIR;
	case S_IFIFO:
		return TF_FD_PIPE;
	case S_IFSOCK:
		return TF_FD_SOCKET;
	case S_IFCHR:
		/* 4: /dev/tty*, 5: /dev/tty, 136-143: pts (devices.txt) */
		return major(st->st_rdev) == 4 || major(st->st_rdev) == 5 ||
				       (major(st->st_rdev) >= 136 && major(st->st_rdev) <= 143)
			       ? TF_FD_TTY
			       : TF_FD_CHAR;
	default:
		return TF_FD_OTHER;
	}
}

bool tf_capture_fd_named(const struct stat *st, const char *path, const char *proc)
{
	struct statfs fs;

	if (!st->st_nlink || path[0] != '/')
		return false;
	if (!strncmp(path, "/proc/", 6) && path[6] >= '0' && path[6] <= '9')
		return false;
	return statfs(proc, &fs) || (unsigned)fs.f_type != TF_MQUEUE_MAGIC;
}

bool tf_capture_fd_content(const struct stat *st, const char *proc)
{
	struct statfs fs;

	if (!S_ISREG(st->st_mode) || statfs(proc, &fs))
		return false;
	switch ((unsigned)fs.f_type) {
	case TF_MQUEUE_MAGIC:
	case SECRETMEM_MAGIC:
	case HUGETLBFS_MAGIC:
	case PROC_SUPER_MAGIC:
		return false;
	}
	return true;
}

/* "/proc/self/fd/N" without stdio. */
static void fd_path(char buf[32], int fd)
{
	char digits[12];
	int n = 0, at = 14;

	memcpy(buf, "/proc/self/fd/", 14);
	do
		digits[n++] = (char)('0' + fd % 10);
	while ((fd /= 10));
	while (n)
		buf[at++] = digits[--n];
	buf[at] = '\0';
}

static int add_fd(struct tf_capture *c, int fd)
{
	struct tf_fd *f = &c->image.fds[c->image.n_fds];
	char name[32], target[TF_MAX_STR];
	struct stat st = {0};
	ssize_t n;
	off_t at;

	fd_path(name, fd);
	n = readlink(name, target, sizeof(target) - 1);
	target[n > 0 ? n : 0] = '\0';
	fstat(fd, &st);
	at = lseek(fd, 0, SEEK_CUR);
	*f = (struct tf_fd){
		.fd = fd,
		.kind = tf_capture_fd_kind(&st, target),
		.flags = (uint32_t)fcntl(fd, F_GETFL),
		.same = -1, /* nothing is opened in the copy: all its numbers are held alike */
		.size = S_ISREG(st.st_mode) ? (uint64_t)st.st_size : 0,
		.offset = at > 0 ? (uint64_t)at : 0,
		.path = tf_arena_strn(&c->arena, target, sizeof(target)),
	};
	if (fcntl(fd, F_GETFD) & FD_CLOEXEC)
		f->flags |= O_CLOEXEC;
	if (!f->path)
		return tf_fail(&c->err, TELEFORK_E_NOMEM, "too many descriptors");
	c->image.n_fds++;
	return 0;
}

int tf_capture_files(struct tf_capture *c)
{
	uint32_t n;
	int *fds, rc = tf_host_fds(&c->arena, &fds, &n, &c->err);

	if (rc)
		return rc;
	c->image.fds = tf_arena_array(&c->arena, n, sizeof(*c->image.fds));
	if (!c->image.fds)
		return tf_fail(&c->err, TELEFORK_E_NOMEM, "too many descriptors");
	for (uint32_t i = 0; i < n && !rc; i++)
		if (fds[i] != c->peer_keep)
			rc = add_fd(c, fds[i]);
	return rc;
}
