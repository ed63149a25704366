/* SPDX-License-Identifier: MIT */
/* See files.h. Only looks: nothing is opened here, the copy does that by its plan. */
#include "core/restore/files.h"
#include "core/restore/build.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static bool is_deleted(const char *path)
{
	static const char mark[] = " (deleted)"; /* proc(5), /proc/PID/fd */
	size_t n = strlen(path), m = sizeof(mark) - 1;

	return n > m && !strcmp(path + n - m, mark);
}

/* Why the file cannot be opened here as the process has it; NULL if it can. */
static const char *obstacle(const struct tf_fd *fd)
{
	unsigned how = fd->flags & O_ACCMODE;
	int need = (how == O_WRONLY ? 0 : R_OK) | (how == O_RDONLY ? 0 : W_OK);
	struct stat st;

	if (stat(fd->path, &st))
		return is_deleted(fd->path) ? "deleted at the source" : tf_errno_name(errno);
	if (fd->kind == TF_FD_FILE && !S_ISREG(st.st_mode))
		return "no regular file here";
	if (!(fd->flags & O_PATH) && faccessat(AT_FDCWD, fd->path, need, AT_EACCESS))
		return tf_errno_name(errno);
	return NULL;
}

int tf_files_check(struct tf_image *img, bool hold, struct tf_err *e)
{
	int rc = 0;

	for (uint32_t i = 0; i < img->n_fds; i++) {
		struct tf_fd *fd = &img->fds[i];
		const char *why = tf_restore_opens(img, fd) ? obstacle(fd) : NULL;

		if (!why)
			continue;
		rc = tf_fail_more(e, TELEFORK_E_INCOMPATIBLE, "descriptor %d, %s: %s%s", fd->fd,
			fd->path, why,
			hold ? "; its number is held, every use answers EBADF"
			     : ": put the file there, or go on without it (restore --allow files)");
		if (hold)
			fd->kind = TF_FD_OTHER;
	}
	return hold ? 0 : rc;
}
