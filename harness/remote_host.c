/* SPDX-License-Identifier: MIT */
/*
 * Machines of the tiers "native" and "user": a folder on the host, and programs run there as they
 * are or by QEMU user mode.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include "harness/remote.h"
#include "qemu/child.h"
#include "qemu/io.h"

#define ARGS_MAX 64
#define PIECE    65536

/*
 * A receiver's stack under QEMU user mode is made larger than any program's, so that the pages
 * which the emulator keeps beside it are in nobody's way.
 */
#define RECEIVER_STACK "QEMU_STACK_SIZE=1073741824"

struct host {
	struct tf_remote base;
	int epoll;
	char runner[160]; /* "qemu-aarch64", or "" */
	char cpu[160];    /* its -cpu, or "" */
	unsigned sockets; /* addresses given out */
};

static struct host *host_of(const struct tf_remote *r)
{
	return (struct host *)r;
}

static int copy(int from, int to)
{
	char buf[PIECE];
	ssize_t n;
	int rc = 0;

	while (rc == 0 && (n = read(from, buf, sizeof(buf))) != 0)
		rc = n < 0 ? -errno : tf_vm_write_all(to, buf, (size_t)n);
	return rc;
}

/* A file appears under its name only when it is complete. */
static int copy_file(const char *from, const char *to, mode_t mode, struct tf_vm_error *err)
{
	tf_vm_autofree char *temp = tf_vm_format("%s.tmp", to);
	tf_vm_autoclose int in = open(from, O_RDONLY | O_CLOEXEC);
	tf_vm_autoclose int out = -1;
	int rc;

	if (!temp)
		return tf_vm_fail(err, -ENOMEM, "no memory");
	if (in < 0)
		return tf_vm_fail_errno(err, -errno, "%s", from);
	out = open(temp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode);
	rc = out < 0 ? -errno : copy(in, out);
	if (rc == 0 && rename(temp, to) < 0)
		rc = -errno;
	if (rc < 0 && out >= 0)
		unlink(temp);
	return rc < 0 ? tf_vm_fail_errno(err, rc, "%s", to) : 0;
}

static int host_put(struct tf_remote *r, const char *host_path, const char *path, mode_t mode,
	struct tf_vm_error *err)
{
	int rc;

	(void)r;
	tf_vm_fork_lock();
	rc = copy_file(host_path, path, mode, err);
	tf_vm_fork_unlock();
	return rc;
}

static int host_get(
	struct tf_remote *r, const char *path, const char *host_path, struct tf_vm_error *err)
{
	(void)r;
	return copy_file(path, host_path, 0600, err);
}

/* The guard gives a program one log for both streams, and no input; a shell takes them apart again.
 */
static const char split_streams[] = "exec \"$@\" >&3 2>&4 3>&- 4>&-";
static const char with_input[] = "exec \"$@\" <&5 >&3 2>&4 3>&- 4>&- 5<&-";

/* *@ret_theirs are the ends of the program: output, errors and, if it is held, input. */
static int open_pipes(struct host *h, struct tf_job *job, int ret_theirs[3])
{
	int input[2];

	for (int i = 0; i < 2; i++) {
		struct epoll_event ev = {.events = EPOLLIN};
		int ends[2];

		if (pipe2(ends, O_CLOEXEC) < 0)
			return -errno;
		job->pipe[i] = ends[0];
		ret_theirs[i] = ends[1];
		if (fcntl(ends[0], F_SETFL, O_NONBLOCK) < 0 ||
			epoll_ctl(h->epoll, EPOLL_CTL_ADD, ends[0], &ev) < 0)
			return -errno;
	}
	if (!job->held)
		return 0;
	if (pipe2(input, O_CLOEXEC) < 0)
		return -errno;
	ret_theirs[2] = input[0];
	job->input = input[1];
	return 0;
}

static void host_drop(struct tf_job *job)
{
	tf_vm_child_free(job->child);
	tf_vm_close_fd(&job->input);
	for (int i = 0; i < 2; i++)
		if (job->pipe[i] >= 0)
			close(job->pipe[i]);
}

