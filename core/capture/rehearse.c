/* SPDX-License-Identifier: MIT */
/*
 * Under QEMU user mode code is translated where it runs for the first time, which takes longer than
 * running it. A snapshot is a fork, and has what its parent has: so the parent describes itself
 * once to nobody, while it waits for a receiver's word. Nothing comes of it.
 */
#include "core/base/cleanup.h"
#include "core/base/crc32c.h"
#include "core/base/guest.h"
#include "core/base/host.h"
#include "core/base/own.h"
#include "core/capture/self.h"

#include <sys/socket.h>

static int describe(struct tf_capture *c, int to)
{
	int rc = tf_capture_read_maps(c);

	if (!rc)
		rc = tf_capture_files(c);
	if (!rc)
		rc = tf_capture_describe(c);
	tf_crc32c_prepare();
	if (!rc)
		rc = tf_capture_find_pages(c);
	tf_io_init(&c->io, to, NULL);
	return rc ? rc : tf_capture_send_head(c, 0);
}

void tf_capture_rehearse(void)
{
	TF_OWN static bool done;
	struct tf_arena room = {0};
	struct tf_capture *c;
	int fd[2];

	/* What another thread has open meanwhile is not ours to look at, nor its umask to ask. */
	if (done || !tf_host_emulated() || tf_host_threads() != 1 ||
		socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fd))
		return;
	done = true;
	if (!tf_arena_init(&room, sizeof(*c)) && (c = tf_arena_alloc(&room, sizeof(*c)))) {
		tf_capture_before(&c->before);
		c->peer_keep = c->fds_fd = -1;
		c->drop = true;
		if (!tf_guest_arena(&c->arena))
			describe(c, fd[0]);
		tf_arena_done(&c->arena);
	}
	tf_arena_done(&room);
	tf_closep(&fd[0]);
	tf_closep(&fd[1]);
}
