/* SPDX-License-Identifier: MIT */
/* See relay.h. One loop over four descriptors; nothing is kept but the frame under way. */
#include "core/restore/relay.h"
#include "core/base/cleanup.h"
#include "core/channel/frames.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { BACK, OUT, ERR, SENDER, COPY, SOURCES };

/* How often a copy is asked whether it lives where there are no pidfds (before Linux 5.3). */
#define ASK_MS 10

int tf_relay_open(struct tf_relay *r, int fd, const struct telefork_options *options,
	struct tf_relay_ends *ends, struct tf_err *e)
{
	int back[2], out[2], err[2];

	tf_io_init(&r->io, fd, options);
	r->io.deadline_ns = 0; /* that of the arrival, not of the function */
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, back))
		return tf_fail_errno(e, TELEFORK_E_SYSTEM, errno, "socketpair");
	*ends = (struct tf_relay_ends){back[1], {-1, -1}};
	r->back = back[0];
	if (!pipe2(out, O_CLOEXEC)) {
		ends->output[0] = out[1];
		r->output[0] = out[0];
		if (!pipe2(err, O_CLOEXEC)) {
			ends->output[1] = err[1];
			r->output[1] = err[0];
			return 0;
		}
	}
	tf_fail_errno(e, TELEFORK_E_SYSTEM, errno, "pipe");
	tf_relay_close_ends(ends);
	tf_relay_close(r);
	return e->code;
}

static void close_one(int *fd)
{
	tf_closep(fd);
	*fd = -1;
}

void tf_relay_close_ends(struct tf_relay_ends *ends)
{
	close_one(&ends->back);
	close_one(&ends->output[0]);
	close_one(&ends->output[1]);
}

void tf_relay_close(struct tf_relay *r)
{
	close_one(&r->back);
	close_one(&r->output[0]);
	close_one(&r->output[1]);
}

/* Whether the copy has ended; it stays to be reaped. *status: -1 if somebody else took it. */
static bool has_ended(pid_t child, bool wait, int32_t *status)
{
	siginfo_t info = {0};
	int flags = WEXITED | WNOWAIT | (wait ? 0 : WNOHANG);

	while (waitid(P_PID, (id_t)child, &info, flags) < 0)
		if (errno != EINTR) {
			*status = -1;
			return true;
		}
	if (!info.si_pid)
		return false;
	*status = info.si_code == CLD_EXITED ? (info.si_status & 0xff) << 8 : info.si_status & 0x7f;
	return true;
}

/* Passes on what one descriptor has; closes it at its end. How many bytes, or an error. */
static int pass(struct tf_relay *r, int *fd, enum tf_frame_type type)
{
	char buf[TF_FRAME_MAX];
	struct pollfd p = {.fd = *fd, .events = POLLIN};
	ssize_t n;

	if (*fd < 0 || poll(&p, 1, 0) <= 0)
		return 0;
	n = read(*fd, buf, sizeof(buf));
	if (n < 0 && (errno == EINTR || errno == EAGAIN))
		return 0;
	if (n <= 0) {
		close_one(fd);
		return 0;
	}
	return tf_frame_write(&r->io, type, buf, (uint32_t)n, NULL) ?: (int)n;
}

/* One round; 0, or an error: the sender is gone. */
static int round_trip(struct tf_relay *r, int pidfd)
{
	struct pollfd p[SOURCES] = {
		[BACK] = {r->back, POLLIN, 0},
		[OUT] = {r->output[0], POLLIN, 0},
		[ERR] = {r->output[1], POLLIN, 0},
		[SENDER] = {r->io.fd, POLLIN | POLLRDHUP, 0},
		[COPY] = {pidfd, POLLIN, 0},
	};
	int n = poll(p, SOURCES, pidfd < 0 ? ASK_MS : TF_FRAME_ALIVE_MS), rc = 0;

	if (n < 0)
		return errno == EINTR ? 0 : TELEFORK_E_SYSTEM;
	if (p[SENDER].revents) /* it has nothing more to say: this is its end */
		return TELEFORK_E_CLOSED;
	if (!n)
		return tf_frame_write(&r->io, TF_FRAME_ALIVE, NULL, 0, NULL);
	if (p[OUT].revents)
		rc = pass(r, &r->output[0], TF_FRAME_OUT);
	if (rc >= 0 && p[ERR].revents)
		rc = pass(r, &r->output[1], TF_FRAME_ERR);
	if (rc >= 0 && p[BACK].revents)
		rc = pass(r, &r->back, TF_FRAME_DATA);
	return rc < 0 ? rc : 0;
}

/* What a dead copy has left in one descriptor, and no more: who escaped may go on writing. */
static int drain_one(struct tf_relay *r, int *fd, enum tf_frame_type type)
{
	int left = 0, rc = 0;

	if (*fd >= 0)
		ioctl(*fd, FIONREAD, &left);
	for (; left > 0 && (rc = pass(r, fd, type)) > 0; left -= rc)
		;
	return rc < 0 ? rc : 0;
}

static int drain(struct tf_relay *r)
{
	int rc = drain_one(r, &r->back, TF_FRAME_DATA);

	if (!rc)
		rc = drain_one(r, &r->output[0], TF_FRAME_OUT);
	return rc ? rc : drain_one(r, &r->output[1], TF_FRAME_ERR);
}

/* The copy may have left its group. */
static void kill_all(const struct tf_relay *r, int pidfd)
{
	kill(-r->child, SIGKILL);
	if (pidfd < 0)
		kill(r->child, SIGKILL);
	else
		syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0);
}

void tf_relay_run(struct tf_relay *r)
{
	TF_CLOSE int pidfd = (int)syscall(SYS_pidfd_open, r->child, 0);
	int32_t status = -1;
	int rc = 0;

	/* Its end, not its descriptors': what it started may hold those for ever. */
	while (!rc && !has_ended(r->child, false, &status))
		rc = round_trip(r, pidfd);
	kill_all(r, pidfd);
	if (!rc)
		rc = drain(r);
	if (!rc)
		tf_frame_write(&r->io, TF_FRAME_END, &status, sizeof(status), NULL);
	has_ended(r->child, true, &status);
	tf_relay_close(r);
}
