/* SPDX-License-Identifier: MIT */
/* Descriptors and what belongs to files in a plan. */
#include "core/restore/build_impl.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

/* What fcntl(2) can set or an opening keeps; nothing that creates or cuts off. */
#define OPEN_FLAGS                                                                    \
	(O_ACCMODE | O_APPEND | O_NONBLOCK | O_SYNC | O_DIRECT | O_NOATIME | O_PATH | \
		O_DIRECTORY | O_NOFOLLOW)

/* Devices whose every opening is as good as any other. */
static bool is_stateless(const char *path)
{
	static const char *const devices[] = {
		"/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"};

	for (size_t i = 0; i < sizeof(devices) / sizeof(*devices); i++)
		if (!strcmp(path, devices[i]))
			return true;
	return false;
}

bool tf_restore_opens(const struct tf_image *img, const struct tf_fd *fd)
{
	if (img->source.origin != TF_ORIGIN_TASK || fd->fd <= 2 || fd->same >= 0)
		return false;
	return fd->kind == TF_FD_FILE || fd->kind == TF_FD_DIR ||
	       (fd->kind == TF_FD_CHAR && is_stateless(fd->path));
}

bool tf_restore_makes(const struct tf_image *img, const struct tf_fd *fd)
{
	return img->source.origin == TF_ORIGIN_TASK && fd->fd > 2 && fd->same < 0 &&
	       fd->kind == TF_FD_NAMELESS;
}

uint32_t tf_restore_open_flags(const struct tf_fd *fd)
{
	return fd->flags & OPEN_FLAGS;
}

/* The result of step opened becomes this descriptor. */
static void plan_number(struct tf_build *b, uint64_t opened, int fd, uint64_t flags)
{
	struct tf_plan *p = &b->r->plan;

	tf_plan_syscall(p, "file", SYS_dup3, 3, opened, (uint64_t)fd, flags)->refs = 1;
	tf_plan_syscall(p, "file", SYS_close, 1, opened)->refs = 1;
}

/* A file in memory; fd leads to it until it is opened again as it has to be. */
static void plan_content(struct tf_build *b, const struct tf_fd *fd)
{
	struct tf_plan *p = &b->r->plan;
	uint64_t made = p->n_steps;

	tf_plan_syscall(p, "file without a name", SYS_memfd_create, 2,
		tf_build_string(b, "telefork"), (uint64_t)MFD_CLOEXEC);
	tf_plan_syscall(p, "its size", SYS_ftruncate, 2, made, fd->size)->refs = 1;
	/* Both are sorted by descriptor; what is held, as a standard stream is, keeps its blocks.
	 */
	for (; b->blocks < b->img->n_blocks; b->blocks++) {
		const struct tf_block *block = &b->img->blocks[b->blocks];
		uint64_t n = fd->size - block->offset;
		struct tf_step *s;

		if (block->fd > fd->fd)
			break;
		if (block->fd < fd->fd)
			continue;
		n = n < TF_BLOCK ? n : TF_BLOCK;
		s = tf_plan_syscall(p, "its content", SYS_pwrite64, 4, made,
			tf_build_data(b, block->data, n, 8, NULL), n, block->offset);
		s->refs = 1;
		s->expect = TF_EXPECT_VALUE;
		s->expected = n;
	}
	plan_number(b, made, fd->fd, O_CLOEXEC);
}

/* A connection to a port of our own, which is closed before it was accepted: the kernel resets it
 * (tcp(7)), and the first use says ECONNRESET, as after the loss of any peer. */
static void plan_reset(struct tf_build *b, const struct tf_fd *fd)
{
	static const struct sockaddr_in loopback = {
		.sin_family = AF_INET, .sin_addr.s_addr = __builtin_bswap32(INADDR_LOOPBACK)};
	static const uint64_t size = sizeof(loopback);
	struct tf_plan *p = &b->r->plan;
	uint64_t at = tf_build_data(b, &loopback, sizeof(loopback), 8, NULL);
	uint64_t listener = p->n_steps, socket;

	tf_plan_syscall(p, "port", SYS_socket, 3, (uint64_t)AF_INET,
		(uint64_t)(SOCK_STREAM | SOCK_CLOEXEC), UINT64_C(0));
	tf_plan_syscall(p, "port", SYS_bind, 3, listener, at, size)->refs = 1;
	tf_plan_syscall(p, "port", SYS_listen, 2, listener, UINT64_C(1))->refs = 1;
	tf_plan_syscall(p, "port", SYS_getsockname, 3, listener, at,
		tf_build_data(b, &size, sizeof(size), 8, NULL))
		->refs = 1;
	socket = p->n_steps;
	tf_plan_syscall(p, fd->path, SYS_socket, 3, (uint64_t)AF_INET,
		(uint64_t)(SOCK_STREAM | SOCK_CLOEXEC), UINT64_C(0));
	tf_plan_syscall(p, "connection", SYS_connect, 3, socket, at, size)->refs = 1;
	tf_plan_syscall(p, "reset", SYS_close, 1, listener)->refs = 1;
	tf_plan_syscall(p, "flags", SYS_fcntl, 3, socket, (uint64_t)F_SETFL,
		(uint64_t)(fd->flags & (O_NONBLOCK | O_APPEND)))
		->refs = 1;
	plan_number(b, socket, fd->fd, fd->flags & O_CLOEXEC);
}

