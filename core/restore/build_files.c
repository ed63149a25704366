/* SPDX-License-Identifier: MIT */
/* Descriptors and what belongs to files in a plan. */
#include "core/restore/build_impl.h"

#include <fcntl.h>
#include <sys/syscall.h>

void tf_build_files(struct tf_build *b)
{
	struct tf_plan *p = &b->r->plan;
	const struct tf_image *img = b->img;
	uint32_t peer_flags = b->r->fds.back != b->r->fds.channel ? O_CLOEXEC : 0;

	tf_plan_syscall(p, "umask", SYS_umask, 1, (uint64_t)img->source.umask);
	if (img->source.cwd[0])
		tf_plan_syscall(
			p, "working directory", SYS_chdir, 1, tf_build_string(b, img->source.cwd))
			->expect = TF_EXPECT_ANY;
	for (uint32_t i = 0; i < img->n_fds; i++) {
		const struct tf_fd *fd = &img->fds[i];

		if (fd->fd == img->source.channel_fd)
			peer_flags |= fd->flags & O_CLOEXEC;
		if (fd->fd <= 2 || (b->r->fds.peer && fd->fd == img->source.channel_fd))
			continue;
		tf_plan_syscall(p, "held", SYS_dup3, 3, (uint64_t)b->r->fds.reserve,
			(uint64_t)fd->fd, (uint64_t)(fd->flags & O_CLOEXEC));
	}
	if (b->r->fds.peer)
		tf_plan_syscall(p, "the way back", SYS_dup3, 3, (uint64_t)b->r->fds.back,
			(uint64_t)img->source.channel_fd, (uint64_t)peer_flags);
	if (b->r->fds.back != b->r->fds.channel)
		tf_plan_syscall(p, "the way back", SYS_close, 1, (uint64_t)b->r->fds.back);
	tf_plan_syscall(p, "reserve", SYS_close, 1, (uint64_t)b->r->fds.reserve);
	tf_plan_syscall(p, "channel", SYS_close, 1, (uint64_t)b->r->fds.channel);
}