static int host_let_go(struct tf_job *job, struct tf_vm_error *err)
{
	(void)err;
	tf_vm_close_fd(&job->input);
	return 0;
}

static int host_start(struct tf_remote *r, const char *const argv[], unsigned how,
	struct tf_job *job, struct tf_vm_error *err)
{
	struct host *h = host_of(r);
	tf_vm_autofree char *log = tf_vm_format("%s/log", r->folder);
	const char *full[ARGS_MAX + 10] = {
		"sh", "-c", job->held ? with_input : split_streams, "sh"};
	struct epoll_event ev = {.events = EPOLLIN};
	int theirs[3] = {-1, -1, -1}, rc;
	size_t n = 4;

	if (r->variable) {
		full[n++] = "env";
		full[n++] = r->variable;
	}
	if ((how & TF_JOB_RECEIVER) && h->runner[0]) {
		full[n++] = "env";
		full[n++] = RECEIVER_STACK;
	}
	if (h->runner[0])
		full[n++] = h->runner;
	if (h->cpu[0]) {
		full[n++] = "-cpu";
		full[n++] = h->cpu;
	}
	for (size_t i = 0; argv[i]; i++) {
		if (i == ARGS_MAX)
			return tf_vm_fail(
				err, -E2BIG, "%s: more than %d arguments", argv[0], ARGS_MAX);
		full[n++] = argv[i];
	}
	rc = log ? open_pipes(h, job, theirs) : -ENOMEM;
	if (rc < 0)
		tf_vm_fail_errno(err, rc, "start %s", argv[0]);
	else
		rc = tf_vm_child_start(full,
			(struct tf_vm_child_fd[]){{theirs[0], 3}, {theirs[1], 4}, {theirs[2], 5}},
			job->held ? 3 : 2, log, &job->child, err);
	if (rc == 0)
		job->pid = tf_vm_child_pid(job->child);
	if (rc == 0 && epoll_ctl(h->epoll, EPOLL_CTL_ADD, tf_vm_child_poll_fd(job->child), &ev) < 0)
		rc = tf_vm_fail_errno(err, -errno, "epoll_ctl");
	for (int i = 0; i < 3; i++)
		tf_vm_close_fd(&theirs[i]);
	if (rc < 0)
		host_drop(job);
	return rc;
}

static void host_signal(struct tf_job *job, int signo)
{
	tf_vm_child_signal(job->child, signo);
}

/* Reads what a watch has seen; true if the file @name has come. */
static bool has_come(int watch, const char *name)
{
	char buf[PIECE] __attribute__((aligned(8)));
	ssize_t n = read(watch, buf, sizeof(buf));

	for (ssize_t at = 0; at < n;) {
		const struct inotify_event *e = (const void *)(buf + at);

		if (e->len && !strcmp(e->name, name))
			return true;
		at += (ssize_t)(sizeof(*e) + e->len);
	}
	return false;
}

static int host_ask(struct tf_job *job, pid_t pid, int signo, const char *name, int limit_ms,
	struct tf_vm_error *err)
{
	const struct tf_remote *r = job->remote;
	tf_vm_autoclose int watch = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	int64_t deadline = tf_vm_now_ms() + limit_ms;

	/* A file gets its name when it is complete: renamed, or linked. */
	if (watch < 0 || inotify_add_watch(watch, r->dir, IN_MOVED_TO | IN_CREATE) < 0)
		return tf_vm_fail_errno(err, -errno, "watch %s", r->dir);
	if (kill(pid, signo) < 0)
		return tf_vm_fail_errno(err, -errno, "process %d on %s", (int)pid, r->name);
	while (!has_come(watch, name)) {
		struct pollfd in = {.fd = watch, .events = POLLIN};

		if (poll(&in, 1, tf_vm_left_ms(deadline)) == 0)
			return tf_vm_fail(err, -ETIMEDOUT, "process %d on %s does not write %s",
				(int)pid, r->name, name);
	}
	return 0;
}