/* All numbers are held already: the new descriptor has none of them. */
static void plan_open(struct tf_build *b, const struct tf_fd *fd)
{
	struct tf_plan *p = &b->r->plan;
	const char *path = fd->path;
	char own[32];
	uint64_t opened;

	if (fd->kind == TF_FD_NAMELESS) {
		if (fd->file == fd->fd)
			plan_content(b, fd);
		snprintf(own, sizeof(own), "/proc/self/fd/%d", fd->file);
		path = own;
	}
	opened = p->n_steps;
	tf_plan_syscall(p, fd->path, SYS_openat, 4, (uint64_t)(int64_t)AT_FDCWD,
		tf_build_string(b, path), (uint64_t)tf_restore_open_flags(fd), UINT64_C(0));
	if (fd->kind != TF_FD_CHAR && !(fd->flags & O_PATH)) {
		struct tf_step *s = tf_plan_syscall(
			p, "position", SYS_lseek, 3, opened, fd->offset, (uint64_t)SEEK_SET);

		s->refs = 1;
		/* A place in a directory is its file system's own. */
		s->expect = fd->kind == TF_FD_DIR ? TF_EXPECT_ANY : TF_EXPECT_SUCCESS;
	}
	plan_number(b, opened, fd->fd, fd->flags & O_CLOEXEC);
}

void tf_build_files(struct tf_build *b)
{
	struct tf_plan *p = &b->r->plan;
	const struct tf_image *img = b->img;
	uint32_t peer_flags = b->r->fds.back != b->r->fds.channel ? O_CLOEXEC : 0;

	tf_plan_syscall(p, "umask", SYS_umask, 1, (uint64_t)img->source.umask);
	if (img->source.cwd[0])
		tf_plan_syscall(
			p, "working directory", SYS_chdir, 1, tf_build_string(b, img->source.cwd))
			->expect =
			img->source.origin == TF_ORIGIN_TASK ? TF_EXPECT_SUCCESS : TF_EXPECT_ANY;
	for (uint32_t i = 0; i < img->n_fds; i++) {
		const struct tf_fd *fd = &img->fds[i];

		if (fd->fd == img->source.channel_fd)
			peer_flags |= fd->flags & O_CLOEXEC;
		if (fd->fd <= 2 || (b->r->fds.peer && fd->fd == img->source.channel_fd))
			continue;
		tf_plan_syscall(p, "held", SYS_dup3, 3, (uint64_t)b->r->fds.reserve,
			(uint64_t)fd->fd, (uint64_t)(fd->flags & O_CLOEXEC));
	}
	for (uint32_t i = 0; i < img->n_fds; i++)
		if (img->fds[i].same >= 0 && img->fds[i].fd > 2)
			tf_plan_syscall(p, "duplicate", SYS_dup3, 3, (uint64_t)img->fds[i].same,
				(uint64_t)img->fds[i].fd,
				(uint64_t)(img->fds[i].flags & O_CLOEXEC));
		else if (img->fds[i].kind == TF_FD_RESET && img->fds[i].fd > 2)
			plan_reset(b, &img->fds[i]);
		else if (tf_restore_opens(img, &img->fds[i]) || tf_restore_makes(img, &img->fds[i]))
			plan_open(b, &img->fds[i]);
	if (b->r->fds.peer)
		tf_plan_syscall(p, "the way back", SYS_dup3, 3, (uint64_t)b->r->fds.back,
			(uint64_t)img->source.channel_fd, (uint64_t)peer_flags);
	if (b->r->fds.back != b->r->fds.channel)
		tf_plan_syscall(p, "the way back", SYS_close, 1, (uint64_t)b->r->fds.back);
	tf_plan_syscall(p, "reserve", SYS_close, 1, (uint64_t)b->r->fds.reserve);
	tf_plan_syscall(p, "channel", SYS_close, 1, (uint64_t)b->r->fds.channel);
}
