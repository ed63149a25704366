/* SPDX-License-Identifier: MIT */
/* What a receiver tells its caller, and a sender that it refuses. */
#include "core/restore/pad.h"

#include <poll.h>
#include <string.h>
#include <sys/socket.h>

/* After a refusal: for so long what still comes is read, or until nothing comes for so long.
 * Closing with bytes unread would take the refusal away from the sender (TCP resets). */
#define REFUSE_MS 2000
#define QUIET_MS  300

void tf_pad_result(const struct tf_pad *p, struct telefork_result *result)
{
	if (!result)
		return;
	*result = p->result;
	result->error = p->err.code;
	result->bytes_received = p->io.received;
	result->bytes_sent = p->io.sent;
	memcpy(result->message, p->err.text, sizeof(result->message));
	if (p->err.code)
		result->pid = 0;
	for (uint32_t i = 0; i < p->image.n_fds; i++) {
		int fd = p->image.fds[i].fd;

		if (fd < 3 || (p->restore.fds.peer && fd == p->image.source.channel_fd))
			continue;
		if (result->held_total < TELEFORK_HELD_MAX)
			result->held[result->held_total] = fd;
		result->held_total++;
	}
}

void tf_pad_hang_up(struct tf_pad *p)
{
	uint64_t until = tf_now_ns() + REFUSE_MS * UINT64_C(1000000);
	char sink[65536];

	if (!p->io.socket)
		return;
	shutdown(p->io.fd, SHUT_WR);
	while (tf_now_ns() < until) {
		struct pollfd in = {.fd = p->io.fd, .events = POLLIN};

		if (poll(&in, 1, QUIET_MS) <= 0 ||
			recv(p->io.fd, sink, sizeof(sink), MSG_DONTWAIT) <= 0)
			break;
	}
}

void tf_pad_refuse(struct tf_pad *p)
{
	struct tf_reply r = {.code = p->err.code};
	struct tf_err quiet = {0};

	if (!p->answers)
		return;
	/* No deadline, which may have passed before there was a processor for us. */
	p->io.deadline_ns = 0;
	p->io.idle_ms = REFUSE_MS;
	if (!tf_reply_write(&p->io, &r, p->err.text, &quiet))
		tf_pad_hang_up(p);
}
