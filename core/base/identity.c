/* SPDX-License-Identifier: MIT */
/* See identity.h. A pidfd is opened before the start is compared, so that what is compared is what
 * gets the signal; where a kernel has no pidfd (before 5.3), a moment stays between the two. */
#include "core/base/identity.h"
#include "core/base/cleanup.h"
#include "core/base/maps.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* State and start; the name before them may hold anything. */
static int read_stat(pid_t pid, char *ret_state, uint64_t *ret_start)
{
	char path[40], text[1024];
	const char *p;
	int rc;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	rc = tf_proc_peek(path, text, sizeof(text));
	p = rc ? NULL : strrchr(text, ')');
	if (!p || p[1] != ' ' || !p[2])
		return rc == -ENOENT || !rc ? -ESRCH : rc;
	*ret_state = p[2];
	p += 2; /* field 3; every blank leads to the next */
	for (int field = 3; field < 22 && p; field++)
		p = strchr(p + 1, ' ');
	if (!p)
		return -ESRCH;
	*ret_start = strtoull(p, NULL, 10);
	return 0;
}

int tf_identity_of(pid_t pid, struct tf_identity *ret)
{
	struct tf_identity i = {.pid = pid};
	char state;
	int rc = tf_proc_peek("/proc/sys/kernel/random/boot_id", i.boot, sizeof(i.boot));

	if (!rc)
		rc = read_stat(pid, &state, &i.start);
	if (rc)
		return rc;
	*ret = i;
	return 0;
}

char tf_identity_state(const struct tf_identity *i)
{
	struct tf_identity now;
	uint64_t start;
	char state;

	if (tf_identity_of(i->pid, &now) || strcmp(now.boot, i->boot) || now.start != i->start ||
		read_stat(i->pid, &state, &start) || start != i->start)
		return 0;
	return state;
}

bool tf_identity_ended(pid_t pid)
{
	uint64_t start;
	char state;
	int rc = read_stat(pid, &state, &start);

	return rc == -ESRCH || (!rc && (state == 'Z' || state == 'X'));
}

int tf_identity_signal(const struct tf_identity *i, int signo)
{
	TF_CLOSE int fd = (int)syscall(SYS_pidfd_open, i->pid, 0);

	if (fd < 0 && errno != ENOSYS)
		return -errno;
	if (!tf_identity_state(i))
		return -ESRCH;
	if (fd < 0)
		return kill(i->pid, signo) ? -errno : 0;
	return syscall(SYS_pidfd_send_signal, fd, signo, NULL, 0) ? -errno : 0;
}
