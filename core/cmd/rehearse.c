/* SPDX-License-Identifier: MIT */
/* See rehearse.h. The new process is ended before it is anything. */
#include "core/cmd/rehearse.h"
#include "core/base/host.h"
#include "core/capture/self.h"
#include "core/restore/pad.h"

#include <sys/socket.h>
#include <unistd.h>

static void receive(int fd, const struct telefork_options *options)
{
	struct tf_pad pad;

	if (!tf_pad_prepare(&pad, fd, options))
		(void)tf_pad_hold(&pad);
	tf_pad_kill(&pad);
	tf_pad_done(&pad);
}

void tf_rehearse(const struct telefork_options *options)
{
	struct telefork_result result;
	struct telefork_job *job;
	int fd[2], rc;

	if (!tf_host_emulated() || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd))
		return;
	/* As in a copy: without the emulator's own pages, which would be in their own way. */
	tf_mailbox.generation++;
	rc = telefork(fd[0], NULL, &job);
	tf_mailbox.generation--;
	if (!rc)
		_exit(0);
	close(fd[0]);
	if (rc == TELEFORK_PARENT)
		receive(fd[1], options);
	close(fd[1]);
	if (rc == TELEFORK_PARENT)
		telefork_wait(job, &result);
}