static int host_fd(const struct tf_remote *r)
{
	return host_of(r)->epoll;
}

static void read_pipe(struct tf_job *job, int stream)
{
	char buf[PIECE];
	ssize_t n;

	while (job->pipe[stream] >= 0) {
		n = read(job->pipe[stream], buf, sizeof(buf));
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			return;
		if (n > 0)
			tf_job_keep(job, stream, buf, (size_t)n);
		else
			tf_vm_close_fd(&job->pipe[stream]);
	}
}

static void host_pump(struct tf_remote *r)
{
	for (struct tf_job *job = r->jobs; job; job = job->next) {
		read_pipe(job, 0);
		read_pipe(job, 1);
		if (!job->ended && tf_vm_child_ended(job->child, 0, &job->status)) {
			job->ended = true;
			epoll_ctl(host_of(r)->epoll, EPOLL_CTL_DEL, tf_vm_child_poll_fd(job->child),
				NULL);
		}
		job->closed = job->pipe[0] < 0 && job->pipe[1] < 0;
	}
}

static int host_address(const struct tf_remote *r, enum tf_transport transport, char *buf,
	size_t size, struct tf_vm_error *err)
{
	(void)err;
	/* A number of its own: the socket of a receiver that was killed stays behind. */
	if (transport == TF_TRANSPORT_UNIX)
		snprintf(buf, size, "unix:%s/socket%u", r->dir, ++host_of(r)->sockets);
	else
		snprintf(buf, size, "tcp://127.0.0.1:0");
	return 0;
}

static bool host_well(struct tf_remote *r)
{
	(void)r;
	return true;
}

static int host_scale(const struct tf_remote *r, int ms)
{
	(void)r;
	return ms;
}

static struct tf_vm *host_vm(const struct tf_remote *r)
{
	(void)r;
	return NULL;
}

static void host_end(struct tf_remote *r)
{
	close(host_of(r)->epoll);
	free(r);
}

static const struct tf_remote_ops host_ops = {
	.put = host_put,
	.get = host_get,
	.start = host_start,
	.let_go = host_let_go,
	.signal = host_signal,
	.drop = host_drop,
	.ask = host_ask,
	.fd = host_fd,
	.pump = host_pump,
	.address = host_address,
	.well = host_well,
	.scale = host_scale,
	.vm = host_vm,
	.end = host_end,
};

int tf_remote_new_host(struct tf_site *site, struct tf_remote *common, struct tf_remote **ret,
	struct tf_vm_error *err)
{
	const struct tf_spec *spec = &common->spec;
	bool user = spec->tier == TF_TIER_USER;
	struct host *h;

	(void)site;
	if (!user && strcmp(spec->arch, tf_vm_host_arch()) != 0)
		return tf_vm_fail(err, -EINVAL,
			"machine %s: the host is %s, so no native machine can be %s", common->name,
			tf_vm_host_arch(), spec->arch);
	h = calloc(1, sizeof(*h));
	if (!h)
		return tf_vm_fail(err, -ENOMEM, "no memory");
	h->base = *common;
	h->base.ops = &host_ops;
	h->base.dir = h->base.folder;
	if (user)
		snprintf(h->runner, sizeof(h->runner), "%s%s", spec->qemu[0] ? "" : "qemu-",
			spec->qemu[0] ? spec->qemu : spec->arch);
	if (user && spec->vector_length)
		snprintf(h->cpu, sizeof(h->cpu), "%s,sve-max-vq=%u",
			spec->cpu[0] ? spec->cpu : "max", spec->vector_length / 16);
	else if (user)
		snprintf(h->cpu, sizeof(h->cpu), "%s", spec->cpu);
	h->epoll = epoll_create1(EPOLL_CLOEXEC);
	if (h->epoll < 0) {
		int rc = tf_vm_fail_errno(err, -errno, "epoll_create1");

		free(h);
		return rc;
	}
	*ret = &h->base;
	return 0;
}
