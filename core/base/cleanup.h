/* SPDX-License-Identifier: MIT */
/*
 * Clean-up by attribute: TF_CLOSE closes a descriptor at the end of its scope, TF_FREE frees heap
 * memory.
 */
#ifndef TF_BASE_CLEANUP_H
#define TF_BASE_CLEANUP_H

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

static inline void tf_closep(int *fd)
{
	if (*fd >= 0)
		close(*fd);
}

static inline void tf_freep(void *p)
{
	free(*(void **)p);
}

/* Moves a descriptor that stands where a standard stream belongs: the program closed that. -1 with
 * errno and nothing open on failure. */
static inline int tf_fd_above_stdio(int fd)
{
	int above, saved;

	if (fd < 0 || fd > STDERR_FILENO)
		return fd;
	above = fcntl(fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
	saved = errno;
	close(fd);
	errno = saved;
	return above;
}

#define TF_CLOSE __attribute__((cleanup(tf_closep)))
#define TF_FREE  __attribute__((cleanup(tf_freep)))

#endif
