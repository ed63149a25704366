/* SPDX-License-Identifier: MIT */
/* What a receiver tells its caller. */
#include "core/restore/pad.h"

#include <string.h>

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
