/* SPDX-License-Identifier: MIT */
/* Waiting for a transfer, cancelling it. The parent's side of capture/self.c. */
#include "core/job.h"
#include "core/base/io.h"
#include "core/channel/channel.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

bool tf_status_read(int fd, uint32_t kind, struct tf_status *status)
{
	do {
		ssize_t n;

		do
			n = read(fd, status, sizeof(*status));
		while (n < 0 && errno == EINTR);
		if (n != (ssize_t)sizeof(*status))
			return false;
	} while (status->kind != kind);
	return true;
}

void tf_status_write(int fd, const struct tf_status *status)
{
	while (write(fd, status, sizeof(*status)) < 0 && errno == EINTR)
		;
}

int telefork_job_fd(const struct telefork_job *job)
{
	return job ? job->fd : TELEFORK_E_INVAL;
}

int telefork_cancel(struct telefork_job *job)
{
	struct pollfd ended = {.fd = job ? job->fd : -1, .events = POLLIN};

	if (!job)
		return TELEFORK_E_INVAL;
	/* An ended snapshot that is not ours to reap has given its pid away. */
	if (poll(&ended, 1, 0) > 0)
		return 0;
	job->cancelled = true;
	return kill(job->snapshot, SIGKILL) && errno != ESRCH ? TELEFORK_E_SYSTEM : 0;
}

static void describe_death(const struct telefork_job *job, int status, struct telefork_result *r)
{
	if (job->cancelled) {
		r->error = TELEFORK_E_CANCELLED;
		snprintf(r->message, sizeof(r->message), "cancelled by telefork_cancel()");
		return;
	}
	r->error = TELEFORK_E_SYSTEM;
	if (job->child && WIFSIGNALED(status))
		snprintf(r->message, sizeof(r->message),
			"the snapshot (pid %d) was ended by signal %d (out of memory?)",
			(int)job->snapshot, WTERMSIG(status));
	else
		snprintf(r->message, sizeof(r->message),
			"the snapshot (pid %d) ended without a word", (int)job->snapshot);
}

int telefork_wait(struct telefork_job *job, struct telefork_result *result)
{
	struct tf_status s = {0};
	struct telefork_result *r = &s.result;
	bool done;
	int status = 0;

	if (!job)
		return TELEFORK_E_INVAL;
	done = tf_status_read(job->fd, TF_STATUS_DONE, &s);
	if (job->child)
		while (waitpid(job->snapshot, &status, __WALL) < 0 && errno == EINTR)
			;
	if (!done)
		describe_death(job, status, r);
	r->stopped_ns = job->stopped_ns;
	r->total_ns = tf_now_ns() - job->start_ns;
	if (result)
		*result = *r;
	tf_file_forget(job->channel_fd);
	close(job->fd);
	free(job);
	return r->error;
}
