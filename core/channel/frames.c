/* SPDX-License-Identifier: MIT */
/* Frames, see frames.h. The reader believes a size only up to TF_FRAME_MAX. */
#include "core/channel/frames.h"

#include <errno.h>
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

int tf_frame_write(
	struct tf_io *io, enum tf_frame_type type, const void *p, uint32_t size, struct tf_err *e)
{
	struct tf_frame head = {type, size};
	struct iovec iov[2] = {{&head, sizeof(head)}, {(void *)p, size}};

	return tf_io_writev(io, iov, 2, e);
}

/* As long as a write would block, or until the deadline. */
static int wait_for_room(const struct tf_io *io, int fd, struct tf_err *e)
{
	struct pollfd p = {.fd = fd, .events = POLLOUT};
	uint64_t now = tf_now_ns();
	int ms = -1;

	if (io->deadline_ns && now >= io->deadline_ns)
		return tf_fail(
			e, TELEFORK_E_TIMEOUT, "the deadline passed while output was written");
	if (io->deadline_ns && (io->deadline_ns - now) / 1000000u < INT32_MAX)
		ms = (int)((io->deadline_ns - now) / 1000000u) + 1;
	poll(&p, 1, ms);
	errno = EAGAIN;
	return 0;
}

/* Output that cannot be written here is lost, as it would be for a child of ours; a stream that
 * never blocks is waited for. */
static int pass_on(struct tf_io *io, int fd, uint32_t size, struct tf_err *e)
{
	char buf[4096];

	while (size) {
		uint32_t n = size < sizeof(buf) ? size : (uint32_t)sizeof(buf);
		int rc = tf_io_read_raw(io, buf, n, e);

		if (rc)
			return rc;
		for (uint32_t at = 0; at < n;) {
			ssize_t done = write(fd, buf + at, n - at);

			if (done < 0 && errno == EAGAIN && (rc = wait_for_room(io, fd, e)))
				return rc;
			if (done < 0 && errno != EINTR && errno != EAGAIN)
				break;
			at += done > 0 ? (uint32_t)done : 0;
		}
		size -= n;
	}
	return 0;
}

static int ended(int32_t status, struct tf_err *e)
{
	if (status >= 0 && WIFSIGNALED(status))
		return tf_fail(e, TELEFORK_E_CRASHED,
			"the process over there was ended by signal %d before its function returned",
			WTERMSIG(status));
	if (status >= 0)
		return tf_fail(e, TELEFORK_E_CRASHED,
			"the process over there exited with %d before its function returned",
			WEXITSTATUS(status));
	return tf_fail(
		e, TELEFORK_E_CRASHED, "the process over there ended before its function returned");
}

/* Up to the next frame of the wanted types. END's status goes to *ret_status. */
static int next(struct tf_io *io, struct tf_frame *f, int32_t *ret_status, struct tf_err *e)
{
	for (;;) {
		int rc = tf_io_read_raw(io, f, sizeof(*f), e);

		if (rc)
			return rc;
		if (f->size > TF_FRAME_MAX || !f->type || f->type > TF_FRAME_END ||
			(f->type == TF_FRAME_END && f->size != sizeof(*ret_status)))
			return tf_fail(e, TELEFORK_E_PROTOCOL,
				"the receiver sent a frame of type %u and %u bytes", f->type,
				f->size);
		if (f->type == TF_FRAME_END)
			return tf_io_read_raw(io, ret_status, sizeof(*ret_status), e);
		if (f->type == TF_FRAME_DATA && f->size)
			return 0;
		rc = pass_on(io, f->type == TF_FRAME_ERR ? 2 : 1, f->size, e);
		if (rc)
			return rc;
	}
}

static int next_data(struct tf_io *io, struct tf_err *e)
{
	struct tf_frame f;
	int32_t status = -1;
	int rc = next(io, &f, &status, e);

	if (!rc && f.type == TF_FRAME_END)
		rc = ended(status, e);
	io->frame_left = rc ? 0 : f.size;
	return rc;
}

void tf_frames_read(struct tf_io *io)
{
	io->next_frame = next_data;
	io->frame_left = 0;
	if (io->idle_ms < TF_FRAME_IDLE_MS)
		io->idle_ms = TF_FRAME_IDLE_MS;
}

int tf_frames_finish(struct tf_io *io, struct tf_err *e)
{
	struct tf_frame f = {0};
	int32_t status = -1;
	int rc;

	if (io->frame_left)
		return tf_fail(e, TELEFORK_E_PROTOCOL, "bytes follow the changes");
	rc = next(io, &f, &status, e);
	if (!rc && f.type != TF_FRAME_END)
		rc = tf_fail(e, TELEFORK_E_PROTOCOL, "bytes follow the changes");
	return rc;
}
