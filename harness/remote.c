/* SPDX-License-Identifier: MIT */
/*
 * What is the same for machines of every tier: their jobs, the output that is kept, and waiting for
 * a word of a job while all machines are attended to.
 */
#include "harness/progress.h"
#include "harness/remote.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "qemu/io.h"

#define SET_MAX 16

const char *const tf_tier_names[TF_TIERS] = {"native", "user", "system", "icount"};
const char *const tf_transport_names[TF_TRANSPORTS] = {"file", "unix", "tcp"};

int tf_remote_new(struct tf_site *site, const struct tf_spec *spec, const char *name,
	struct tf_remote **ret, struct tf_vm_error *err)
{
	struct tf_remote common = {.spec = *spec};
	int rc;

	site->count++;
	snprintf(common.name, sizeof(common.name), "%s", name);
	common.folder = tf_vm_format(
		"%s/%u-%s-%s", site->folder, site->count, tf_tier_names[spec->tier], spec->arch);
	rc = common.folder ? tf_vm_make_dirs(common.folder) : -ENOMEM;
	if (rc < 0)
		rc = tf_vm_fail_errno(err, rc, "the folder of machine %s", name);
	else if (spec->tier == TF_TIER_SYSTEM)
		rc = tf_remote_new_guest(site, &common, ret, err);
	else
		rc = tf_remote_new_host(site, &common, ret, err);
	if (rc < 0)
		free(common.folder);
	return rc;
}

void tf_remote_free(struct tf_remote *r)
{
	char *folder;

	if (!r)
		return;
	while (r->jobs)
		tf_job_free(r->jobs); /* NOLINT(clang-analyzer-unix.Malloc): takes itself off */
	folder = r->folder;
	json_decref(r->facts);
	r->ops->end(r);
	free(folder);
}

void tf_site_done(struct tf_site *site)
{
	tf_link_free(site->link);
	site->link = NULL;
}

const char *tf_remote_path(const struct tf_remote *r, const char *name, char *buf, size_t size)
{
	snprintf(buf, size, "%s/%s", r->dir, name);
	return buf;
}

int tf_remote_put(struct tf_remote *r, const char *host_path, const char *name, mode_t mode,
	struct tf_vm_error *err)
{
	char path[4096];

	return r->ops->put(r, host_path, tf_remote_path(r, name, path, sizeof(path)), mode, err);
}

int tf_remote_get(
	struct tf_remote *r, const char *name, const char *host_path, struct tf_vm_error *err)
{
	char path[4096];

	return r->ops->get(r, tf_remote_path(r, name, path, sizeof(path)), host_path, err);
}

int tf_job_start(struct tf_remote *r, const char *const argv[], unsigned how, struct tf_job **ret,
	struct tf_vm_error *err)
{
	struct tf_job *job = calloc(1, sizeof(*job));
	const char *slash = strrchr(argv[0], '/');
	int rc;

	if (!job)
		return tf_vm_fail(err, -ENOMEM, "no memory");
	job->remote = r;
	job->pipe[0] = job->pipe[1] = job->input = -1;
	job->held = how & TF_JOB_HELD;
	snprintf(job->name, sizeof(job->name), "%s", slash ? slash + 1 : argv[0]);
	tf_job_keep(job, 0, "", 0);
	tf_job_keep(job, 1, "", 0);
	rc = job->text[0] && job->text[1] ? r->ops->start(r, argv, how, job, err)
					  : tf_vm_fail(err, -ENOMEM, "no memory");
	if (rc < 0) {
		free(job->text[0]);
		free(job->text[1]);
		free(job);
		return rc;
	}
	job->next = r->jobs;
	r->jobs = job;
	*ret = job;
	return 0;
}

int tf_job_let_go(struct tf_job *job, struct tf_vm_error *err)
{
	if (!job->held || job->ended)
		return 0;
	job->held = false;
	return job->remote->ops->let_go(job, err);
}

void tf_job_keep(struct tf_job *job, int stream, const void *data, size_t len)
{
	size_t have = job->len[stream];
	char *more;

	if (len > TF_JOB_OUTPUT_MAX - have)
		len = TF_JOB_OUTPUT_MAX - have;
	more = realloc(job->text[stream], have + len + 1);
	if (!more)
		return;
	memcpy(more + have, data, len);
	more[have + len] = '\0';
	job->text[stream] = more;
	job->len[stream] = have + len;
}

