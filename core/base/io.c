/* SPDX-License-Identifier: MIT */
/* Bounded input and output, see io.h. System calls only. */
#include "core/base/io.h"

#include <errno.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* A blocking write to a pipe that poll() called writable may block for more than PIPE_BUF bytes. */
#define PIPE_STEP 4096u

/* Of a unix socket, where the system allows it: some extents. */
#define UNSENT_BYTES (1 << 20)

uint64_t tf_clock_ns(clockid_t clock)
{
	struct timespec ts;

	clock_gettime(clock, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

uint64_t tf_now_ns(void)
{
	return tf_clock_ns(CLOCK_MONOTONIC);
}

void tf_io_init(struct tf_io *io, int fd, const struct telefork_options *o)
{
	struct stat st;

	*io = (struct tf_io){.fd = fd, .idle_ms = TF_IDLE_DEFAULT_MS};
	io->socket = !fstat(fd, &st) && S_ISSOCK(st.st_mode);
	if (o && o->idle_ms > 0)
		io->idle_ms = o->idle_ms;
	if (o && o->deadline_ms > 0)
		io->deadline_ns = tf_now_ns() + (uint64_t)o->deadline_ms * 1000000u;
}

int tf_io_widen(const struct tf_io *io)
{
	int domain, before, wanted = UNSENT_BYTES;
	socklen_t size = sizeof(int);

	if (getsockopt(io->fd, SOL_SOCKET, SO_DOMAIN, &domain, &size) || domain != AF_UNIX ||
		getsockopt(io->fd, SOL_SOCKET, SO_SNDBUF, &before, &size) ||
		setsockopt(io->fd, SOL_SOCKET, SO_SNDBUF, &wanted, sizeof(wanted)))
		return 0;
	return before / 2; /* the kernel doubles what it is given, socket(7) */
}

void tf_io_narrow(const struct tf_io *io, int before)
{
	if (before)
		setsockopt(io->fd, SOL_SOCKET, SO_SNDBUF, &before, sizeof(before));
}

/* Whoever talks or hangs up while we are sending does not want the rest. */
static int heard(struct tf_io *io, struct tf_err *e)
{
	char byte;

	if (recv(io->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) > 0)
		return tf_fail(e, TELEFORK_E_CLOSED,
			"the other side answered before everything was sent, %llu bytes were sent",
			(unsigned long long)io->sent);
	return tf_fail(e, TELEFORK_E_CLOSED,
		"the other side closed the connection, %llu bytes were sent",
		(unsigned long long)io->sent);
}

static int wait_for(struct tf_io *io, short events, struct tf_err *e)
{
	struct pollfd p = {.fd = io->fd, .events = events};
	uint64_t start = tf_now_ns();

	for (;;) {
		uint64_t now = tf_now_ns(), limit = start + (uint64_t)io->idle_ms * 1000000u;
		bool deadline = io->deadline_ns && io->deadline_ns < limit;
		uint64_t ms;
		int n;

		if (deadline)
			limit = io->deadline_ns;
		if (now >= limit && deadline)
			return tf_fail(e, TELEFORK_E_TIMEOUT,
				"the deadline passed, %llu bytes were sent, %llu received",
				(unsigned long long)io->sent, (unsigned long long)io->received);
		ms = now < limit ? (limit - now) / 1000000u + 1 : 0;
		n = poll(&p, 1, ms < INT32_MAX ? (int)ms : INT32_MAX);
		if (!n && !ms) /* it is looked at late, too: we may have had no processor */
			return tf_fail(e, TELEFORK_E_TIMEOUT,
				"the other side moved no byte for %d ms", io->idle_ms);
		if (n > 0 && events == (POLLIN | POLLOUT) && (p.revents & POLLIN)) {
			int rc = io->told ? io->told(io, e) : 0;

			if (rc <= 0)
				return rc ? rc : heard(io, e);
			continue;
		}
		if (n > 0)
			return 0;
		if (n < 0 && errno != EINTR)
			return tf_fail_errno(e, TELEFORK_E_IO, errno, "poll");
	}
}

int tf_io_heed(struct tf_io *io, struct tf_err *e)
{
	int rc = wait_for(io, POLLIN, e);

	if (rc)
		return rc;
	rc = io->told(io, e);
	return rc > 0 ? 0 : rc ? rc : heard(io, e);
}

static ssize_t write_some(struct tf_io *io, struct iovec *iov, int n)
{
	struct msghdr m = {.msg_iov = iov, .msg_iovlen = (size_t)n};

	if (io->socket)
		return sendmsg(io->fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT);
	return write(io->fd, iov->iov_base, iov->iov_len < PIPE_STEP ? iov->iov_len : PIPE_STEP);
}

int tf_io_writev(struct tf_io *io, struct iovec *iov, int n, struct tf_err *e)
{
	while (n > 0) {
		ssize_t done;
		int rc;

		if (!iov->iov_len) {
			iov++, n--;
			continue;
		}
		if ((!io->socket || io->deadline_ns) && (rc = wait_for(io, POLLOUT, e)))
			return rc;
		done = write_some(io, iov, n);
		if (done < 0 && errno == EAGAIN) {
			if ((rc = wait_for(io, io->heed ? POLLIN | POLLOUT : POLLOUT, e)))
				return rc;
			continue;
		}
		if (done < 0 && errno == EINTR)
			continue;
		if (done < 0 && (errno == EPIPE || errno == ECONNRESET))
			return tf_fail(e, TELEFORK_E_CLOSED,
				"the other side closed the connection, %llu bytes were sent",
				(unsigned long long)io->sent);
		if (done < 0)
			return tf_fail_errno(e, TELEFORK_E_IO, errno, "write");
		io->sent += (uint64_t)done;
		for (; n > 0 && (size_t)done >= iov->iov_len; iov++, n--)
			done -= (ssize_t)iov->iov_len;
		if (n > 0) {
			iov->iov_base = (char *)iov->iov_base + done;
			iov->iov_len -= (size_t)done;
		}
	}
	return 0;
}

int tf_io_write(struct tf_io *io, const void *p, size_t n, struct tf_err *e)
{
	struct iovec iov = {(void *)p, n};

	return tf_io_writev(io, &iov, 1, e);
}

int tf_io_read_raw(struct tf_io *io, void *p, size_t n, struct tf_err *e)
{
	char *at = p;

	while (n) {
		ssize_t got;
		int rc = wait_for(io, POLLIN, e);

		if (rc)
			return rc;
		got = io->socket ? recv(io->fd, at, n, MSG_DONTWAIT) : read(io->fd, at, n);
		if (got < 0 && (errno == EINTR || errno == EAGAIN))
			continue;
		if (!got || (got < 0 && errno == ECONNRESET))
			return tf_fail(e, TELEFORK_E_CLOSED,
				"the other side closed the connection, %llu bytes were received",
				(unsigned long long)io->received);
		if (got < 0)
			return tf_fail_errno(e, TELEFORK_E_IO, errno, "read");
		io->received += (uint64_t)got;
		at += got;
		n -= (size_t)got;
	}
	return 0;
}

int tf_io_read(struct tf_io *io, void *p, size_t n, struct tf_err *e)
{
	char *at = p;

	if (!io->next_frame)
		return tf_io_read_raw(io, p, n, e);
	while (n) {
		size_t part;
		int rc = io->frame_left ? 0 : io->next_frame(io, e);

		part = n < io->frame_left ? n : io->frame_left;
		if (!rc)
			rc = tf_io_read_raw(io, at, part, e);
		if (rc)
			return rc;
		io->frame_left -= (uint32_t)part;
		at += part;
		n -= part;
	}
	return 0;
}

int tf_io_pwrite(int fd, const void *p, size_t n, uint64_t offset, struct tf_err *e)
{
	const char *at = p;

	while (n) {
		ssize_t done = pwrite(fd, at, n, (off_t)offset);

		if (done < 0 && errno == EINTR)
			continue;
		if (done < 0)
			return tf_fail_errno(e, TELEFORK_E_IO, errno, "write at byte %llu",
				(unsigned long long)offset);
		at += done;
		n -= (size_t)done;
		offset += (uint64_t)done;
	}
	return 0;
}

int tf_io_pread(int fd, void *p, size_t n, uint64_t offset, struct tf_err *e)
{
	char *at = p;

	while (n) {
		ssize_t got = pread(fd, at, n, (off_t)offset);

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return tf_fail_errno(e, TELEFORK_E_IO, errno, "read at byte %llu",
				(unsigned long long)offset);
		if (!got)
			return tf_fail(e, TELEFORK_E_IMAGE,
				"the file ends at byte %llu: it was cut, or is no image",
				(unsigned long long)offset);
		at += got;
		n -= (size_t)got;
		offset += (uint64_t)got;
	}
	return 0;
}
