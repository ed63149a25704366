/* SPDX-License-Identifier: MIT */
/* Descriptors and what belongs to files in a plan. */
#include "core/restore/build_impl.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <string.h>
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
	return fd->object || fd->kind == TF_FD_FILE || fd->kind == TF_FD_DIR ||
	       (fd->kind == TF_FD_CHAR && is_stateless(fd->path));
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
	uint64_t opened = p->n_steps;

	tf_plan_syscall(p, fd->path, SYS_openat, 4, (uint64_t)(int64_t)AT_FDCWD,
		fd->object ? tf_build_object_path(b, fd->object - 1) : tf_build_string(b, fd->path),
		(uint64_t)(tf_restore_open_flags(fd) & (fd->object ? ~(uint32_t)O_NOFOLLOW : ~0u)),
		UINT64_C(0));
	if (fd->kind != TF_FD_CHAR && !(fd->flags & O_PATH)) {
		struct tf_step *s = tf_plan_syscall(
			p, "position", SYS_lseek, 3, opened, fd->offset, (uint64_t)SEEK_SET);

		s->refs = 1;
		/* A place in a directory is its file system's own. */
		s->expect = fd->kind == TF_FD_DIR ? TF_EXPECT_ANY : TF_EXPECT_SUCCESS;
	}
	tf_plan_syscall(
		p, "file", SYS_dup3, 3, opened, (uint64_t)fd->fd, (uint64_t)(fd->flags & O_CLOEXEC))
		->refs = 1;
	tf_plan_syscall(p, "file", SYS_close, 1, opened)->refs = 1;
}

static bool is_peer(const struct tf_build *b, const struct tf_fd *fd)
{
	return b->r->fds.peer && fd->fd == b->img->source.channel_fd;
}

/* found: files that are there; else what was made for the copy, and may be the receiver's. */
static void open_objects(struct tf_build *b, bool found)
{
	const struct tf_image *img = b->img;

	for (uint32_t i = 0; i < img->n_fds; i++) {
		const struct tf_fd *fd = &img->fds[i];

		if (fd->object && fd->same < 0 && tf_restore_opens(img, fd) &&
			tf_build_is_file(&img->objects[fd->object - 1]) == found)
			plan_open(b, fd);
	}
}

void tf_build_numbers(struct tf_build *b)
{
	const struct tf_image *img = b->img;

	for (uint32_t i = 0; i < img->n_fds; i++)
		if (img->fds[i].fd > 2 && !is_peer(b, &img->fds[i]))
			tf_plan_syscall(&b->r->plan, "held", SYS_dup3, 3,
				(uint64_t)b->r->fds.reserve, (uint64_t)img->fds[i].fd,
				(uint64_t)(img->fds[i].flags & O_CLOEXEC));
	open_objects(b, false);
	tf_build_files_as(b, true);
	open_objects(b, true);
	tf_build_files_as(b, false);
	tf_build_objects_close(b);
}

static void plan_peer(struct tf_build *b)
{
	uint32_t flags = b->r->fds.back != b->r->fds.channel ? O_CLOEXEC : 0;

	for (uint32_t i = 0; i < b->img->n_fds; i++)
		if (is_peer(b, &b->img->fds[i]))
			flags |= b->img->fds[i].flags & O_CLOEXEC;
	if (b->r->fds.peer)
		tf_plan_syscall(&b->r->plan, "the way back", SYS_dup3, 3, (uint64_t)b->r->fds.back,
			(uint64_t)b->img->source.channel_fd, (uint64_t)flags);
}

void tf_build_files(struct tf_build *b)
{
	struct tf_plan *p = &b->r->plan;
	const struct tf_image *img = b->img;

	tf_plan_syscall(p, "umask", SYS_umask, 1, (uint64_t)img->source.umask);
	if (img->source.cwd[0])
		tf_plan_syscall(
			p, "working directory", SYS_chdir, 1, tf_build_string(b, img->source.cwd))
			->expect =
			img->source.origin == TF_ORIGIN_TASK ? TF_EXPECT_SUCCESS : TF_EXPECT_ANY;
	for (uint32_t i = 0; i < img->n_fds; i++)
		if (img->fds[i].same >= 0 && img->fds[i].fd > 2)
			tf_plan_syscall(p, "duplicate", SYS_dup3, 3, (uint64_t)img->fds[i].same,
				(uint64_t)img->fds[i].fd,
				(uint64_t)(img->fds[i].flags & O_CLOEXEC));
		else if (img->fds[i].kind == TF_FD_RESET && img->fds[i].fd > 2)
			plan_reset(b, &img->fds[i]);
		else if (!img->fds[i].object && tf_restore_opens(img, &img->fds[i]))
			plan_open(b, &img->fds[i]);
	plan_peer(b);
	if (b->r->fds.back != b->r->fds.channel)
		tf_plan_syscall(p, "the way back", SYS_close, 1, (uint64_t)b->r->fds.back);
	tf_plan_syscall(p, "reserve", SYS_close, 1, (uint64_t)b->r->fds.reserve);
	if (!b->r->zygote) /* it has closed it */
		tf_plan_syscall(p, "channel", SYS_close, 1, (uint64_t)b->r->fds.channel);
}