struct tf_job *tf_job_find(struct tf_remote *r, uint32_t id)
{
	struct tf_job *job = r->jobs;

	while (job && (job->id != id || job->closed))
		job = job->next;
	return job;
}

/* The rest of the first whole line that begins with @word, or NULL. */
static char *find_line(const char *text, const char *word)
{
	size_t n = strlen(word);

	for (const char *line = text, *end; (end = strchr(line, '\n')); line = end + 1)
		if (!strncmp(line, word, n))
			return strndup(line + n, (size_t)(end - line) - n);
	return NULL;
}

/* One round: waits until a machine of the set has something, and takes it in. */
static int attend(struct tf_remote *const set[], size_t n, int timeout_ms, struct tf_vm_error *err)
{
	struct pollfd fds[SET_MAX];

	for (size_t i = 0; i < n; i++)
		fds[i] = (struct pollfd){.fd = set[i]->ops->fd(set[i]), .events = POLLIN};
	while (poll(fds, n, timeout_ms < TF_PROGRESS_STEP_MS ? timeout_ms : TF_PROGRESS_STEP_MS) ==
		0) {
		if (timeout_ms <= TF_PROGRESS_STEP_MS)
			return -ETIMEDOUT;
		timeout_ms -= TF_PROGRESS_STEP_MS;
		tf_progress_tick();
	}
	tf_progress_tick(); /* where there is something each time it is looked at, too */
	for (size_t i = 0; i < n; i++) {
		if (fds[i].revents)
			set[i]->ops->pump(set[i]);
		if (set[i]->dead)
			return tf_vm_fail(err, -ECHILD, "%s", set[i]->why.text);
	}
	return 0;
}

int tf_job_wait(struct tf_remote *const set[], size_t n, struct tf_job *job, int stream,
	const char *word, char **ret_line, int limit_ms, struct tf_vm_error *err)
{
	int64_t deadline = tf_vm_now_ms() + limit_ms;
	char fate[128];

	if (n > SET_MAX)
		return tf_vm_fail(err, -E2BIG, "%zu machines at once, at most %d", n, SET_MAX);
	for (;;) {
		char *line = word ? find_line(job->text[stream], word) : NULL;
		int rc;

		if (line && ret_line)
			*ret_line = line;
		else
			free(line);
		if (line || (!word && job->ended && job->closed))
			return 0;
		if (job->ended && job->closed)
			return tf_vm_fail(err, -ESRCH, "%s on %s %s, and said: %.300s%.300s",
				job->name, job->remote->name, tf_job_fate(job, fate, sizeof(fate)),
				job->text[0], job->text[1]);
		rc = attend(set, n, tf_vm_left_ms(deadline), err);
		if (rc == -ETIMEDOUT)
			return tf_vm_fail(err, rc,
				"%s on %s: no %s%s within %.1f s; it said: %.300s%.300s", job->name,
				job->remote->name, word ? "line beginning with " : "end",
				word ? word : "", limit_ms / 1e3, job->text[0], job->text[1]);
		if (rc < 0)
			return rc;
	}
}

const char *tf_job_fate(const struct tf_job *job, char *buf, size_t size)
{
	if (!job->ended)
		snprintf(buf, size, "still runs");
	else if (WIFSIGNALED(job->status))
		snprintf(buf, size, "was killed by signal %d", WTERMSIG(job->status));
	else
		snprintf(buf, size, "ended with exit code %d", WEXITSTATUS(job->status));
	return buf;
}

int tf_job_ask(struct tf_job *job, pid_t pid, int signo, const char *name, int limit_ms,
	struct tf_vm_error *err)
{
	if (pid <= 1)
		return tf_vm_fail(
			err, -ESRCH, "%s on %s: no such process", job->name, job->remote->name);
	return job->remote->ops->ask(job, pid, signo, name, limit_ms, err);
}

void tf_job_signal(struct tf_job *job, int signo)
{
	if (!job->remote->dead && !job->closed)
		job->remote->ops->signal(job, signo);
}

void tf_job_free(struct tf_job *job)
{
	struct tf_job **at;

	if (!job)
		return;
	tf_job_signal(job, SIGKILL);
	job->remote->ops->drop(job);
	for (at = &job->remote->jobs; *at != job; at = &(*at)->next)
		;
	*at = job->next;
	free(job->text[0]);
	free(job->text[1]);
	free(job);
}
