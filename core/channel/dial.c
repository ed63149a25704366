/* SPDX-License-Identifier: MIT */
/* Opening a channel: connecting, greeting, and files that appear only when they are complete. */
#include "core/channel/channel.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define CONNECT_MS 10000

static int ms_until(uint64_t deadline_ns)
{
	uint64_t now = tf_now_ns();

	return now < deadline_ns ? (int)((deadline_ns - now) / 1000000u) + 1 : 0;
}

/* A unix socket is connected at once or, when the listener's queue is full, after a wait that only
 * SO_SNDTIMEO bounds: unix(7). */
static int connect_unix(
	int fd, const struct sockaddr_storage *addr, socklen_t len, uint64_t deadline)
{
	int rc, ms = ms_until(deadline);
	struct timeval tv = {ms / 1000, ms % 1000 * 1000};

	fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_NONBLOCK);
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof(tv));
	while ((rc = connect(fd, (const struct sockaddr *)addr, len)) && errno == EINTR &&
		ms_until(deadline))
		;
	if (rc)
		return errno == EAGAIN || errno == EINTR ? ETIMEDOUT : errno;
	tv = (struct timeval){0};
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof(tv));
	return 0;
}

static int connect_one(
	int fd, const struct sockaddr_storage *addr, socklen_t len, uint64_t deadline)
{
	struct pollfd p = {.fd = fd, .events = POLLOUT};
	int err = 0, n;
	socklen_t size = sizeof(err);

	if (addr->ss_family == AF_UNIX)
		return connect_unix(fd, addr, len, deadline);
	if (!connect(fd, (const struct sockaddr *)addr, len))
		return 0;
	if (errno != EINPROGRESS)
		return errno;
	do
		n = poll(&p, 1, ms_until(deadline));
	while (n < 0 && errno == EINTR);
	if (!n)
		return ETIMEDOUT;
	getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &size);
	return err;
}

int tf_channel_connect(const struct tf_resolved *r, const char *text,
	const struct telefork_options *o, struct tf_err *e)
{
	int ms = o && o->deadline_ms > 0 && o->deadline_ms < CONNECT_MS ? o->deadline_ms
									: CONNECT_MS;
	uint64_t deadline = tf_now_ns() + (uint64_t)ms * 1000000u;
	int err = ENOENT;

	for (unsigned i = 0; i < r->n; i++) {
		int family = r->addr[i].ss_family, one = 1;
		int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

		if (fd < 0) {
			err = errno;
			continue;
		}
		err = connect_one(fd, &r->addr[i], r->len[i], deadline);
		if (!err) {
			fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_NONBLOCK);
			if (family != AF_UNIX)
				setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
			return fd;
		}
		close(fd);
	}
	if (err == ECONNREFUSED || err == ENOENT)
		return tf_fail(e, TELEFORK_E_REFUSED,
			"%s: connection refused (is \"telefork serve\" running there?)", text);
	if (err == ETIMEDOUT)
		return tf_fail(e, TELEFORK_E_TIMEOUT, "%s: no answer within %d ms", text, ms);
	return tf_fail_errno(e, TELEFORK_E_SYSTEM, err, "%s", text);
}

/* --- files without a name --- */

struct nameless {
	int fd;
	dev_t dev; /* the number may be another file's by now: its owner closed it */
	ino_t ino;
	char *partial; /* where the file system has no O_TMPFILE: its name for the time being */
	char *path;
	struct nameless *next;
};

static struct nameless *nameless;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

int tf_file_create_at(const char *path, struct tf_err *e)
{
	char folder[TF_ADDRESS_TEXT];
	const char *slash = strrchr(path, '/');
	size_t n = slash == path ? 1 : slash ? (size_t)(slash - path) : 0;
	int fd;

	if (n >= sizeof(folder))
		return tf_fail(e, TELEFORK_E_IO, "a path of %zu bytes is too long", n);
	memcpy(folder, n ? path : ".", n ? n : 1);
	folder[n ? n : 1] = '\0';
	fd = open(folder, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	return fd < 0 ? tf_fail_errno(e, TELEFORK_E_IO, errno, "%s", path) : fd;
}

int tf_file_publish_at(int fd, const char *path, struct tf_err *e)
{
	char self[40], temporary[TF_ADDRESS_TEXT + 32];

	snprintf(temporary, sizeof(temporary), "%s.%d", path, (int)getpid());
	snprintf(self, sizeof(self), "/proc/self/fd/%d", fd);
	if (linkat(AT_FDCWD, self, AT_FDCWD, temporary, AT_SYMLINK_FOLLOW))
		return tf_fail_errno(e, TELEFORK_E_IO, errno, "%s", temporary);
	if (!rename(temporary, path))
		return 0;
	tf_fail_errno(e, TELEFORK_E_IO, errno, "%s", path);
	unlink(temporary);
	return TELEFORK_E_IO;
}

/* Where the file system has no O_TMPFILE the file has a name for the time being. */
static int open_nameless(const char *path, struct nameless *n)
{
	int fd = tf_file_create_at(path, NULL);

	if (fd >= 0 || (errno != EOPNOTSUPP && errno != EISDIR && errno != ENOENT))
		return fd;
	if (asprintf(&n->partial, "%s.XXXXXX", path) < 0)
		n->partial = NULL;
	return n->partial ? mkostemp(n->partial, O_CLOEXEC) : -1;
}

int tf_file_create(const char *path, struct tf_err *e)
{
	struct nameless *n = calloc(1, sizeof(*n));
	struct stat st;

	if (!n || !(n->path = strdup(path))) {
		free(n);
		return tf_fail(e, TELEFORK_E_NOMEM, "out of memory");
	}
	if (!stat(path, &st) && !S_ISREG(st.st_mode))
		errno = EEXIST, n->fd = -1;
	else
		n->fd = open_nameless(path, n);
	if (n->fd < 0) {
		tf_fail_errno(e, TELEFORK_E_IO, errno, "%s", path);
		free(n->partial);
		free(n->path);
		free(n);
		return TELEFORK_E_IO;
	}
	if (!fstat(n->fd, &st)) {
		n->dev = st.st_dev;
		n->ino = st.st_ino;
	}
	tf_file_forget(n->fd);
	pthread_mutex_lock(&lock);
	n->next = nameless;
	nameless = n;
	pthread_mutex_unlock(&lock);
	return n->fd;
}

/* Runs in the snapshot, where nobody else is: the list is read without the lock. */
int tf_file_publish(int fd, struct tf_err *e)
{
	struct stat st;

	if (fstat(fd, &st))
		return 0;
	for (struct nameless *n = nameless; n; n = n->next) {
		if (n->fd != fd || n->dev != st.st_dev || n->ino != st.st_ino)
			continue;
		if (!n->partial)
			return tf_file_publish_at(fd, n->path, e);
		if (!rename(n->partial, n->path))
			return 0;
		tf_fail_errno(e, TELEFORK_E_IO, errno, "%s", n->path);
		unlink(n->partial);
		return TELEFORK_E_IO;
	}
	return 0;
}

void tf_file_forget(int fd)
{
	pthread_mutex_lock(&lock);
	for (struct nameless **at = &nameless; *at; at = &(*at)->next) {
		struct nameless *n = *at;

		if (n->fd != fd)
			continue;
		*at = n->next;
		if (n->partial)
			unlink(n->partial); /* gone already if it was published */
		free(n->partial);
		free(n->path);
		free(n);
		break;
	}
	pthread_mutex_unlock(&lock);
}
