/* SPDX-License-Identifier: MIT */
/* The process's descriptors, as a list. They do not travel yet: their numbers are reserved in the
 * copy. Forked child: no allocator, no lock. */
#include "core/capture/capture.h"
#include "core/base/host.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <string.h>
#include <sys/socket.h>
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

static int describe(struct tf_fd *f, int fd, struct tf_arena *a, struct tf_err *e)
{
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
		.path = tf_arena_strn(a, target, sizeof(target)),
	};
	if (fcntl(fd, F_GETFD) & FD_CLOEXEC)
		f->flags |= O_CLOEXEC;
	return f->path ? 0 : tf_fail(e, TELEFORK_E_NOMEM, "too many descriptors");
}

/* All but two. */
static int list(struct tf_arena *a, const int but[static 2], struct tf_fd **ret_fds,
	uint32_t *ret_n, struct tf_err *e)
{
	uint32_t n, listed = 0;
	struct tf_fd *all;
	int *fds, rc = tf_host_fds(a, &fds, &n, e);

	if (rc)
		return rc;
	all = tf_arena_array(a, n, sizeof(*all));
	if (!all)
		return tf_fail(e, TELEFORK_E_NOMEM, "too many descriptors");
	for (uint32_t i = 0; i < n && !rc; i++)
		if (fds[i] != but[0] && fds[i] != but[1])
			rc = describe(&all[listed++], fds[i], a, e);
	*ret_fds = all;
	*ret_n = listed;
	return rc;
}

int tf_capture_files(struct tf_capture *c)
{
	const int but[2] = {c->peer_keep, c->from_parent};

	return list(&c->arena, but, &c->image.fds, &c->image.n_fds, &c->err);
}

/* --- the same, told by another --- */

#define TOLD_ROOM ((size_t)64 << 20)

/* Then its arena's bytes. */
struct told {
	uint8_t *base;
	size_t size;
	struct tf_fd *fds;
	uint32_t n;
};

void tf_files_tell(int to, int but)
{
	const int both[2] = {to, but};
	struct tf_arena a;
	struct tf_err e = {0};
	struct told told = {0};

	if (tf_arena_init(&a, TOLD_ROOM))
		return;
	if (!list(&a, both, &told.fds, &told.n, &e)) {
		told.base = a.base;
		told.size = a.used;
		if (send(to, &told, sizeof(told), MSG_NOSIGNAL) == sizeof(told))
			send(to, a.base, a.used, MSG_NOSIGNAL);
	}
	tf_arena_done(&a);
}

int tf_capture_files_told(struct tf_capture *c)
{
	struct told told;
	uint8_t *bytes = NULL;

	if (recv(c->from_parent, &told, sizeof(told), MSG_WAITALL) == sizeof(told))
		bytes = tf_arena_alloc(&c->arena, told.size);
	if (!bytes || recv(c->from_parent, bytes, told.size, MSG_WAITALL) != (ssize_t)told.size)
		return tf_capture_files(c);
	c->image.fds = (struct tf_fd *)(void *)(bytes + ((uint8_t *)told.fds - told.base));
	c->image.n_fds = told.n;
	for (uint32_t i = 0; i < told.n; i++) {
		const char **path = &c->image.fds[i].path;

		*path = (const char *)bytes + ((const uint8_t *)*path - told.base);
	}
	return 0;
}
