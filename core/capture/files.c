/* SPDX-License-Identifier: MIT */
/* The process's descriptors, as a list. They do not travel yet: their numbers are reserved in the
 * copy. Forked child: no allocator, no lock. */
#include "core/capture/capture.h"
#include "core/base/host.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
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

struct listing {
	struct tf_capture *c;
	uint32_t n;
	struct tf_fd *fds;
};

static int count_fd(void *ctx, int fd)
{
	struct listing *l = ctx;

	l->n += fd != l->c->peer_keep;
	return 0;
}

static int add_fd(void *ctx, int fd)
{
	struct listing *l = ctx;
	struct tf_fd *f = &l->fds[l->c->image.n_fds];
	char name[32], target[TF_MAX_STR];
	struct stat st = {0};
	ssize_t n;
	off_t at;

	if (fd == l->c->peer_keep || l->c->image.n_fds == l->n)
		return 0;
	fd_path(name, fd);
	n = readlink(name, target, sizeof(target) - 1);
	target[n > 0 ? n : 0] = '\0';
	fstat(fd, &st);
	at = lseek(fd, 0, SEEK_CUR);
	*f = (struct tf_fd){
		.fd = fd,
		.kind = tf_capture_fd_kind(&st, target),
		.flags = (uint32_t)fcntl(fd, F_GETFL),
		.offset = at > 0 ? (uint64_t)at : 0,
		.path = tf_arena_strn(&l->c->arena, target, sizeof(target)),
	};
	if (fcntl(fd, F_GETFD) & FD_CLOEXEC)
		f->flags |= O_CLOEXEC;
	if (!f->path)
		return tf_fail(&l->c->err, TELEFORK_E_NOMEM, "too many descriptors");
	l->c->image.n_fds++;
	return 0;
}

int tf_capture_files(struct tf_capture *c)
{
	struct listing l = {.c = c};
	int rc = tf_host_each_fd(&c->arena, count_fd, &l, &c->err);

	if (rc)
		return rc;
	l.fds = c->image.fds = tf_arena_array(&c->arena, l.n, sizeof(*l.fds));
	if (!l.fds && l.n)
		return tf_fail(&c->err, TELEFORK_E_NOMEM, "too many descriptors");
	return tf_host_each_fd(&c->arena, add_fd, &l, &c->err);
}
