/* SPDX-License-Identifier: MIT */
/* A listening socket for an address. */
#include "core/channel/channel.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define BACKLOG 64

static int bind_tcp(const struct tf_resolved *r, const char *text, struct tf_err *e)
{
	int err = 0;

	for (unsigned i = 0; i < r->n; i++) {
		int one = 1, fd = socket(r->addr[i].ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);

		if (fd < 0) {
			err = errno;
			continue;
		}
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
		/* For those that accept() makes: an answer and a copy's first word wait for no
		 * ACK. */
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
		if (!bind(fd, (const struct sockaddr *)&r->addr[i], r->len[i]) &&
			!listen(fd, BACKLOG))
			return fd;
		err = errno;
		close(fd);
	}
	return tf_fail_errno(e, TELEFORK_E_ADDRESS, err, "%s: cannot listen", text);
}

/* A socket file that nobody listens on is a dead receiver's. */
static void remove_stale(const char *path, const struct tf_resolved *r)
{
	struct stat st;
	int fd;

	if (lstat(path, &st) || !S_ISSOCK(st.st_mode))
		return;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (connect(fd, (const struct sockaddr *)&r->addr[0], r->len[0]) && errno == ECONNREFUSED)
		unlink(path);
	close(fd);
}

static int bind_unix(const struct tf_address *a, const struct tf_resolved *r, struct tf_err *e)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	mode_t old;
	int rc;

	remove_stale(a->path, r);
	old = umask(0177);
	rc = bind(fd, (const struct sockaddr *)&r->addr[0], r->len[0]) || listen(fd, BACKLOG);
	umask(old);
	if (!rc)
		return fd;
	tf_fail_errno(e, TELEFORK_E_ADDRESS, errno, "%s: cannot listen", a->text);
	close(fd);
	return e->code;
}

static void name_tcp(int fd, const struct tf_address *a, char *text, size_t size)
{
	struct sockaddr_storage ss;
	socklen_t len = sizeof(ss);
	char port[32];

	if (getsockname(fd, (struct sockaddr *)&ss, &len) ||
		getnameinfo((struct sockaddr *)&ss, len, NULL, 0, port, sizeof(port),
			NI_NUMERICSERV | NI_NUMERICHOST))
		snprintf(port, sizeof(port), "%s", a->port);
	snprintf(text, size, strchr(a->host, ':') ? "tcp://[%s]:%s" : "tcp://%s:%s", a->host, port);
}

int tf_channel_listen(const struct tf_address *a, char *ret_text, size_t size, struct tf_err *e)
{
	struct tf_resolved r;
	int fd, rc = tf_address_resolve(a, true, &r, e);

	if (rc)
		return rc;
	fd = a->kind == TF_ADDRESS_TCP ? bind_tcp(&r, a->text, e) : bind_unix(a, &r, e);
	if (fd < 0)
		return fd;
	if (a->kind == TF_ADDRESS_TCP)
		name_tcp(fd, a, ret_text, size);
	else
		snprintf(ret_text, size, "%s", a->text);
	return fd;
}
