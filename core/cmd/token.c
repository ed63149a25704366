/* SPDX-License-Identifier: MIT */
/* What several commands read from files and arguments. */
#include "core/base/cleanup.h"
#include "core/cmd/cmd.h"
#include "core/image/image.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

int tf_read_token(const char *path, char token[static TELEFORK_TOKEN_MAX + 1], struct tf_err *e)
{
	TF_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, token, TELEFORK_TOKEN_MAX + 1);

	if (n < 0)
		return tf_fail_errno(e, TELEFORK_E_IO, errno, "%s", path);
	while (n && (token[n - 1] == '\n' || token[n - 1] == '\r'))
		n--;
	if (!n || n > TELEFORK_TOKEN_MAX)
		return tf_fail(e, TELEFORK_E_AUTH, "%s: a token has 1 to %d bytes", path,
			TELEFORK_TOKEN_MAX);
	token[n] = '\0';
	return 0;
}

int tf_parse_pid(const char *arg)
{
	char *end;
	long pid;

	errno = 0;
	pid = strtol(arg, &end, 10);
	return errno || end == arg || *end || pid <= 0 || pid > TF_MAX_TID ? -1 : (int)pid;
}

int tf_parse_seconds(const char *arg)
{
	char *end;
	long seconds;

	errno = 0;
	seconds = strtol(arg, &end, 10);
	return errno || end == arg || *end || seconds < 1 || seconds > 86400 ? -1
									     : (int)seconds * 1000;
}
